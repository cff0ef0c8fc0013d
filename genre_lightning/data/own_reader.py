"""Films that a function of the user's own yields, kept as a file, so that they are audited and split as any file is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genre_lightning.errors import DataError, one_line
from genre_lightning.files import file_digest

Reader = Callable[[Path], Iterable[Mapping[str, Any]]]
"""From the path `data.csv` to films, each a mapping of the file's columns to texts, numbers or lists of texts."""

_ROWS = 4096


def read_rows(reader: Reader, path: Path, cache_dir: Path) -> Path:
    """Write what a reader yields as a Parquet file named after its content, and return it.

    Args:
        reader: Of the user.
        path: That it is given.
        cache_dir: Root of the cache.

    Raises:
        DataError: The reader fails, yields nothing, or yields what no table can hold.
    """
    folder = cache_dir / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".parquet", dir=folder)
    os.close(handle)
    part = Path(name)
    try:
        _write(part, iter(reader(path)))
        kept = folder / f"{path.stem}-{file_digest(part)[:16]}.parquet"
        part.replace(kept)
    except (DataError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever the user's function raises
        raise DataError(f"data.reader fails on {path} ({type(error).__name__}: {one_line(error)[:300]})") from error
    finally:
        part.unlink(missing_ok=True)
    return kept


def _write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    first = [dict(row) for row in islice(rows, _ROWS)]
    if not first:
        raise DataError("data.reader yields no films: yield a mapping such as {'overview': ..., 'genres': [...]}")
    table = pa.Table.from_pylist(first)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        while batch := [dict(row) for row in islice(rows, _ROWS)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=table.schema))
