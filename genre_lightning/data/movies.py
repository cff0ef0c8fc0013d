"""Reads a movies file into typed films and an audit: every row read is kept or counted under one reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from typing import Any

from genre_lightning.config.columns import ColumnNames, FilmSource
from genre_lightning.config.data import DataOptions
from genre_lightning.config.features import Feature
from genre_lightning.data.cells import SHAPES_READ, MalformedCellError, readable, whole_characters
from genre_lightning.data.csv_rows import MisfitRow
from genre_lightning.data.features.fit import names_of
from genre_lightning.data.features.read import Value, value_of
from genre_lightning.data.joins import JoinIndex, find_columns, joined_row
from genre_lightning.data.shapes import BinaryColumns, Shapes, Tally
from genre_lightning.data.tables import read_rows
from genre_lightning.errors import DataError, one_line
from genre_lightning.progress import ReadShare

REASONS = ("malformed", "duplicate_id", "missing_overview", "placeholder_overview", "no_genres")

_HEAD_ROWS = 200

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
"""Overviews without content, without case and outer punctuation; the statuses come from shifted rows."""
_PLACEHOLDERS = frozenset(" ".join(text.split()) for text in PLACEHOLDERS if text.strip())


@dataclass(frozen=True, slots=True)
class Movie:
    """A film that is fit to learn from.

    Attributes:
        id: A number or a text, of one type in a file; unique.
        title: May be empty.
        overview: The plot summary as it stands in the file, without outer white space.
        genres: Names, in the file's order; at least one, unless films without genres were asked for.
        text: The template of `data.text` filled in: what the model reads.
        inputs: Value of each input of the head.
    """

    id: int | str
    title: str
    overview: str
    genres: tuple[str, ...]
    text: str
    inputs: tuple[Value, ...] = ()


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
        """Return the counts in the order of the file format's contract."""
        return asdict(self)


_FIXES = {
    "cells": ": export the file again with quoted fields",
    "id": ": name the column of ids with --data.columns.id, or leave it out of the file to number the rows",
    "genres": f"; a genres column may hold {SHAPES_READ}: name the right columns or data.genre_format and "
    "data.genre_separator",
}
"""For each kind of malformed rows."""


def check_loss(source: FilmSource, audit: Audit, loss: str) -> None:
    """Refuse a file of which more rows are lost than the source allows.

    Args:
        source: The file.
        audit: Audit of its rows.
        loss: What is wrong with them; see `Reading.loss`.

    Raises:
        DataError: Too many rows are malformed, or most rows have the id of an earlier one.
    """
    if audit.malformed > source.max_malformed * audit.rows:
        raise DataError(
            f"{source.path}: {audit.malformed:,} of {audit.rows:,} rows are malformed, {loss}, or accept the loss with "
            "--data.max_malformed 1"
        )
    if audit.duplicate_id > max(source.max_malformed, _MOST_DUPLICATES) * audit.rows:
        raise DataError(
            f"{source.path}: {audit.duplicate_id:,} of {audit.rows:,} rows have the {source.columns.id!r} of an "
            f"earlier row{_FIXES['id']}, or accept the loss with --data.max_malformed 1"
        )


_MOST_DUPLICATES = 0.5
"""Fraction of rows that may have the id of an earlier row; a column with more is not one of ids."""


