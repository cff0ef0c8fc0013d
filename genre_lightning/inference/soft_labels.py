"""Soft labels: calibrated log-odds of films, of a trained run or in a table of `genre-lightning folds`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.data import DataOptions
from genre_lightning.data.features.prepare import values_of
from genre_lightning.data.kept_splits import DIGEST_BYTES
from genre_lightning.data.prepare import read_files
from genre_lightning.data.templates import columns_to_tag
from genre_lightning.errors import one_line
from genre_lightning.files import damaged, parse_json, read_parquet, replacing
from genre_lightning.inference.scoring import Scorer

_CHUNK = 4096
"""Films whose cells are in memory at a time."""
_FIX = "make it again with 'genre-lightning folds'"


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Calibrated log-odds of films, each by a model that was not trained on the film.

    Attributes:
        genres: Names of the columns.
        ids: Of the films, as text, distinct.
        digests: Of their normalised texts; see `splits.text_digests`.
        log_odds: float32 (films, genres).
        folds: int (films,): the fold that each film was left out with, from 1.
        made: How they were made: by which runs, when, and of which films.
    """

    genres: tuple[str, ...]
    ids: Sequence[str]
    digests: Sequence[bytes]
    log_odds: NDArray[np.float32]
    folds: Sequence[int]
    made: Mapping[str, Any]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table, whole or not at all."""
        rows, width = self.log_odds.shape
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "text_digest": pa.array(self.digests, pa.binary(DIGEST_BYTES)),
            "fold": pa.array(self.folds, pa.int16()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(self.log_odds.reshape(rows * width)), width),
        }
        metadata = {"genres": json.dumps(self.genres), "made": json.dumps(dict(self.made))}
        with replacing(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary, compression="zstd")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SoftLabels:
        """Read the table.

        Raises:
            CheckpointError: It is missing, damaged, or another table.
        """
        table = read_parquet(path, ("id", "text_digest", "fold", "logits"), _FIX)
        try:
            metadata = {key.decode(): parse_json(value) for key, value in (table.schema.metadata or {}).items()}
            genres, made = tuple(metadata["genres"]), metadata["made"]
            ids, digests, folds = (table[name].to_pylist() for name in ("id", "text_digest", "fold"))
            values = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            log_odds = np.asarray(values, dtype=np.float32).reshape(len(ids), len(genres))
            if not (all(isinstance(name, str) for name in (*genres, *ids)) and len(set(ids)) == len(ids)):
                raise ValueError("its ids are not distinct texts")
            if not (np.isfinite(log_odds).all() and isinstance(made, dict)):
                raise ValueError("its log-odds are not numbers")
        except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise damaged(path, one_line(error), _FIX) from None
        return cls(genres, ids, digests, log_odds, folds, made)


def log_odds_of(
    scorer: Scorer, options: DataOptions, ids: Sequence[Any], done: Callable[[int], None] = lambda films: None
) -> NDArray[np.float32]:
    """Give a run's calibrated log-odds of films, float32 (films, genres of the run).

    Args:
        scorer: The run.
        options: Of the data that the films are of; what the run reads of them is taken from the same files.
        ids: Of the films; one that the files do not have, such as a text of feedback, gets NaN.
        done: Called with the number of films that have been predicted.

    Raises:
        DataError: A file lacks a column that the run reads.
    """
    names = columns_to_tag(scorer.fields, scorer.columns, options.columns or ColumnNames())
    inputs = {feature.column for feature in scorer.features if not feature.in_text}
    tables = {
        name: read_files(replace(options, text=f"{{{column}}}", features=None))
        for name, column in names.items()
        if name not in inputs
    }
    head = read_files(replace(options, text="{overview}", features=list(scorer.features))) if inputs else None
    place = {film: row for row, film in enumerate(next(iter(tables.values())).ids.tolist())}
    found = np.array([place.get(film, -1) for film in ids], dtype=np.int64)
    films = np.flatnonzero(found >= 0)
    films = films[np.argsort(found[films], kind="stable")]  # rows are read in the files' order
    log_odds = np.full((len(found), len(scorer.decision.genres)), np.nan, dtype=np.float32)
    scale, shift = scorer.decision.affine
    for start in range(0, len(films), _CHUNK):
        part = films[start : start + _CHUNK]
        rows = found[part]
        cells: dict[str, list[Any]] = {name: table.strings("text", rows) for name, table in tables.items()}
        if head is not None:
            cells |= {name: list(values_of(head, name, rows)) for name in inputs}
        texts = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
        log_odds[part] = scorer.logits(texts) * scale + shift
        done(len(part))
    return log_odds
