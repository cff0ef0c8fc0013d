"""The films of a file as a memory-mapped Arrow table: read and audited once for each content and setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_lightning.data.cache import build_once, key_of
from genre_lightning.data.movies import Audit, FilmSource, Movie, ReadShare, file_kind, read_movies
from genre_lightning.errors import DataError
from genre_lightning.files import file_digest

__all__ = ["FilmSource", "FilmTable", "load_films"]

_FORMAT = 1  # raised when what is kept of a film, or how it is read, changes
_SCHEMA = pa.schema(
    {"id": pa.int64(), "title": pa.large_string(), "overview": pa.large_string(), "text": pa.large_string(),
     "genres": pa.list_(pa.string())}
)  # fmt: skip
_BATCH_FILMS = 4096

ReadingProgress = Callable[[str, ReadShare], AbstractContextManager[Callable[[int], None] | None]]
"""Shows how far a file has been read: a context that gives the function to report films to."""


def no_reading_progress(task: str, share: ReadShare) -> AbstractContextManager[None]:
    """The progress of a process that shows none."""
    return nullcontext()


@dataclass(frozen=True)
class FilmTable:
    """Films in columns; the table is memory-mapped, so its size is not the process's.

    Attributes:
        table: id, title, overview, text and genres of each kept film, in the file's order.
        audit: of the file.
        digest: names the content of the table.
        path: of the Arrow stream that the table maps.
    """

    table: pa.Table
    audit: Audit
    digest: str
    path: Path

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64 (films,)."""
        return self.table["id"].to_numpy()

    def strings(self, column: str, films: NDArray[np.int64] | None = None) -> list[str]:
        """A text column, of all films or of those at the given positions."""
        if films is None:
            return self.table[column].to_pylist()
        strings: list[str] = []
        for start in range(0, len(films), _BATCH_FILMS):
            part = films[start : start + _BATCH_FILMS]
            # Arrow joins all chunks of a column that it takes from, which may be gigabytes
            first = int(part.min())
            near = self.table[column].slice(first, int(part.max()) - first + 1)
            strings += near.take(pa.array(part - first)).to_pylist()
        return strings

    def genres(self) -> list[list[str]]:
        """The genres of each film."""
        return self.table["genres"].to_pylist()

    def batches(self, column: str, films: NDArray[np.int64]) -> Iterator[pa.Array]:
        """A column of the films at the given positions, which ascend, in one pass and a few films at a time.

        The file is read, not mapped: of a file of gigabytes no more than a batch is in memory.
        """
        options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.get_field_index(column)])
        start = 0
        with pa.OSFile(str(self.path)) as file, pa.ipc.open_stream(file, options=options) as reader:
            for batch in reader:
                low, high = np.searchsorted(films, (start, start + batch.num_rows))
                yield batch.column(0).take(pa.array(films[low:high] - start))
                start += batch.num_rows


def load_films(source: FilmSource, cache_dir: Path, progress: ReadingProgress = no_reading_progress) -> FilmTable:
    """Reads the films of a file, or opens what an earlier reading left in the cache.

    Args:
        source: the file.
        cache_dir: root of the cache.
        progress: shows how far the reading has come.

    Raises:
        DataError: the file cannot be read, or leaves no film.
    """
    settings = {
        "format": _FORMAT,
        "kind": [f".{part}" for part in file_kind(source.path).split(".")],
        "file": file_digest(source.path),
        "columns": asdict(source.columns),
        "text": source.template.template,
        "genre_format": source.genre_format,
        "genre_separator": source.genre_separator,
        "require_genres": source.require_genres,
    }
    key = key_of(settings)

    def build(folder: Path) -> dict[str, Any]:
        audit, share = Audit(), ReadShare()
        films = read_movies(
            source.path,
            source.columns,
            source.template,
            audit,
            genre_format=source.genre_format,
            genre_separator=source.genre_separator,
            require_genres=source.require_genres,
            share=share,
        )
        with progress("Reading films", share) as report:
            _write(folder / "films.arrow", films, report)
        if audit.kept == 0:
            dropped = ", ".join(f"{count} {reason}" for reason, count in audit.as_dict().items() if count)
            raise DataError(f"{source.path} leaves no usable film ({dropped or 'no rows'}): give a movies file")
        return audit.as_dict()

    folder, facts = build_once(cache_dir / "films", key, build)
    with pa.memory_map(str(folder / "films.arrow")) as file:
        table = pa.ipc.open_stream(file).read_all()
    return FilmTable(table, Audit(**facts), key, folder / "films.arrow")


def _write(path: Path, films: Iterable[Movie], report: Callable[[int], None] | None) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        for batch in _batches(films):
            columns = {name: [getattr(film, name) for film in batch] for name in _SCHEMA.names}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
            if report:
                report(len(batch))


def _batches(films: Iterable[Movie]) -> Iterator[list[Movie]]:
    batch: list[Movie] = []
    for film in films:
        batch.append(film)
        if len(batch) == _BATCH_FILMS:
            yield batch
            batch = []
    if batch:
        yield batch
