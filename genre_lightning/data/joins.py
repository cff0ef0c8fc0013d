"""Further files of films: found by key on disk, so that their size is not the process's, and counted for the audit."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genre_lightning.cache import build_once, key_of
from genre_lightning.config.columns import FilmSource
from genre_lightning.config.features import JoinedFile
from genre_lightning.data.join_rows import join_key, write_rows
from genre_lightning.data.tables import FileState, header_of
from genre_lightning.errors import DataError, one_line
from genre_lightning.files import file_digest
from genre_lightning.progress import say

_FORMAT = 2


@dataclass(frozen=True)
class Columns:
    """Which file each column is in.

    Attributes:
        own: Columns of the movies file.
        joined: Column of each joined file, by each name that the options use for it.
    """

    own: tuple[str, ...]
    joined: tuple[dict[str, str], ...] = ()


def find_columns(source: FilmSource, names: Sequence[str] | None = None, option: str = "data.features") -> Columns:
    """Find the file that has each column of texts and inputs, by the headers alone.

    Args:
        source: The files.
        names: Names of the columns; None for those of the template and the inputs.
        option: Option that names the inputs, for messages.

    Raises:
        DataError: A file cannot be read, or none has a column.
    """
    if names is None:
        names = [*source.template.columns(source.columns).values(), *(f.column for f in source.inputs)]
    names = list(dict.fromkeys(names))
    if not source.has_inputs:
        return Columns(tuple(names))
    header = header_of(source.path, [source.columns.overview], source.encoding)
    headers = [_header_of_join(join, source.encoding) for join in source.join]
    own = [join.on for join in source.join if join.on]
    joined: tuple[dict[str, str], ...] = tuple({} for _ in source.join)
    for name in names:
        found = [
            (place, column)
            for place, (join, columns) in enumerate(zip(source.join, headers, strict=True))
            for column in columns
            if f"{join.name}.{column}" == name or (column == name and name not in header)
        ]
        if len(found) > 1 and len({place for place, _ in found}) == 1:
            twice = source.join[found[0][0]].file
            raise DataError(f"data.join {twice} has {len(found)} columns {found[0][1]!r}: rename one of them")
        if len(found) > 1:
            both = " and ".join(f"{source.join[place].name}.{column}" for place, column in found)
            raise DataError(f"the column {name!r} is in several joined files: name {both}")
        if found:
            place, column = found[0]
            joined[place][name] = column
        elif name in header or not _is_feature(source, name):
            own.append(name)
        else:
            raise _missing(source, name, header, headers, option)
    for join in source.join:
        if join.on and join.on not in header:
            raise DataError(
                f"data.join {join.file.name} is matched on the column {join.on!r}, which {source.path} does not have: "
                f"set on to one of its columns, such as {source.columns.id}"
            )
    return Columns(tuple(dict.fromkeys(own)), joined)


def _is_feature(source: FilmSource, name: str) -> bool:
    return any(feature.column == name for feature in [*source.inputs, *source.template.features])


def _missing(
    source: FilmSource, name: str, header: Sequence[str], headers: Sequence[Sequence[str]], option: str
) -> DataError:
    shown = one_line(", ".join(header))[:300]
    others = "".join(
        f"; {join.file.name} has {one_line(', '.join(columns))[:200]}"
        for join, columns in zip(source.join, headers, strict=True)
    )
    return DataError(
        f"{option} names the column {name!r}, which {source.path} does not have ({shown}{others}): name one of "
        "those, add the file that has it to data.join, or give it an empty column if it is not known"
    )


def _header_of_join(join: JoinedFile, encoding: str) -> list[str]:
    if not join.file.is_file():
        raise DataError(f"data.join names {join.file}, which is not a file: give its path")
    header = header_of(join.file, [join.key], encoding)
    if join.key not in header:
        raise DataError(
            f"data.join {join.file} has no column {join.key!r} ({one_line(', '.join(header))[:300]}): set key to its "
            "column of ids"
        )
    if join.via is not None:
        _check_links(join, join.via, encoding)
    return header


def _check_links(join: JoinedFile, via: Path, encoding: str) -> None:
    if not via.is_file():
        raise DataError(f"data.join {join.file.name} names via {via}, which is not a file: give its path")
    header = header_of(via, [join.key, join.linked], encoding)
    shown = one_line(", ".join(header))[:300]
    if join.key not in header:
        raise DataError(
            f"data.join {join.file.name} is linked by {join.key!r}, and {via} has no such column ({shown}): set key to "
            "a column that both files have"
        )
    if join.linked not in header:
        raise DataError(f"data.join {via} has no column {join.linked!r} ({shown}): set to to its column of films' ids")


@dataclass
class JoinIndex:
    """The rows of a joined file by their key.

    Attributes:
        join: The file.
        columns: Its column for each name by which the options call it.
        facts: Counts of the file: rows, duplicate_keys, rows_without_key, and rows_without_link of one with links.
        matched: Films that have a row.
        unmatched: Films that have none.
    """

    join: JoinedFile
    columns: dict[str, str]
    facts: dict[str, Any]
    path: Path
    matched: int = 0
    unmatched: int = 0
    example: str = ""
    _database: sqlite3.Connection | None = field(default=None, repr=False)

    def cells(self, film_id: object, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a film's cells of the joined columns; None for each if the film has no row.

        Args:
            film_id: Id of the film.
            row: Row of the movies file.
        """
        if self._database is None:
            self._database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        key = join_key(row.get(self.join.on) if self.join.on else film_id, imdb=bool(self.join.on))
        found = self._database.execute("SELECT cells FROM rows WHERE key = ?", (key,)).fetchone() if key else None
        if found is None:
            self.unmatched += 1
            return dict.fromkeys(self.columns)
        self.matched += 1
        cells = json.loads(found[0])
        return dict(zip(self.columns, cells, strict=True))

    def audit(self) -> dict[str, Any]:
        """Return the counts for the audit."""
        unused = ("duplicate_keys", "rows_without_key", "rows_without_link")
        counts = {name: self.facts[name] for name in ("rows", *unused) if name in self.facts}
        keys = counts["rows"] - sum(counts.get(name, 0) for name in unused)
        return {
            "file": self.join.file.name,
            "key": self.join.key,
            **({"via": self.join.via.name} if self.join.via else {}),
            **counts,
            "films_matched": self.matched,
            "films_unmatched": self.unmatched,
            "rows_unmatched": max(keys - self.matched, 0),
        }

    def check(self) -> None:
        """Refuse a file of which no row is of a film.

        Raises:
            DataError: No row is of a film; the message names an id of each side, and the fix.
        """
        if self.matched or not self.unmatched:
            return
        on, via = self.join.on or "the id", self.join.via
        fix = "set key to its column of ids, or on to the column of data.csv that holds them, such as imdb_id"
        through = ""
        if via is not None:
            through = f" through {self.join.linked!r} of {via.name}"
            fix = (
                f"check that {via.name} belongs to both files, and set to to its column with what {on} of a film holds"
            )
        raise DataError(
            f"data.join {self.join.file}: none of its {self.facts['rows']:,} rows matches a film{through} "
            f"({self.join.key!r} is such as {self.facts['example']!r}, {on} of a film such as {self.example!r}): {fix}"
        )

    def fresh(self) -> JoinIndex:
        """Return the same index with its counts at 0."""
        return JoinIndex(self.join, self.columns, self.facts, self.path)


