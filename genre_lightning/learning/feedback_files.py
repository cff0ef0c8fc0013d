"""Feedback as files: labels read from a table that people filled in, and the store written as one."""

from __future__ import annotations

import difflib
import getpass
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genre_lightning.data.csv_rows import MisfitRow
from genre_lightning.data.tables import header_of, read_rows
from genre_lightning.errors import ConfigError, DataError, one_line
from genre_lightning.escapes import SEPARATOR, join_names, json_line, original_cell, split_names
from genre_lightning.files import parse_json, write_csv, write_text
from genre_lightning.learning.store import Feedback

AGREED = "ok"
"""In the genres column: the suggested genres are right."""
NO_GENRE = "none"
"""In the genres column: the film has none of the genres."""
FIELD = "field."
"""Before the name of a column that a run's text template names, other than the overview and the title."""

_MAX_ROWS = 1_000_000
_SHOWN_PROBLEMS = 3


class UnknownGenreError(ValueError):
    """A genre that is not one of those known."""


@dataclass(frozen=True)
class Labels:
    """What a file of labels holds.

    Attributes:
        rows: Of films that were labelled.
        empty: Rows whose genres cell is empty: nobody has labelled them yet.
    """

    rows: list[Feedback]
    empty: int


def now() -> str:
    """Give the time as the store keeps it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def login_name(fix: str) -> str:
    """Return the name of whoever runs this process.

    Args:
        fix: How to give a name otherwise, for the message.

    Raises:
        ConfigError: There is none, as in a container whose user is not in its password database.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise ConfigError(f"who says this is not known, as this process's user has no login name: {fix}") from None


def read_names(cell: object, known: Sequence[str], *, new_genres: bool = False) -> tuple[str, ...]:
    """Read the genres that a person wrote: "Drama, War", "Drama|War", a list, or "none".

    Args:
        cell: What was written; upper and lower case are the same.
        known: Genres that there are.
        new_genres: Whether others may be named.

    Raises:
        UnknownGenreError: A genre is not known; the message names the nearest one.
    """
    spelling = {name.casefold(): name for name in known}
    written = str(cell).strip()
    if isinstance(cell, list | tuple):
        parts = [str(name) for name in cell]
    elif written.casefold() in spelling:  # a name may hold a comma
        parts = [written]
    elif written.casefold() == NO_GENRE:
        parts = []
    elif SEPARATOR in written:
        parts = split_names(written)
    else:
        parts = written.replace(";", ",").split(",")
    names = [" ".join(part.split()) for part in parts if part.strip()]
    for name in names:
        if name.casefold() not in spelling and not new_genres:
            near = difflib.get_close_matches(name.casefold(), spelling, n=1, cutoff=0.5)
            hint = f" (is it {spelling[near[0]]}?)" if near else ""
            raise UnknownGenreError(f"{name[:60]!r} is not one of the {len(known)} genres known{hint}")
    return tuple(dict.fromkeys(spelling.get(name.casefold(), name) for name in names))


def read_labels(
    path: Path,
    known: Sequence[str],
    *,
    user: str | Callable[[], str] | None = None,
    new_genres: bool = False,
    encoding: str = "utf-8",
) -> Labels:
    """Read a filled-in queue, an export, or any table with the columns `genres` and `text` or `overview`.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.
        known: Genres that there are.
        user: Who labelled the rows without a name in the column `user`, or a function that is called if there are any.
        new_genres: Whether other genres may be named.
        encoding: Of its text.

    Raises:
        DataError: The file cannot be read, or some of its rows cannot be used; the message has the first of them.
    """
    rows: list[Feedback] = []
    problems: list[str] = []
    empty, unknown = 0, False
    time = now()
    _check_columns(path, encoding)
    for number, row in enumerate(read_rows(path, ["genres"], encoding=encoding), start=1):
        if number > _MAX_ROWS:
            raise DataError(f"{path} has more than {_MAX_ROWS:,} rows: split it into several files")
        if isinstance(row, MisfitRow):
            problems.append(f"row {number}: {row.flaw}")
            continue
        cells = {name: original_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        try:
            feedback = _feedback_of(cells, known, user, time, new_genres)
        except ValueError as error:
            problems.append(f"row {number}: {error}")
            unknown |= isinstance(error, UnknownGenreError)
            continue
        if feedback is None:
            empty += 1
        elif found := feedback.problems():
            problems.append(f"row {number}: {found[0]}")
        else:
            rows.append(feedback)
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS:,} more rows" if len(problems) > _SHOWN_PROBLEMS else ""
        fix = "correct them" + (", or keep new genres with --new_genres" if unknown else "")
        shown = "; ".join(map(one_line, problems[:_SHOWN_PROBLEMS]))
        raise DataError(f"{path} has rows that cannot be used ({shown}{more}): {fix}; nothing is stored")
    if not rows:
        raise DataError(
            f"{path} has no labelled film ({empty:,} rows have no genres): write genres, '{AGREED}' or '{NO_GENRE}' "
            "into the column genres"
        )
    return Labels(rows, empty)


