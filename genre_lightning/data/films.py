"""The films of a file as a memory-mapped Arrow table: read and audited once for each content and setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of
from genre_lightning.config.columns import FilmSource, TextTemplate
from genre_lightning.config.features import Feature
from genre_lightning.data.arrow import int64s
from genre_lightning.data.file_kinds import file_kind
from genre_lightning.data.joins import JoinIndex, join_identity, open_joins
from genre_lightning.data.movies import Audit, Movie, Reading, check_loss, guess_shapes, read_movies
from genre_lightning.data.shapes import Shapes
from genre_lightning.data.tables import FileState
from genre_lightning.errors import DataError
from genre_lightning.files import file_digest
from genre_lightning.node import digest_on_node
from genre_lightning.progress import ReadShare

__all__ = ["FilmSource", "FilmTable", "load_films"]

READING_VERSION = 6
"""Raised when what is kept of a film, or how it is read, changes: digests of films are of one version."""
_SCHEMA = pa.schema(
    {"id": pa.string(), "title": pa.large_string(), "overview": pa.large_string(), "text": pa.large_string(),
     "genres": pa.list_(pa.string())}
)  # fmt: skip
_INPUTS = {
    "tags": pa.list_(pa.string()), "category": pa.string(), "number": pa.float64(), "date": pa.float64(),
    "vector": pa.list_(pa.float32()),
}  # fmt: skip
"""Types of the columns of the head's inputs."""
_BATCH_FILMS = 4096

ReadingProgress = Callable[[str, ReadShare], AbstractContextManager[Callable[[int], None] | None]]
"""Shows how far a file has been read: a context that gives the function to report films to."""


def no_reading_progress(task: str, share: ReadShare) -> AbstractContextManager[None]:
    """Return the progress of a process that shows none."""
    return nullcontext()


