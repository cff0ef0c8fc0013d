"""Reads a movies file into typed films and an audit: every row read is kept or counted under one reason."""

from __future__ import annotations

import csv
import gzip
import io
import re
import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, get_args

from genre_lightning.data.cells import GenreFormat, MalformedCellError, detect_style, parse_genres, readable
from genre_lightning.errors import ConfigError, DataError

FileKind = Literal["csv", "csv.gz", "parquet"]

REASONS = ("malformed", "duplicate_id", "missing_overview", "placeholder_overview", "no_genres")

_STYLE_SAMPLE_ROWS = 200
_MAX_FIELD_CHARACTERS = 64 * 2**20

PLACEHOLDERS = frozenset(
    """
    no overview found|no overview yet|no overview|no overview available|overview not available|no plot|no plot available
    no plot found|no description|no description available|no description yet|no synopsis|no synopsis available
    no synopsis yet|plot unknown|plot not available|not available|not yet available|none|null|nan|na|n/a|unknown|tba|tbd
    to be announced|to be determined|coming soon|add a plot|released|rumored|planned|post production|in production
    canceled|overview|plot|synopsis|description
    """.replace("\n", "|")
    .strip(" |")
    .split("|")
)
"""Overviews that say nothing, without case and outer punctuation; the statuses come from shifted rows."""
_PLACEHOLDERS = frozenset(" ".join(text.split()) for text in PLACEHOLDERS if text.strip())


@dataclass(frozen=True, slots=True)
class Movie:
    """A film that is fit to learn from.

    Attributes:
        id: the film's number in the file; unique.
        title: may be empty.
        overview: the plot summary as it stands in the file, without outer white space.
        genres: names, in the file's order; at least one, unless films without genres were asked for.
        text: the template of `data.text` filled in: what the model reads.
    """

    id: int
    title: str
    overview: str
    genres: tuple[str, ...]
    text: str


@dataclass
class ColumnNames:
    """Names of the columns in the file.

    Attributes:
        id: a whole number for each film.
        title: shown beside predictions; the file may lack it.
        overview: the plot summary.
        genres: the film's genres.
    """

    id: str = "id"
    title: str = "title"
    overview: str = "overview"
    genres: str = "genres"


@dataclass
class Audit:
    """How many rows were read, and what became of them; the reasons and `kept` add up to `rows`."""

    rows: int = 0
    malformed: int = 0
    duplicate_id: int = 0
    missing_overview: int = 0
    placeholder_overview: int = 0
    no_genres: int = 0
    kept: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts in the order of the file format's contract."""
        return asdict(self)


@dataclass(frozen=True)
class TextTemplate:
    """A text made of columns, such as "{title}. {overview}".

    Raises:
        ConfigError: a placeholder that is no plain column name, or none at all.
    """

    template: str
    fields: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise ConfigError(f"data.text {self.template!r} is no template ({error}): write '{{overview}}'") from None
        names = [name for _, name, _, _ in parts if name is not None]
        plain = all(re.fullmatch(r"[^\W\d]\w*", name) for name in names)
        if not names or not plain or any(part[2] or part[3] for part in parts):
            raise ConfigError(
                f"data.text is {self.template!r}: it needs plain column names in braces, "
                "such as '{title}. {overview}'"
            )
        object.__setattr__(self, "fields", tuple(dict.fromkeys(names)))

    def fill(self, values: dict[str, str]) -> str:
        """The text; the punctuation that an empty column leaves behind is dropped."""
        text = " ".join(self.template.format_map(values).split())
        if all(values[name] for name in self.fields):
            return text
        text = re.sub(r"([.,:;!?-])(?:\s+[.,:;-])+", r"\1", text)
        return text.lstrip(" .,:;-").rstrip(" ,:;-")


@dataclass(frozen=True)
class FilmSource:
    """Where films come from and how they are read.

    Attributes:
        path: the movies file.
        columns: names of its columns.
        template: of the text that the model reads.
        genre_format: of the genres column.
        genre_separator: of names in it, where it is "separated"; None to find out.
        require_genres: drop films without genres.
    """

    path: Path
    columns: ColumnNames
    template: TextTemplate
    genre_format: GenreFormat = "auto"
    genre_separator: str | None = None
    require_genres: bool = True


def is_placeholder(overview: str) -> bool:
    """Whether an overview, not blank, only says that there is none ("No overview found.", "Released", "n/a")."""
    if len(overview) > 40:
        return False
    words = overview.casefold().strip(" .!?,;:-–—_*'\"()[]…")
    return not words or " ".join(words.split()) in _PLACEHOLDERS


def read_movies(
    path: Path,
    columns: ColumnNames,
    template: TextTemplate,
    audit: Audit,
    *,
    genre_format: GenreFormat = "auto",
    genre_separator: str | None = None,
    require_genres: bool = True,
    share: ReadShare | None = None,
) -> Iterator[Movie]:
    """Yields the films of a file that are kept, in the file's order, and counts every row in `audit`.

    Args:
        path: a .csv, .csv.gz or .parquet file.
        columns: names of the columns.
        template: how the text is made.
        audit: counted up while the iterator runs.
        genre_format: "literal" (Python lists), "json", "separated" by a character, or "auto" to find out.
        genre_separator: the character between names; None to find out.
        require_genres: drop films without genres, as training needs; False to tag them.
        share: told how far the reading has come.

    Raises:
        DataError: the file is missing, empty, not readable in its format, or lacks a column.
    """
    seen: set[int] = set()
    needed = [columns.id, columns.overview, *([columns.genres] if require_genres else []), *template.fields]
    rows = read_rows(path, needed, share)
    head = [row for _, row in zip(range(_STYLE_SAMPLE_ROWS), rows, strict=False)]
    style, separator = detect_style([row.get(columns.genres) for row in head], genre_format, genre_separator)
    for row in _chain(head, rows):
        audit.rows += 1
        try:
            film_id = _whole_number(row.get(columns.id))
            cell = row.get(columns.genres)
            # films to be tagged may leave the cell empty
            blank = not require_genres and isinstance(cell, str) and not cell.strip()
            genres = () if blank else parse_genres(cell, style, separator)
        except MalformedCellError:
            audit.malformed += 1
            continue
        overview = str(row.get(columns.overview) or "").strip()
        reason = _reason_to_drop(film_id, overview, genres if require_genres else ("-",), seen)
        seen.add(film_id)
        if reason:
            setattr(audit, reason, getattr(audit, reason) + 1)
            continue
        audit.kept += 1
        values = {name: readable(row.get(name)) for name in template.fields}
        yield Movie(film_id, str(row.get(columns.title) or "").strip(), overview, genres, template.fill(values))


