"""Films of another file than a run's own: read as the run reads its films, without those that it was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.columns import ColumnNames, TextTemplate
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.features.prepare import values_of
from genre_lightning.data.films import FilmSource, FilmTable, ReadingProgress, load_films
from genre_lightning.data.kept_splits import KeptSplits, read_if_there
from genre_lightning.data.known_labels import LabelRules, known_of_other_films
from genre_lightning.data.splits import ids_digest, text_digests
from genre_lightning.errors import CheckpointError, DataError, one_line
from genre_lightning.evaluation.films import EvaluatedFilms
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.files import file_digest
from genre_lightning.metrics import BoolArray, judged_films
from genre_lightning.runs import ENSEMBLE, RunDirectory, kind_of

_CHUNK = 4096
"""Films whose cells are in memory at a time."""

Logits = Callable[[Sequence[Mapping[str, Any]]], NDArray[np.float32]]
"""From films, each what text templates are filled with by column, to log-odds (films, genres)."""


@dataclass(frozen=True)
class OtherFilms:
    """Films of a file that a run was not trained on.

    Attributes:
        table: Table of all films of the file.
        rows: int64, ascending: positions of the films to evaluate.
        evaluated: Which films they are.
        source: The file, and how it is read: with the columns that say which labels are known.
        inputs: Columns that the head reads.
        rules: Which labels are known.
        sides: Splits of the run.
        cache_dir: Root of the cache.
    """

    table: FilmTable
    rows: NDArray[np.int64]
    evaluated: EvaluatedFilms
    source: FilmSource
    inputs: frozenset[str]
    rules: LabelRules
    sides: Sequence[KeptSplits]
    cache_dir: Path

    def predictions(
        self, genres: Sequence[str], fields: Mapping[str, str], logits: Logits, done: Callable[[int], None]
    ) -> tuple[Predictions, EvaluatedFilms]:
        """Predict all films.

        Args:
            genres: Genres that the run knows, in the order of its logits.
            fields: The file's column for each name in the run's text templates.
            logits: Function that returns the run's logits.
            done: Called with the number of films that have been predicted.

        Returns:
            The predictions, and which films they are of, with the genres that the run does not know.

        Raises:
            DataError: The films have none of the run's genres.
        """
        inputs = self.inputs
        cells = {name: self._column(column) for name, column in fields.items() if name not in inputs}
        parts = []
        for start in range(0, len(self.rows), _CHUNK):
            part = self.rows[start : start + _CHUNK]
            strings: dict[str, list[Any]] = {name: table.strings("text", part) for name, table in cells.items()}
            strings |= {name: list(values_of(self.table, name, part)) for name in inputs}
            parts.append(logits([dict(zip(strings, row, strict=True)) for row in zip(*strings.values(), strict=True)]))
            done(len(part))
        labels, unknown = self._labels(genres)
        file = self.source.path.name
        known = known_of_other_films(self.rules, self.table, self.rows, labels, genres, file, self.sides)
        evaluated = replace(
            self.evaluated,
            unknown_genres=unknown,
            films_without_known_genres=int((~labels.any(axis=1) & judged_films(labels, known)).sum()),
            unknown_labels=0 if known is None else int((~known).sum()),
        )
        if not labels.any():
            names = ", ".join(list(unknown)[:5])
            raise DataError(
                f"no film of {self.source.path} has a genre that the run knows (it has {names}): "
                "rename the genres in the file to the run's own"
            )
        predictions = Predictions(
            genres=tuple(genres),
            ids=self.table.ids[self.rows],
            titles=self.table.strings("title", self.rows),
            texts=self.table.strings("text", self.rows),
            labels=labels,
            logits=np.concatenate(parts),
            known=known,
        )
        return predictions, evaluated

    def _column(self, column: str) -> FilmTable:
        # the column of known genres decides which films are kept
        inputs = tuple(feature for feature in self.source.inputs if feature.column == self.source.known_genres)
        return load_films(replace(self.source, template=TextTemplate(f"{{{column}}}"), inputs=inputs), self.cache_dir)

    def _labels(self, genres: Sequence[str]) -> tuple[BoolArray, dict[str, int]]:
        place = {name: column for column, name in enumerate(genres)}
        labels = np.zeros((len(self.rows), len(genres)), dtype=bool)
        unknown: Counter[str] = Counter()
        film, spell = 0, self.rules.speller(genres)
        for batch in self.table.batches("genres", self.rows):
            for names in map(spell, batch.to_pylist()):
                labels[film, [place[name] for name in names if name in place]] = True
                unknown.update(name for name in names if name not in place)
                film += 1
        return labels, dict(unknown.most_common())


def other_films(
    source: FilmSource, run: RunDirectory, cache_dir: Path, progress: ReadingProgress, *, same_ids: bool = True
) -> OtherFilms:
    """Read a file's films, without those that a run was trained on.

    Args:
        source: The file.
        run: The run; of an ensemble, the films of all its members are left out.
        cache_dir: Root of the cache.
        progress: Shows how far the reading has come.
        same_ids: A film with the id of a training film is that film, whatever its text; without, and in a file without
            ids, films are the same only if their texts are.

    Raises:
        DataError: The file cannot be read, or leaves no film that the run was not trained on.
        CheckpointError: What the run was trained on is not known.
    """
    rules, inputs = rules_of(run), frozenset(feature.column for feature in source.inputs)
    source = rules.reading(source)
    table = load_films(source, cache_dir, progress)
    same_ids = same_ids and not table.numbered
    rows = np.arange(len(table))
    ids, digests = table.ids, text_digests(table.strings("overview"))
    sides = sides_of(run)
    found = {side: [kept.on_side(ids, digests, side) for kept in sides] for side in ("train", "validation", "test")}
    by_text, either = (np.zeros(len(rows), dtype=bool) for _ in range(2))
    for texts, names in found["train"]:
        by_text |= texts
        either |= texts | (names & same_ids)
    left = rows[~either]
    if not len(left):
        raise DataError(
            f"{source.path} has {len(rows):,} films, and {run.path} was trained on every one of them: "
            "give a file with others"
        )
    held = {
        side: np.logical_or.reduce([t | (n & same_ids) for t, n in found[side]])[left]
        for side in ("validation", "test")
    }
    evaluated = EvaluatedFilms(
        file=source.path.name,
        file_sha256=file_digest(source.path),
        audit=table.audit.as_dict(),
        n=len(left),
        ids_sha256=ids_digest(ids[left]),
        excluded_trained=int(either.sum()),
        excluded_by_id_alone=int((either & ~by_text).sum()),
        from_validation=int(held["validation"].sum()),
        from_test=int(held["test"].sum()),
    )
    return OtherFilms(table, left, evaluated, source, inputs, rules, sides, cache_dir)


def rules_of(run: RunDirectory) -> LabelRules:
    """Return which labels a run takes as known; of an ensemble, its first member's."""
    return LabelRules.of_settings(run.first_model.settings().get("data") or {})


def sides_of(run: RunDirectory) -> list[KeptSplits]:
    """Return the splits of a run, or of all members of an ensemble.

    Raises:
        CheckpointError: A run of a version that did not keep them, whose file is not there or has changed.
    """
    settings = run.settings()
    if kind_of(settings) == ENSEMBLE:
        run.check_members()
        return [sides for member, _ in run.members() for sides in sides_of(member)]
    kept = read_if_there(run.splits)
    return [_drawn_again(run, settings) if kept is None else kept]


def _drawn_again(run: RunDirectory, settings: Mapping[str, Any]) -> KeptSplits:
    options = dict(settings.get("data") or {})
    fix = "put the movies file back where the run was trained on it, as config.yaml names it"
    try:
        options["columns"] = ColumnNames(**(options.get("columns") or {}))
        data = MovieDataModule(**options).prepare_films()
    except (DataError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{run.path} does not record which films it was trained on ({one_line(error)}): {fix}"
        ) from None
    splits = {name: split.sha256 for name, split in data.splits.items()}
    before = run.read_state().data
    if before is not None and before.splits not in (None, splits):
        raise CheckpointError(
            f"{run.path} does not record which films it was trained on, and {options.get('csv')} has changed: {fix}"
        )
    return data.sides
