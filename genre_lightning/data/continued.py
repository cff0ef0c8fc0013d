"""The films of a run that continues from another: those that the parent has had keep their side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.kept_splits import KeptSplits, as_bytes
from genre_lightning.data.splits import SPLIT_NAMES, groups_of, split_films
from genre_lightning.errors import ConfigError
from genre_lightning.types import FittedInput

_NEW = -1


@dataclass(frozen=True, eq=False)
class OldFilms:
    """What a run takes from its parent for its films.

    Attributes:
        run: Name of the parent, for messages.
        sides: Of the parent's films, and of those that it has not used but its own parents had.
        genres: That the parent knows.
        inputs: Of the head, as they were fitted.
        replay: Fraction of the parent's training films that are trained on again.
        drop_genres: Whether genres that no film has any more are left out.
        subset: Whether the parent took a random subset of its files: their other films are left out here.
        files: Names of the parent's files.
    """

    run: str
    sides: KeptSplits
    genres: tuple[str, ...]
    inputs: tuple[FittedInput, ...] = ()
    replay: float = 1.0
    drop_genres: bool = False
    subset: bool = False
    files: tuple[str, ...] = ()

    @property
    def held_out_texts(self) -> set[bytes]:
        """Digests of the texts on the validation and test sides."""
        films = zip(self.sides.digests, self.sides.sides, strict=True)
        return {digest for digest, side in films if side != SPLIT_NAMES[0]}


@dataclass(frozen=True, eq=False)
class Origins:
    """What a parent knows of the films of files.

    Attributes:
        side: int64 (films,): place in `SPLIT_NAMES`, or -1 for a new film.
        born: int64 (films,): run of the chain in which each was first seen.
    """

    side: NDArray[np.int64]
    born: NDArray[np.int64]

    def of(self, films: NDArray[np.int64]) -> Origins:
        """Choose films by their positions."""
        return Origins(self.side[films], self.born[films])

    def with_training_films(self, trains: NDArray[np.bool_], generation: int) -> Origins:
        """Put films on the train side, and as many new ones behind the others as there are more.

        Args:
            trains: bool (films and further ones,).
            generation: Run of the chain in which they are labelled.
        """
        more = len(trains) - len(self.side)
        side = np.concatenate([self.side, np.full(more, _NEW)])
        born = np.concatenate([self.born, np.full(more, generation)])
        # the opinion is of now, and so of all genres that there are now
        return Origins(np.where(trains, 0, side), np.where(trains, generation, born))

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """The films on the validation and test sides."""
        return self.side > 0

    @property
    def new(self) -> NDArray[np.bool_]:
        """The films that no run of the chain has had."""
        return self.side == _NEW


def origins(old: OldFilms, ids: NDArray, digests: NDArray[np.uint64], *, numbered: bool = False) -> Origins:
    """Find the side of each film in the parent, by its id and by its text; by its text alone if a file has no ids.

    A film that was ever held out stays so: test counts before validation, and validation before train. Films with
    one text have one side.

    Args:
        old: The parent's films.
        ids: Of the films.
        digests: Of their texts.
        numbered: Whether the ids are numbers of rows.
    """
    next_run = old.sides.generation + 1
    place = {name: number for number, name in enumerate(SPLIT_NAMES)}
    by_id: dict[str, tuple[int, int]] = {}
    by_text: dict[bytes, tuple[int, int]] = {}
    for name, digest, side, born in zip(
        old.sides.ids, old.sides.digests, old.sides.sides, old.sides.births, strict=True
    ):
        if not (numbered or old.sides.numbered):
            by_id[name] = (place[side], born)
        known = by_text.get(digest, (_NEW, born))
        by_text[digest] = (max(place[side], known[0]), min(born, known[1]))
    nothing = (_NEW, next_run)
    found = [
        (by_id.get(str(name), nothing), by_text.get(digest, nothing))
        for name, digest in zip(ids.tolist(), as_bytes(digests), strict=True)
    ]
    places = np.array([max(one[0], other[0]) for one, other in found], dtype=np.int64).reshape(-1)
    births = np.array([min(one[1], other[1]) for one, other in found], dtype=np.int64).reshape(-1)
    groups = groups_of(digests)
    of_group = np.full(len(ids), _NEW, dtype=np.int64)
    np.maximum.at(of_group, groups, places)
    return Origins(of_group[groups], births)


def films_in_use(
    old: OldFilms, films: Origins, from_older: NDArray[np.bool_], max_films: int | None, seed: int
) -> NDArray[np.int64]:
    """Choose the films of a continued run: all old ones but those that are not replayed, and the new ones.

    Args:
        old: The parent's films.
        films: What the parent knows of each film.
        from_older: bool (films,): whether it is from one of the parent's files.
        max_films: Number of new films; None for all.
        seed: Random seed of both choices.

    Returns:
        int64, ascending: their positions.
    """
    used = ~films.new
    trained = np.flatnonzero(films.side == 0)
    if old.replay < 1:
        generator = np.random.default_rng([seed, 0x2E91])
        left_out = generator.permutation(trained)[round(old.replay * len(trained)) :]
        used[left_out] = False
    # a film that the parent's subset left out is not a new one
    new = np.flatnonzero(films.new & ~(from_older & old.subset))
    if max_films is not None and max_films < len(new):
        new = np.random.default_rng([seed, 0xF115]).choice(new, max_films, replace=False)
    used[new] = True
    return np.flatnonzero(used)


def continued_parts(
    films: Origins,
    labels: NDArray[np.bool_],
    digests: NDArray[np.uint64],
    names: Sequence[str],
    fractions: Sequence[float],
    seed: int,
) -> list[NDArray[np.int64]]:
    """Split the films of a continued run: old ones keep their side, new ones are split by the rule of any run.

    Args:
        films: What the parent knows of each film.
        labels: bool (films, genres).
        digests: Of their texts.
        names: The parent's sides.
        fractions: See `split_films`, as for seed.
        seed: Likewise.

    Returns:
        int64, ascending, for each of `names`: positions of its films.
    """
    side = films.side.copy()
    new = np.flatnonzero(films.new)
    for name, part in zip(names, split_films(labels[new], groups_of(digests[new]), fractions, seed), strict=True):
        side[new[part]] = SPLIT_NAMES.index(name)
    return [np.flatnonzero(side == SPLIT_NAMES.index(name)) for name in names]


def continued_sides(
    old: OldFilms,
    films: Origins,
    ids: NDArray,
    digests: NDArray[np.uint64],
    parts: Sequence[NDArray[np.int64]],
    genres: Sequence[str],
    file: str,
) -> KeptSplits:
    """Keep the sides of a continued run's films, and those of the films of the chain that it does not use.

    Args:
        old: The parent's films.
        films: What the parent knows of each film.
        ids: Of the films.
        digests: Of their texts.
        parts: Of the splits.
        genres: That the run knows.
        file: Names of the movies files.
    """
    own = KeptSplits.of_parts(ids, digests, parts, file)
    names: Sequence[str] = old.sides.ids
    if old.sides.numbered:
        # a number is the id of no film: the text tells which films are used, and another name keeps ids distinct
        texts = set(own.digests)
        rest = [place for place, digest in enumerate(old.sides.digests) if digest not in texts]
        names = [f"row {name} of {old.sides.file}" for name in names]
    else:
        mine = set(own.ids)
        rest = [place for place, name in enumerate(names) if name not in mine]
    generation = old.sides.generation + 1
    return KeptSplits(
        [*own.ids, *(names[place] for place in rest)],
        [*own.digests, *(old.sides.digests[place] for place in rest)],
        [*own.sides, *(old.sides.sides[place] for place in rest)],
        file,
        [*films.born.tolist(), *(old.sides.births[place] for place in rest)],
        [*([True] * len(own.ids)), *([False] * len(rest))],
        {**old.sides.genres, **{name: generation for name in genres if name not in old.genres}},
        generation,
    )


def check_genres(old: OldFilms, genres: Sequence[str], files: str) -> list[str]:
    """Report what becomes of the genres, and refuse that one disappears.

    Args:
        old: The parent's films.
        genres: Of the films in use.
        files: Names of the movies files.

    Returns:
        Notes for the audit.

    Raises:
        ConfigError: No film has a genre of the parent any more, and that was not accepted.
    """
    gone, new = sorted(set(old.genres) - set(genres)), sorted(set(genres) - set(old.genres))
    if gone and not old.drop_genres:
        raise ConfigError(
            f"no film of {files} has {', '.join(gone[:10])}, which {old.run} knows: add a file with such films by a "
            "second --data.csv, or leave the genre out with --continue.drop_genres true"
        )
    notes = [f"genres of {old.run} that are left out, as no film has them: {', '.join(gone)}"] if gone else []
    return notes + ([f"genres that {old.run} does not know: {', '.join(new)}"] if new else [])