def joined_row(
    joins: Sequence[JoinIndex], source: FilmSource, film_id: int | str | None, row: dict[str, Any]
) -> dict[str, Any]:
    """Return a film's row with its cells of the joined files.

    Args:
        joins: The files' indexes, which count the films.
        source: The movies file.
        film_id: Id of the film; None if it has none.
        row: Row of the movies file.

    Raises:
        DataError: The movies file has no ids to join by.
    """
    for join in joins:
        if not join.join.on and source.columns.id not in row:
            raise DataError(
                f"{source.path} has no column {source.columns.id!r}, by which {join.join.file.name} is joined: name "
                "its ids with --data.columns.id, or set on in data.join to another column"
            )
        if not join.example:
            join.example = str(row.get(join.join.on) if join.join.on else film_id)[:40]
        row = {**row, **join.cells(film_id, row)}
    return row


def open_joins(source: FilmSource, cache_dir: Path, names: Sequence[str] | None = None) -> list[JoinIndex]:
    """Index the joined files by their keys, or open what an earlier call left in the cache.

    Args:
        source: The files.
        cache_dir: Root of the cache.
        names: See `find_columns`.

    Raises:
        DataError: A file cannot be read.
    """
    if not source.join:
        return []
    columns = find_columns(source, names).joined
    for join, of_file in zip(source.join, columns, strict=True):
        if not of_file:
            say(f"{join.file} is joined, and no column of it is read: name one in data.features or data.text")
    return [
        _open(join, of_file, source.encoding, cache_dir)
        for join, of_file in zip(source.join, columns, strict=True)
        if of_file
    ]


def _open(join: JoinedFile, columns: dict[str, str], encoding: str, cache_dir: Path) -> JoinIndex:
    states = [FileState.of(file) for file in join.files]
    settings = {
        "format": _FORMAT, "file": file_digest(join.file), "name": join.file.suffixes, "key": join.key,
        "imdb": bool(join.on), "columns": list(columns.values()), "encoding": encoding, **_links(join),
    }  # fmt: skip

    def build(folder: Path) -> dict[str, Any]:
        facts = write_rows(folder / "rows.sqlite", join, list(columns.values()), encoding)
        for state in states:
            state.check_unchanged()
        return facts

    folder, facts = build_once(cache_dir / "joins", key_of(settings), build)
    return JoinIndex(join, columns, facts, folder / "rows.sqlite")


def join_identity(join: JoinedFile) -> list[Any]:
    """Return what names a joined file and what it holds, in JSON, wherever it lies."""
    return [join.name, file_digest(join.file), join.key, join.on, *_links(join).values()]


def _links(join: JoinedFile) -> dict[str, Any]:
    return {"via": file_digest(join.via), "to": join.linked} if join.via else {}