class Reading:
    """What is learnt of a file while it is read: the shapes of its cells, and what is wrong with its rows.

    Args:
        source: The file.
        joins: Indexes of its joined files.

    Attributes:
        audit: Audit of the rows that were read.
        inputs: Films in which each input of the head has a value, is missing, or is malformed.
        tally: Tally of their ids and genres.
        problems: How many rows are malformed for each kind of reason.
        examples: The first of each.
    """

    def __init__(self, source: FilmSource, joins: Sequence[JoinIndex] = ()) -> None:
        self.source = source
        self._separator: str | None = None
        self.joins = [join.fresh() for join in joins]
        self.inputs = {f.column: {"known": 0, "missing": 0, "malformed": 0} for f in source.inputs}
        self.audit = Audit()
        self.tally = Tally(source.genre_format, source.genre_separator)
        self.problems: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def count_problem(self, kind: str, example: str) -> None:
        """Count a malformed row."""
        self.audit.malformed += 1
        self.problems[kind] += 1
        self.examples.setdefault(kind, one_line(example)[:120])

    def check(self) -> None:
        """Refuse a file of which too much is malformed or nothing is kept.

        Raises:
            DataError: Too much is malformed or nothing is kept; the message names a sample and the fix.
        """
        audit, source = self.audit, self.source
        check_loss(source, audit, self.loss())
        if audit.kept == 0:
            dropped = ", ".join(f"{count} {reason}" for reason, count in audit.as_dict().items() if count)
            raise DataError(f"{source.path} leaves no usable film ({dropped or 'no rows'}): give a movies file")
        for join in self.joins:
            join.check()

    def loss(self) -> str:
        """Describe why rows are lost, with the first of the most frequent kind and its fix; empty if none is."""
        if self.problems:
            kind, _ = self.problems.most_common(1)[0]
            return f"most for their {kind}, such as {self.examples[kind]}{_FIXES[kind]}"
        return ""

    def joined(self, film_id: int | str, row: dict[str, Any]) -> dict[str, Any]:
        """Return a film's row with its cells of the joined files."""
        return joined_row(self.joins, self.source, film_id, row)

    def read_like_genres(self, shapes: Shapes) -> None:
        """Read the genres that a film was labelled for as its genres are written, or as tags are."""
        self._separator = shapes.separator if shapes.style == "separated" and not shapes.one_hot else None

    def inputs_of(self, row: dict[str, Any]) -> tuple[Value, ...]:
        """Return the values of the head's inputs in a row, and count them."""
        return tuple(self._input(feature, row.get(feature.column)) for feature in self.source.inputs)

    def _input(self, feature: Feature, cell: Any) -> Value:
        counts = self.inputs[feature.column]
        try:
            value = value_of(feature, cell)
            if feature.column == self.source.known_genres and self._separator and isinstance(cell, str) and value:
                value = self._labelled_for(feature, cell, self._separator, value)
        except MalformedCellError as error:
            counts["malformed"] += 1
            self.examples.setdefault(f"input {feature.column}", one_line(error)[:120])
            return None
        counts["missing" if value is None else "known"] += 1
        return value

    @staticmethod
    def _labelled_for(feature: Feature, cell: str, separator: str, tags: Value) -> Value:
        names = value_of(replace(feature, separator=separator), cell)
        # without the genres' separator a cell is one name, perhaps with a comma in it, or written in another form
        return names if separator in cell else [*names_of(tags), *names_of(names)]

    def notes(self) -> list[str]:
        """Return what a reader of the audit should know beside the counts."""
        malformed = [name for name, counts in self.inputs.items() if counts["malformed"]]
        return [
            *self.tally.notes(),
            *(f"malformed: {self.examples[kind]}" for kind in self.problems),
            *(f"{_MALFORMED_INPUT.format(name)}{self.examples[f'input {name}']}" for name in malformed),
        ]


_MALFORMED_INPUT = "malformed and so missing: {}, such as "


def malformed_cell(notes: Iterable[str], column: str) -> str:
    """Return what an audit's notes report of the first malformed cell of an input; empty if there is none."""
    beginning = _MALFORMED_INPUT.format(column)
    found = (note.partition(beginning) for note in notes)  # several files' notes have their names before them
    return next((example for _, mark, example in found if mark), "")


def is_placeholder(overview: str) -> bool:
    """Return whether an overview, not blank, states that there is none ("No overview found.", "Released", "n/a")."""
    if len(overview) > 40:
        return False
    words = overview.casefold().strip(" .!?,;:-–—_*'\"()[]…")
    return not words or " ".join(words.split()) in _PLACEHOLDERS


def _is_labelled(row: dict[str, Any], known_genres: str | None) -> bool:
    """Return whether a film without genres was looked at for some."""
    return known_genres is not None and bool(readable(row.get(known_genres)))


def _reason_to_drop(film_id: int | str, overview: str, *, labelled: bool, seen: set[int | str]) -> str | None:
    if film_id in seen:
        return "duplicate_id"
    if not overview:
        return "missing_overview"
    if is_placeholder(overview):
        return "placeholder_overview"
    return None if labelled else "no_genres"


def guess_shapes(source: FilmSource) -> Shapes:
    """Guess how a file writes its ids and genres, from its first rows.

    Raises:
        DataError: See `read_rows`.
    """
    reading = Reading(source)
    for _ in islice(_counted_rows(reading, None), _HEAD_ROWS):
        pass
    return reading.tally.shapes()


def find_shapes(source: FilmSource) -> Shapes:
    """Find out how a file writes its ids and genres, from all of its rows.

    Raises:
        DataError: See `read_rows`.
    """
    reading = Reading(source)
    for _ in _counted_rows(reading, None):
        pass
    return reading.tally.shapes()


