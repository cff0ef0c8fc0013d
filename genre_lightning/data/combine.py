"""Several movies files as one table: of films with one id, the row of the first file counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genre_lightning.cache import build_once, key_of
from genre_lightning.data.films import FilmTable, open_table
from genre_lightning.data.movies import Audit
from genre_lightning.errors import DataError

ORIGIN = "origin"
"""Column of a combined table: the number of the file that a film is from."""
_FORMAT = 1


def combined(tables: Sequence[FilmTable], paths: Sequence[Path], cache_dir: Path) -> FilmTable:
    """Combine the films of files.

    Args:
        tables: Of the files, the newest first.
        paths: Of the files, for messages.
        cache_dir: Root of the cache.

    Raises:
        DataError: A file has no ids, which distinguish films.
    """
    if len(tables) == 1:
        return tables[0]
    for table, path in zip(tables, paths, strict=True):
        if table.numbered:
            raise DataError(
                f"{path} has no column of ids, which distinguish the films of several files: add one, or name it "
                "with --data.columns.id"
            )
    # in the cache, tables with further columns of the same digest are others
    key = key_of([_FORMAT, *(table.path.parent.name for table in tables)])

    def build(folder: Path) -> dict[str, Any]:
        seen: set[str] = set()
        twice = 0
        whole = [table.table for table in tables]
        if len({str(table.schema.field("id").type) for table in whole}) > 1:
            whole = [t.set_column(0, "id", t["id"].cast(pa.string())) for t in whole]
        schema = whole[0].schema.append(pa.field(ORIGIN, pa.int32()))
        with pa.OSFile(str(folder / "films.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for number, table in enumerate(whole):
                names = list(map(str, table["id"].to_pylist()))
                new = np.array([name not in seen for name in names], dtype=bool)
                seen.update(names)
                twice += int((~new).sum())
                kept = table.filter(pa.array(new)).append_column(
                    ORIGIN, pa.array(np.full(int(new.sum()), number), pa.int32())
                )
                writer.write_table(kept.cast(schema))
        return {"twice": twice}

    folder, kept = build_once(cache_dir / "combined", key, build)
    counts: Counter[str] = Counter()
    for one in tables:
        counts.update(one.audit.as_dict())
    counts["kept"] -= kept["twice"]
    counts["duplicate_id"] += kept["twice"]
    inputs: dict[str, Counter[str]] = {}
    for one in tables:
        for name, found in one.inputs.items():
            inputs.setdefault(name, Counter()).update(found)
    return FilmTable(
        open_table(folder / "films.arrow"),
        Audit(**counts),
        tuple(f"{path.name}: {note}" for one, path in zip(tables, paths, strict=True) for note in one.notes),
        key_of([_FORMAT, *(table.digest for table in tables)]),
        folder / "films.arrow",
        joins=tuple(join for one in tables for join in one.joins),
        inputs={name: dict(found) for name, found in inputs.items()},
    )
