"""The table of predictions that every model writes and that all of the evaluation reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genre_lightning.errors import CheckpointError, DataError
from genre_lightning.files import REMAKE, damaged, parse_json, read_parquet, replacing
from genre_lightning.metrics import BoolArray
from genre_lightning.shapes import require_shape, text

COLUMNS = ("id", "title", "text", "true_genres", "labels", "logits", "probabilities", "genres")


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions for films, beside the truth; arrays are brought to the dtypes below.

    Raises:
        DataError: The shapes do not fit each other, or a logit is NaN or infinite.
    """

    genres: tuple[str, ...]
    """The vocabulary: names of the columns, in order."""
    ids: NDArray[Any]
    """Film ids, int64 (films,), or objects that are text if the file's ids are."""
    titles: list[str]
    """One for each film."""
    texts: list[str]
    """The text that the model read of each film."""
    labels: BoolArray
    """The truth, (films, genres)."""
    logits: NDArray[np.float32]
    """Raw log-odds before any calibration, (films, genres)."""
    known: BoolArray | None = None
    """The labels that are known, (films, genres); None if all are. A label that is not is False."""
    languages: list[str] | None = None
    """Of each film, "" if it has none; None if the films have no column of languages."""

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "genres", tuple(str(genre) for genre in self.genres))
        ids = np.asarray(self.ids).reshape(-1)
        set_field(self, "ids", ids.astype(object if ids.dtype.kind in "OU" else np.int64))
        set_field(self, "titles", [str(title) for title in self.titles])
        set_field(self, "texts", [str(text) for text in self.texts])
        shape = (len(self.ids), len(self.genres))
        for name, dtype in (("labels", bool), ("logits", np.float32), ("known", bool)):
            if name == "known" and self.known is None:
                continue
            array = np.asarray(getattr(self, name)).astype(dtype)
            if array.size == 0 and 0 in shape:
                array = array.reshape(shape)
            if array.shape != shape:
                raise DataError(
                    f"predictions have {name} of shape {array.shape} for {shape[0]} films and {shape[1]} genres: "
                    "predict again with the model and the data of one run"
                )
            set_field(self, name, array)
        if self.known is not None:
            set_field(self, "labels", self.labels & self.known)
        if self.languages is not None and len(self.languages) != shape[0]:
            raise DataError(f"predictions have {len(self.languages)} languages for {shape[0]} films: give one for each")
        if len(self.titles) != shape[0] or len(self.texts) != shape[0]:
            raise DataError(
                f"predictions have {len(self.titles)} titles and {len(self.texts)} texts for {shape[0]} films: "
                "give one of each for each film"
            )
        bad = ~np.isfinite(self.logits).all(axis=1)
        if bad.any():
            raise DataError(
                f"predictions of {int(bad.sum())} films are NaN or infinite, first of film id "
                f"{self.ids[bad.argmax()]}: the model diverged; train with a lower model.lr or in "
                "trainer.precision=32-true"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def require_films(self, purpose: str) -> None:
        """Refuse to continue without films.

        Raises:
            DataError: There is none.
        """
        if len(self) == 0:
            raise DataError(f"there is no film to {purpose}: give the split a larger fraction or raise data.max_films")

    def require_genres(self, genres: Sequence[str]) -> None:
        """Refuse predictions of another vocabulary, the order of its genres included.

        Raises:
            DataError: The genres are not `genres`.
        """
        if self.genres != tuple(genres):
            other = sorted(set(self.genres) ^ set(genres))
            reason = f"{', '.join(other[:5])} in only one of them" if other else "the same genres in another order"
            raise DataError(
                f"the predictions are of another vocabulary ({reason}): "
                "use predictions of a run on the same data settings"
            )

    def genre_names(self, chosen: BoolArray) -> list[list[str]]:
        """Name the chosen genres of each film; `chosen` is bool (films, genres)."""
        return [[self.genres[column] for column in np.flatnonzero(row)] for row in chosen]

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        probabilities: NDArray[np.float32],
        decided: BoolArray,
        metadata: Mapping[str, str | None] | None = None,
    ) -> None:
        """Write the table, whole or not at all.

        Columns: id, title, text, true_genres, labels (0/1), logits (raw), probabilities (calibrated), genres (decided);
        known (0/1), if some labels are not; and language, if the films have one.

        Args:
            path: Path of the Parquet file.
            probabilities: float32 (films, genres), after calibration.
            decided: bool (films, genres).
            metadata: Texts kept in the file's schema beside the vocabulary, such as split and split_sha256.
        """
        genres = len(self.genres)
        table = pa.table(
            {
                "id": pa.array(self.ids, pa.string() if self.ids.dtype == object else pa.int64()),
                "title": pa.array([_storable(title) for title in self.titles], pa.string()),
                "text": pa.array([_storable(text) for text in self.texts], pa.string()),
                "true_genres": pa.array(self.genre_names(self.labels), pa.list_(pa.string())),
                "labels": _fixed(self.labels.astype(np.int8), pa.int8(), genres),
                "logits": _fixed(self.logits, pa.float32(), genres),
                "probabilities": _fixed(np.asarray(probabilities, dtype=np.float32), pa.float32(), genres),
                "genres": pa.array(self.genre_names(decided), pa.list_(pa.string())),
            }
        )
        if self.known is not None:
            table = table.append_column("known", _fixed(self.known.astype(np.int8), pa.int8(), genres))
        if self.languages is not None:
            languages = pa.array([_storable(language) for language in self.languages], pa.string())
            table = table.append_column("language", languages)
        texts = {key: value for key, value in (metadata or {}).items() if value is not None}
        table = table.replace_schema_metadata({**texts, "vocabulary": json.dumps(self.genres, ensure_ascii=False)})
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """A predictions file: the predictions, and what was made of them when it was written."""

    predictions: Predictions
    probabilities: NDArray[np.float32]
    """Calibrated, (films, genres)."""
    decided: BoolArray
    """The genres decided, (films, genres)."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Such as split and split_sha256."""