@dataclass(frozen=True)
class FilmTable:
    """Films in columns; the table is memory-mapped, so its size is not the process's.

    Attributes:
        table: Id, title, overview, text and genres of each kept film, in the file's order.
        audit: Audit of the file.
        notes: What a reader of the audit should know beside the counts, a line each.
        digest: Names the content of the table.
        path: Path of the Arrow stream that the table maps.
        numbered: Whether the ids are numbers of rows, as the file has none.
        joins: What became of the rows of each joined file.
        inputs: Films in which each input of the head is known, missing or malformed.
    """

    table: pa.Table
    audit: Audit
    notes: tuple[str, ...]
    digest: str
    path: Path
    numbered: bool = False
    joins: tuple[dict[str, Any], ...] = ()
    inputs: dict[str, dict[str, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> NDArray[Any]:
        """int64 (films,), or objects that are text if the file's ids are."""
        column = self.table["id"]
        if column.type != pa.int64():
            return column.to_numpy()
        return np.concatenate([np.zeros(0, np.int64), *map(np.from_dlpack, column.chunks)])  # there may be no chunk

    def strings(self, column: str, films: NDArray[np.int64] | None = None) -> list[str]:
        """Return a text column, of all films or of those at the given positions."""
        if films is None:
            return self.table[column].to_pylist()
        strings: list[str] = []
        for start in range(0, len(films), _BATCH_FILMS):
            part = films[start : start + _BATCH_FILMS]
            # Arrow joins all chunks of a column that it takes from, which may be gigabytes
            first = int(part.min())
            near = self.table[column].slice(first, int(part.max()) - first + 1)
            strings += near.take(int64s(part - first)).to_pylist()
        return strings

    def genres(self) -> list[list[str]]:
        """Return the genres of each film."""
        return self.table["genres"].to_pylist()

    def batches(self, column: str, films: NDArray[np.int64]) -> Iterator[pa.Array]:
        """Yield a column of the films at the given positions, which ascend, in one pass and a few films at a time.

        The file is read, not mapped: of a file of gigabytes no more than a batch is in memory.
        """
        options = pa.ipc.IpcReadOptions(included_fields=[self.table.schema.get_field_index(column)])
        start = 0
        with pa.OSFile(str(self.path)) as file, pa.ipc.open_stream(file, options=options) as reader:
            for batch in reader:
                low, high = np.searchsorted(films, (start, start + batch.num_rows))
                yield batch.column(0).take(int64s(films[low:high] - start))
                start += batch.num_rows


def load_films(
    source: FilmSource,
    cache_dir: Path,
    progress: ReadingProgress = no_reading_progress,
    shown: Sequence[Feature] = (),
) -> FilmTable:
    """Read the films of a file, or opens what an earlier reading left in the cache.

    Args:
        source: The file.
        cache_dir: Root of the cache.
        progress: Shows how far the reading has come.
        shown: Further columns that the table holds as it holds inputs, which no training depends on: its digest is the
            same without them.

    Raises:
        DataError: The file cannot be read, or leaves no film.
    """
    kind = file_kind(source.path)
    state = FileState.of(source.path)
    digest = digest_on_node(source.path)
    named = key_of(_settings(source, kind, digest))
    source = replace(source, inputs=(*source.inputs, *shown))
    joins = open_joins(source, cache_dir)
    key = key_of(_settings(source, kind, digest))

    def build(folder: Path) -> dict[str, Any]:
        reading = _read(source, folder / "films.arrow", progress, joins)
        # bound to the digest for good: what was read must be what was hashed
        state.check_unchanged()
        if file_digest(source.path) != digest:
            raise DataError(f"{source.path} has changed while it was read: run the command again")
        facts = {"audit": reading.audit.as_dict(), "notes": reading.notes(), "numbered": not reading.tally.has_ids}
        facts["loss"] = reading.loss()
        if source.has_inputs:
            facts |= {"joins": [join.audit() for join in reading.joins], "inputs": reading.inputs}
        return facts

    folder, kept = build_once(cache_dir / "films", key, build)
    check_loss(source, Audit(**kept["audit"]), kept["loss"])  # what an earlier command accepted, this one may not
    notes = tuple(kept["notes"])
    return FilmTable(
        open_table(folder / "films.arrow"),
        Audit(**kept["audit"]),
        notes,
        named,
        folder / "films.arrow",
        kept["numbered"],
        tuple(kept.get("joins", ())),
        kept.get("inputs", {}),
    )


def open_table(path: Path) -> pa.Table:
    """Map a table of films that is kept in the cache into memory."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def _settings(source: FilmSource, kind: str, digest: str) -> dict[str, Any]:
    """Return what decides what is kept of a file's films."""
    settings = {
        "format": READING_VERSION,
        "kind": kind,
        "file": digest,
        **asdict(replace(source, join=(), inputs=(), template=TextTemplate(source.template.template))),
        "template": source.template.template,
    }
    # none of these changes what is kept of a film; the last two have their own place
    for name in ("path", "max_malformed", "join", "inputs"):
        del settings[name]
    if source.has_inputs:
        settings |= _settings_of_inputs(source)
    if source.known_genres is None:
        del settings["known_genres"]
    return settings


def _settings_of_inputs(source: FilmSource) -> dict[str, Any]:
    """Return what decides the inputs that are kept of a film."""
    return {
        "join": [join_identity(join) for join in source.join],
        "inputs": [[f.column, f.kind, f.separator, f.zero_is_missing] for f in source.inputs],
        "lines": [[f.column, f.line] for f in source.template.features],
    }


def input_column(column: str) -> str:
    """Return the name under which the table keeps an input of the head."""
    return f"input:{column}"


def _read(source: FilmSource, path: Path, progress: ReadingProgress, joins: Sequence[JoinIndex] = ()) -> Reading:
    """Write the films of a file as a table, by the shapes that all of its rows give its ids and genres."""
    shapes: Shapes | None = guess_shapes(source)
    while shapes is not None:
        reading, share = Reading(source, joins), ReadShare()
        with progress("Reading films", share) as share.count_rows:
            distinct_texts = _write(path, read_movies(reading, shapes, share), shapes, source.inputs)
        decided = reading.tally.shapes()
        # the first rows were not like the rest: once more, by what is known now
        shapes = decided if decided != shapes else None
    reading.check()
    if distinct_texts == 1 < reading.audit.kept:
        raise DataError(
            f"{source.path}: {reading.audit.kept:,} films have 1 distinct text: "
            "name the right columns in data.text and --data.columns.overview"
        )
    return reading


def _write(path: Path, films: Iterable[Movie], shapes: Shapes, inputs: Sequence[Feature] = ()) -> int:
    """Write the table; return how many distinct texts there are, if it is 1 or 0."""
    schema = _SCHEMA if shapes.ids == "text" else _SCHEMA.set(0, pa.field("id", pa.int64()))
    names = schema.names
    for feature in inputs:
        schema = schema.append(pa.field(input_column(feature.column), _INPUTS[feature.kind]))
    texts: set[str] = set()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in _batches(films):
            columns = {name: [getattr(film, name) for film in batch] for name in names}
            for place, feature in enumerate(inputs):
                columns[input_column(feature.column)] = [film.inputs[place] for film in batch]
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))
            if len(texts) < 2:
                texts.update(columns["text"])
    return len(texts)


def _batches(films: Iterable[Movie]) -> Iterator[list[Movie]]:
    batch: list[Movie] = []
    for film in films:
        batch.append(film)
        if len(batch) == _BATCH_FILMS:
            yield batch
            batch = []
    if batch:
        yield batch
