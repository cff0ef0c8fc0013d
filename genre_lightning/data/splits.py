"""Seeded splits, stratified over several labels, with no film and no text on two sides."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """The films of a split.

    Attributes:
        films: int64, positions in the module's films.
        labels: bool (films of the split, genres).
        sha256: Of the sorted ids: names the split.
        known: bool (films of the split, genres): the labels that are known; None if all are.
        weights: float32 (films of the split,): what each counts in the loss; None for 1.
    """

    films: NDArray[np.int64]
    labels: NDArray[np.bool_]
    sha256: str
    known: NDArray[np.bool_] | None = None
    weights: NDArray[np.float32] | None = None


def normalised_text(text: str) -> str:
    """Return a text without case, accents' forms, punctuation and spacing: equal for two copies of one overview."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def text_groups(texts: Iterable[str]) -> NDArray[np.int64]:
    """Give films of one normalised text one number: films of one group must stay together.

    Returns:
        int64 array (films,): for each film the first index of a film with its text.
    """
    return groups_of(text_digests(texts))


def text_digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Digest each normalised text: uint64 (texts, 2), 16 bytes that are equal for equal texts."""
    digests = bytearray()
    for text in texts:
        digests += hashlib.blake2b(normalised_text(text).encode(), digest_size=16).digest()
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)


def groups_of(halves: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Group films by the digests of their texts; see `text_groups`."""
    # sorted: a dictionary of millions of texts would need a gigabyte
    order = np.lexsort(halves.T)  # stable: equal texts stay in their order
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    groups = np.empty(len(order), dtype=np.int64)
    groups[order] = order[starts][np.cumsum(starts) - 1]
    return groups


def split_films(
    labels: NDArray[np.bool_], groups: NDArray[np.int64], fractions: Sequence[float], seed: int
) -> list[NDArray[np.int64]]:
    """Assign films to splits so that each genre's films are in the splits in the wanted fractions.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data", 2011):
    the genre with the fewest films left is assigned first, each split getting what it still lacks of that genre. The
    films of a genre are assigned at once here, which keeps the cost at one pass for each genre.

    Args:
        labels: bool (films, genres).
        groups: int64 (films,): films with equal numbers are never parted.
        fractions: Fractions of the splits.
        seed: Random seed of the shuffles; equal seeds give equal splits.

    Returns:
        For each fraction the sorted int64 indices of its films; together every film once.
    """
    rng = np.random.default_rng([seed, 0x5711])
    _, unit_of_film = np.unique(groups, return_inverse=True)
    units = int(unit_of_film.max()) + 1 if len(labels) else 0
    unit_labels = np.zeros((units, labels.shape[1]), dtype=bool)
    film, genre_of_film = np.nonzero(labels)
    unit_labels[unit_of_film[film], genre_of_film] = True
    shares = np.asarray(fractions, dtype=np.float64)
    wanted = shares[:, None] * unit_labels.sum(axis=0)[None, :]  # (splits, genres): what each split still lacks
    wanted_films = shares * units
    split_of_unit = np.full(units, -1, dtype=np.int64)
    left = unit_labels.sum(axis=0)
    while left.any():
        genre = int(np.argmin(np.where(left > 0, left, np.iinfo(left.dtype).max)))
        members = rng.permutation(np.flatnonzero(unit_labels[:, genre] & (split_of_unit < 0)))
        _deal(members, wanted[:, genre], wanted_films, split_of_unit, rng)
        for split in range(len(shares)):
            got = members[split_of_unit[members] == split]
            wanted[split] -= unit_labels[got].sum(axis=0)
            wanted_films[split] -= len(got)
        left -= unit_labels[members].sum(axis=0)
    rest = rng.permutation(np.flatnonzero(split_of_unit < 0))
    _deal(rest, wanted_films.copy(), wanted_films, split_of_unit, rng)
    return [np.flatnonzero(split_of_unit[unit_of_film] == split) for split in range(len(shares))]


def _deal(
    members: NDArray[np.int64],
    wanted: NDArray[np.float64],
    tie_break: NDArray[np.float64],
    split_of_unit: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Give each split the part of `members` that it lacks: largest remainders, ties by the splits' need of films."""
    need = np.maximum(wanted, 0)
    quota = len(members) * (need / need.sum() if need.sum() > 0 else np.full(len(need), 1 / len(need)))
    counts = np.floor(quota).astype(np.int64)
    order = np.lexsort((rng.random(len(quota)), -tie_break, -(quota - counts)))
    counts[order[: len(members) - counts.sum()]] += 1
    split_of_unit[members] = np.repeat(np.arange(len(counts)), counts)


def ids_digest(ids: NDArray[Any]) -> str:
    """Return the SHA-256 of a split's sorted ids, numbers or texts: two runs may be compared only if it is equal."""
    if ids.dtype == object:
        return hashlib.sha256("\n".join(sorted(ids.tolist())).encode()).hexdigest()
    return hashlib.sha256(np.sort(np.asarray(ids, dtype="<i8")).tobytes()).hexdigest()