def read_stored_predictions(path: str | os.PathLike[str], fix: str = REMAKE) -> StoredPredictions:
    """Read a predictions file with its probabilities, decided genres and metadata.

    Args:
        path: Path of the file.
        fix: Fix to report for one that is missing or damaged.

    Raises:
        CheckpointError: The file is missing or damaged, or is not a predictions file.
        DataError: Its values are not usable (NaN, shapes).
    """
    table = read_parquet(path, fix=fix)
    try:
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        missing = [column for column in COLUMNS if column not in table.column_names]
        if missing or "vocabulary" not in metadata:
            raise CheckpointError(
                f"{path} is not a predictions file (it lacks {', '.join(missing) or 'its vocabulary'}): "
                "give the predictions.parquet of a run"
            )
        genres = parse_json(metadata.pop("vocabulary"))
        require_shape(genres, [text], "its vocabulary")
        return _stored(table, tuple(genres), metadata)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise damaged(path, error, fix) from None


def _stored(table: pa.Table, genres: tuple[str, ...], metadata: dict[str, str]) -> StoredPredictions:
    """Make predictions of a table.

    Raises:
        ValueError, TypeError, pa.ArrowException, DataError: It does not hold what `write_parquet` writes.
    """
    shape = (table.num_rows, len(genres))
    if len(set(genres)) != len(genres):
        raise ValueError("its vocabulary names a genre twice")
    if empty := [name for name in COLUMNS if table[name].null_count]:
        raise ValueError(f"its column {empty[0]} has empty cells")
    labels = _unfixed(table["labels"], shape)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("its labels are not 0 and 1")
    predictions = Predictions(
        genres=genres,
        ids=table["id"].to_numpy(),
        titles=table["title"].to_pylist(),
        texts=table["text"].to_pylist(),
        labels=labels.astype(bool),
        logits=_unfixed(table["logits"], shape),
        known=_unfixed(table["known"], shape) if "known" in table.column_names else None,
        languages=_languages(table),
    )
    probabilities = _unfixed(table["probabilities"], shape)
    # written so that NaN fails too
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("it holds probabilities that are NaN or outside 0 to 1")
    place = {genre: column for column, genre in enumerate(genres)}
    decided = np.zeros(shape, dtype=bool)
    for row, names in enumerate(table["genres"].to_pylist()):
        if not place.keys() >= set(names):
            raise ValueError("it names genres that its vocabulary lacks")
        decided[row, [place[name] for name in names]] = True
    return StoredPredictions(predictions, probabilities, decided, metadata)


def _languages(table: pa.Table) -> list[str] | None:
    return [str(name or "") for name in table["language"].to_pylist()] if "language" in table.column_names else None


def _fixed(values: NDArray, kind: pa.DataType, width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1), kind), width)


def _unfixed(column: pa.ChunkedArray, shape: tuple[int, int]) -> NDArray:
    values = np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks] or [np.zeros(0)])
    if values.size != shape[0] * shape[1]:
        raise ValueError(f"its rows are of another width than its {shape[1]} genres")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"it holds {values.dtype} instead of numbers")
    return values.reshape(shape)


def _storable(text: str) -> str:
    """Replace lone surrogates, which are not UTF-8 and which Parquet refuses."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
