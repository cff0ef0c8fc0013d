"""The rows of a joined file on disk, by the key of a film: read once, whatever their number, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from genre_lightning.config.features import JoinedFile
from genre_lightning.data.cells import has_half_character, is_placeholder_genre
from genre_lightning.data.csv_rows import MisfitRow
from genre_lightning.data.shapes import whole_number
from genre_lightning.data.tables import read_rows

_BATCH_ROWS = 1000
_LONGEST_KEY = 200
"""Characters of a key that is kept as it is."""
_IMDB = re.compile(r"tt0*([0-9]{1,18})")


def join_key(cell: object, *, imdb: bool = False) -> str | None:
    """Return an id cell as a key: 862.0 is 862, and of IMDb's ids tt0114709 is 114709; None for a cell without one."""
    if (number := whole_number(cell)) is not None:
        return str(number)
    text = "" if cell is None else str(cell).strip()
    if imdb and (found := _IMDB.fullmatch(text)):
        return str(int(found[1]))
    if len(text) > _LONGEST_KEY:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return None if is_placeholder_genre(text) or has_half_character(text) else text


def write_rows(path: Path, join: JoinedFile, columns: Sequence[str], encoding: str) -> dict[str, Any]:
    """Write the rows of a joined file by their films' keys; the first row of a film counts.

    Args:
        path: The table to make.
        join: The file, and the file of links through which its keys are those of films.
        columns: Columns that are kept.
        encoding: How text is encoded in files that are not Parquet.

    Returns:
        The counts of `JoinIndex.facts`, and an example of a key.

    Raises:
        DataError: A file cannot be read.
    """
    counts = {"rows": 0, "rows_without_key": 0}
    example: list[str] = []
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, cells TEXT)")
        film_of = _links(database, join, encoding) if join.via else None
        if film_of is not None:
            counts["rows_without_link"] = 0

        def rows() -> Iterator[tuple[str, str]]:
            for row in read_rows(join.file, [join.key, *columns], optional=[], encoding=encoding):
                counts["rows"] += 1
                # the keys of a file with links are not IMDb's ids, those that it is linked to may be
                key = None if isinstance(row, MisfitRow) else join_key(row.get(join.key), imdb=_has_imdb_keys(join))
                if key is None:
                    counts["rows_without_key"] += 1
                    continue
                if not example:
                    example.append(str(row.get(join.key))[:40])
                if film_of is not None:
                    key = film_of(key)
                    if key is None:
                        counts["rows_without_link"] += 1
                        continue
                yield key, json.dumps([row.get(column) for column in columns], default=str)

        _insert(database, "rows", rows())
        database.execute("DROP TABLE IF EXISTS links")
        database.commit()
        (kept,) = database.execute("SELECT COUNT(*) FROM rows").fetchone()
    unused = sum(counts.values()) - counts["rows"]
    return {**counts, "duplicate_keys": counts["rows"] - unused - kept, "example": example[0] if example else ""}


def _has_imdb_keys(join: JoinedFile) -> bool:
    return bool(join.on) and join.via is None


def _links(database: sqlite3.Connection, join: JoinedFile, encoding: str) -> Callable[[str], str | None]:
    """Write the file of links beside the rows; return the key of a film for a key of the joined file."""
    assert join.via is not None
    via, to = join.via, join.linked
    database.execute("CREATE TABLE links (key TEXT PRIMARY KEY, film TEXT)")

    def links() -> Iterator[tuple[str, str]]:
        for row in read_rows(via, [join.key, to], optional=[], encoding=encoding):
            if isinstance(row, MisfitRow):
                continue
            key, film = join_key(row.get(join.key)), join_key(row.get(to), imdb=bool(join.on))
            if key is not None and film is not None:
                yield key, film

    _insert(database, "links", links())

    def film_of(key: str) -> str | None:
        found = database.execute("SELECT film FROM links WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    return film_of


def _insert(database: sqlite3.Connection, table: str, pairs: Iterator[tuple[str, str]]) -> None:
    while batch := list(islice(pairs, _BATCH_ROWS)):
        database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?)", batch)