def _reason_to_drop(film_id: int, overview: str, genres: Sequence[str], seen: set[int]) -> str | None:
    if film_id in seen:
        return "duplicate_id"
    if not overview:
        return "missing_overview"
    if is_placeholder(overview):
        return "placeholder_overview"
    return None if genres else "no_genres"


def _whole_number(cell: Any) -> int:
    if isinstance(cell, float) and cell.is_integer():  # Parquet from pandas, whose integers cannot be missing
        cell = int(cell)
    text = "" if cell is None else str(cell).strip()
    # 18 digits: what an int64 column of the tables to come can hold
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise MalformedCellError(f"id {text[:40]!r}")
    return int(text)


def _chain(head: list[dict[str, Any]], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from head
    yield from rest


def file_kind(path: Path) -> FileKind:
    """The format of a movies file by its name.

    Raises:
        DataError: no such file, a directory, or another ending.
    """
    if not path.exists():
        raise DataError(
            f"no such file: {path}: give the path of a movies file with --data.csv "
            "(movies_metadata.csv of The Movies Dataset), or write a sample with 'genre-lightning data sample FILE'"
        )
    if not path.is_file():
        raise DataError(f"{path} is not a file: give a .csv, .csv.gz or .parquet file with --data.csv")
    if kind := kind_by_name(path):
        return kind
    raise DataError(f"{path} ends neither in .csv, .csv.gz nor .parquet: rename it to its format, or convert it")


def kind_by_name(path: Path) -> FileKind | None:
    """The format that a file's ending stands for, whether or not there is such a file; None for other endings."""
    kinds: tuple[FileKind, ...] = get_args(FileKind)
    return next((kind for kind in kinds if path.name.lower().endswith(f".{kind}")), None)


def check_columns(path: Path, columns: ColumnNames, template: TextTemplate, *, require_genres: bool = True) -> None:
    """Opens the file and checks its header: cheap, for use before any work.

    Raises:
        DataError: as `read_movies`.
    """
    needed = [columns.id, columns.overview, *([columns.genres] if require_genres else []), *template.fields]
    next(read_rows(path, needed), None)


@dataclass
class ReadShare:
    """How much of a file has been read.

    Attributes:
        measure: gives the share, from 0 to 1; set by the reader.
    """

    measure: Callable[[], float] = lambda: 0.0


def read_rows(path: Path, needed: list[str], share: ReadShare | None = None) -> Iterator[dict[str, Any]]:
    """Yields each row of a movies file as its cells by column.

    Args:
        path: a .csv, .csv.gz or .parquet file.
        needed: columns that it must have.
        share: told how far the reading has come.

    Raises:
        DataError: as `read_movies`.
    """
    share = share or ReadShare()
    kind = file_kind(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: download it again, or give another file with --data.csv")
    if kind == "parquet":
        yield from _parquet_rows(path, needed, share)
        return
    try:
        size = path.stat().st_size
        with path.open("rb") as raw, _as_text(raw, kind) as text:
            # of the file as it lies on disk, compressed or not
            share.measure = lambda: raw.tell() / size
            yield from _csv_rows(path, text, needed)
            share.measure = lambda: 1.0
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}): convert it to UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file ({error}): download or compress it again") from None
    except csv.Error as error:
        raise DataError(f"{path} is no well-formed CSV ({error}): export it again with quoted fields") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None


def _as_text(raw: BinaryIO, kind: str) -> TextIO:
    content = gzip.GzipFile(fileobj=raw) if kind == "csv.gz" else raw
    # utf-8-sig: spreadsheet programs put a byte-order mark before the first column's name
    return io.TextIOWrapper(content, encoding="utf-8-sig", newline="")


def _csv_rows(path: Path, text: TextIO, needed: list[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    reader = csv.DictReader(text, restval="")  # a row that is cut short has empty cells
    _check_header(path, list(reader.fieldnames or []), needed)
    yield from reader


def _parquet_rows(path: Path, needed: list[str], share: ReadShare) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_header(path, file.schema_arrow.names, needed)
        done, rows = 0, max(file.metadata.num_rows, 1)
        for batch in file.iter_batches(batch_size=4096):
            done += batch.num_rows
            share.measure = partial(truediv, done, rows)
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no readable Parquet file ({reason}): export or download it again") from None


def _check_header(path: Path, header: list[str], needed: list[str]) -> None:
    missing = [name for name in dict.fromkeys(needed) if name not in header]
    if missing:
        shown = ", ".join(header[:30]) or "nothing"
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; its header is: {shown[:400]}: "
            "name the right columns with --data.columns.id, .overview, .genres, .title, or give a movies file"
        )
