"""Films that a function of the user's own yields, kept as a file, so that they are audited and split as any file is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """Write the rows with the columns and types that all of them need, which the first ones do not show."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        parts: list[Path] = []
        schemas: list[pa.Schema] = []
        while batch := [dict(row) for row in islice(rows, _ROWS)]:
            table = _table(batch)
            parts.append(Path(folder, f"{len(parts)}.parquet"))
            schemas.append(table.schema)
            pq.write_table(table, parts[-1])
        if not parts:
            raise DataError("data.reader yields no films: yield a mapping such as {'overview': ..., 'genres': [...]}")
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        with pq.ParquetWriter(path, schema) as writer:
            for part in parts:
                writer.write_table(_under(pq.ParquetFile(part).read(), schema))


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table of every column that one of them has."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows], from_pandas=True)  # NaN is a missing text too
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(
                f"data.reader yields a column {name!r} that no table can hold ({one_line(error)[:200]}): yield texts, "
                "numbers or lists of texts, of one kind in a column"
            ) from None
    return pa.table(columns)


def _under(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a wider schema."""
    has = set(table.column_names)
    columns = [table[f.name].cast(f.type) if f.name in has else pa.nulls(len(table), f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)