def read_movies(reading: Reading, shapes: Shapes, share: ReadShare | None = None) -> Iterator[Movie]:
    """Yield the films of a file that are kept, in the file's order, and count every row.

    Args:
        reading: Reading of the file, counted up while the iterator runs. The shapes that its tally gives decide:
            if they are others than `shapes`, read again.
        shapes: How ids and genres are written.
        share: Called with the fraction that has been read.

    Raises:
        DataError: See `read_rows`.
    """
    source, audit = reading.source, reading.audit
    columns, fields = source.columns, source.template.columns(source.columns)
    label, genres_in = columns.label_columns[0], shapes.reader()
    reading.read_like_genres(shapes)
    seen: set[int | str] = set()
    for number, row in enumerate(_counted_rows(reading, share), start=1):
        audit.rows += 1
        if isinstance(row, MisfitRow):
            reading.count_problem("cells", row.flaw)
            continue
        try:
            film_id = number if shapes.ids == "row" else shapes.id_of(row.get(columns.id))
        except MalformedCellError:
            reading.count_problem("id", f"row {number}, {columns.id!r} = {str(row.get(columns.id))[:80]!r}")
            continue
        try:
            if shapes.one_hot:
                genres = shapes.genres_of(row)
            else:
                cell = row.get(label)
                # an empty cell is one of no genres, in files of lists too
                genres = () if isinstance(cell, str) and not cell.strip() else genres_in(cell)
        except MalformedCellError:
            cells = {name: str(row.get(name))[:80] for name in (shapes.one_hot[:1] or [label])}
            shown = ", ".join(f"{name!r} = {cell!r}" for name, cell in cells.items())
            reading.count_problem("genres", f"row {number}, {shown}")
            continue
        overview = whole_characters(str(row.get(columns.overview) or "")).strip()
        labelled = bool(genres) or not source.require_genres or _is_labelled(row, source.known_genres)
        reason = _reason_to_drop(film_id, overview, labelled=labelled, seen=seen)
        seen.add(film_id)
        if reason:
            setattr(audit, reason, getattr(audit, reason) + 1)
            continue
        audit.kept += 1
        row = reading.joined(film_id, row)
        values = {name: readable(row.get(column)) for name, column in fields.items()}
        title = readable(row.get(columns.title))
        yield Movie(film_id, title, overview, genres, source.template.fill(values), reading.inputs_of(row))


def _counted_rows(reading: Reading, share: ReadShare | None) -> Iterator[dict[str, Any]]:
    """Yield the rows, their ids and genres noted in the tally."""
    source, tally = reading.source, reading.tally
    columns = source.columns
    rows = source_rows(source, share)
    head = list(islice(rows, _HEAD_ROWS))
    whole = [row for row in head if not isinstance(row, MisfitRow)]
    tally.has_ids = any(columns.id in row for row in whole) or not whole
    if source.finds_labels:
        # a column that the model reads is not one that it predicts
        read = [*source.template.columns(columns).values(), *(feature.column for feature in source.inputs)]
        others = [columns.id, columns.title, columns.overview, *read, *(join.on for join in source.join if join.on)]
        tally.binary = BinaryColumns(others)
    elif source.genre_format == "one_hot" or not isinstance(columns.genres, str):
        tally.one_hot = tuple(columns.label_columns)
    label, add, binary = columns.label_columns[0], tally.add, tally.binary
    for number, row in enumerate(chain(head, rows), start=1):
        if not isinstance(row, MisfitRow):
            add(row.get(columns.id), row.get(label))
            if binary is not None:
                binary.add(row)
        if binary is not None and number == len(head):
            binary.check(source.path, whole=False)  # before the rest is read
        yield row
    if binary is not None:
        binary.check(source.path, whole=True)


def source_rows(source: FilmSource, share: ReadShare | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows with the columns that are read of them.

    Raises:
        DataError: See `read_rows`.
    """
    columns = source.columns
    labels = columns.label_columns if source.require_genres and not source.finds_labels else []
    needed = [columns.overview, *labels, *find_columns(source).own]
    if columns.id != ColumnNames().id:  # only the column that the user has not named may be missing
        needed.append(columns.id)
    optional = None if source.finds_labels else [columns.id, columns.title, *columns.label_columns]
    return read_rows(source.path, needed, share, optional=optional, encoding=source.encoding)


def check_columns(source: FilmSource) -> None:
    """Open the file and check its header: cheap, for use before any work.

    Raises:
        DataError: As for `read_movies`.
    """
    next(source_rows(source), None)


def check_data(options: DataOptions) -> None:
    """Check everything about the options and the file that can be known without reading more than its header.

    Raises:
        ConfigError, DataError: With the option and the fix.
    """
    options.check_options()
    if options.reader is None:
        for source in options.sources:
            check_columns(source)
    else:
        _ = options.own_reader