def _check_columns(path: Path, encoding: str) -> None:
    """Refuse a file that is missing, or whose columns are not those of labels.

    Raises:
        DataError: With the fix.
    """
    columns = "write a column genres beside a column text or overview, as 'genre-lightning queue' does"
    if not path.exists():
        raise DataError(f"no such file: {path}: give a filled-in queue or another table of labels")
    header = header_of(path, ["genres"], encoding)
    for needed in ({"genres"}, {"text", "overview"}):
        if header and needed.isdisjoint(header):
            raise DataError(
                f"{path} has no column {' or '.join(sorted(needed))}; its header is: "
                f"{one_line(', '.join(header[:30]))[:400]}: {columns}"
            )


def _feedback_of(
    cells: Mapping[str, Any], known: Sequence[str], user: str | Callable[[], str] | None, time: str, new_genres: bool
) -> Feedback | None:
    """Make feedback of a row; None if nobody has labelled it.

    Raises:
        ValueError: It cannot be used.
    """
    said = cells.get("genres")
    if said is None or (isinstance(said, str) and not said.strip()):
        return None
    suggested = _cell(cells, "suggested", "predicted")
    # a genre that the run no longer knows may have been predicted once
    predicted = None if suggested is None else read_names(_written(suggested), known, new_genres=True)
    if isinstance(said, str) and said.strip().casefold() == AGREED and AGREED not in map(str.casefold, known):
        if predicted is None:
            raise ValueError(f"its genres are '{AGREED}', and no genres are suggested")
        genres = predicted
    else:
        genres = read_names(said, known, new_genres=new_genres)
    text, title = _text(cells, "text", "overview"), _text(cells, "title") or ""
    who = _text(cells, "user") or (user() if callable(user) else user)
    if not text:
        raise ValueError("it has no text: give a column text or overview")
    if not who:
        raise ValueError("it has no user: give --user NAME")
    given = cells.get("fields")
    fields = parse_json(given) if isinstance(given, str) and given.strip() else given or {}
    if not isinstance(fields, dict) or not all(isinstance(cell, str) for cell in fields.values()):
        raise ValueError("its fields are not a JSON object of texts")
    others = {name.removeprefix(FIELD): str(cell or "") for name, cell in cells.items() if name.startswith(FIELD)}
    return Feedback(
        text=text,
        genres=genres,
        user=who,
        time=_time(_text(cells, "time")) or time,
        source=_text(cells, "source") or "import",
        film=_text(cells, "film", "id"),
        title=title,
        fields=fields or {"overview": text, "title": title, **others},
        predicted=predicted,
        run=_text(cells, "run"),
        checkpoint_sha256=_text(cells, "checkpoint_sha256"),
    )


def _cell(cells: Mapping[str, Any], *names: str) -> Any:
    """Return the first cell that is not empty; None without one."""
    return next((cell for name in names if (cell := cells.get(name)) is not None and cell != ""), None)


def _written(cell: Any) -> Any:
    """Return the names in a cell that `joined` has written, or that is a list already."""
    return cell if not isinstance(cell, str) else [] if cell == NO_GENRE else split_names(cell)


def joined(names: Iterable[str]) -> str:
    """Write names as a cell of a CSV; no names are "none", as an empty cell is one that nobody has filled in."""
    return join_names(names) or NO_GENRE


def _text(cells: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        if (cell := cells.get(name)) is not None and str(cell).strip():
            return str(cell).strip()
    return None


def _time(written: str | None) -> str | None:
    """Bring a time to the store's form; one without a zone is in UTC.

    Raises:
        ValueError: It is not a time.
    """
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise ValueError(f"its time is {written[:40]!r}: write it as 2026-01-31T12:00:00Z") from None


def write_feedback(rows: Iterable[Feedback], path: str | os.PathLike[str]) -> int:
    """Write feedback as a .csv or .jsonl file, whole or not at all; `read_labels` reads it back.

    Returns:
        Rows written.

    Raises:
        ConfigError: Another ending.
    """
    table: list[dict[str, Any]] = [
        {
            "film": row.film, "title": row.title, "text": row.text, "predicted": row.predicted, "genres": row.genres,
            "user": row.user, "time": row.time, "source": row.source, "run": row.run,
            "checkpoint_sha256": row.checkpoint_sha256, "fields": row.fields,
        }
        for row in rows
    ]  # fmt: skip
    kind = Path(path).suffix
    if kind == ".jsonl":
        write_text(path, "".join(json_line(row) + "\n" for row in table))
    elif kind == ".csv":
        as_text = [
            {
                **row,
                "predicted": None if row["predicted"] is None else joined(row["predicted"]),
                "genres": joined(row["genres"]),
                "fields": json.dumps(row["fields"], ensure_ascii=False),
            }
            for row in table
        ]
        write_csv(path, as_text)
    else:
        raise ConfigError(f"--out {path} does not end in .csv or .jsonl: give such a file")
    return len(table)
