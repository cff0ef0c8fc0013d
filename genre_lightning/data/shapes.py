"""How a file writes its ids and genres: guessed from its first rows, then decided by all of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genre_lightning.config.columns import GenreFormat
from genre_lightning.data.cells import (
    GenreStyle,
    MalformedCellError,
    distinct_names,
    has_half_character,
    is_placeholder_genre,
    looks_like_list,
    parse_genres,
    split_names,
)
from genre_lightning.errors import DataError

IdKind = Literal["number", "text", "row"]

SEPARATORS = ("|", ";", "\n", ",")
"""Between names, the rarest within names first."""

_MOST_TEXT_IDS = 0.05
"""Fraction of ids that may not be whole numbers in a column of numbers; with more it is a column of text."""
_MOST_CELLS = 20_000
"""Distinct genres cells that are looked at as a whole, some megabytes."""
_LONGEST_CELL = 1000
_LONGEST_ID = 200
_CELLS_TO_JUDGE_BY = 200
"""Cells by which a column of 0 and 1 is known for one; another cell behind them makes its row malformed."""
_SIGNS = re.compile(r"(?<=\w)[ ]*(<br */?>|\t|[^\w\s'’().-]+)[ ]*(?=\w)")
"""What may separate names in a file without any of SEPARATORS."""
_WITHIN_NAMES = (" - ", " and ")
"""What separates names in some files and is a part of names in most: it is taken for a separator only if named."""
_NUMBERS = re.compile(r"\s*[\[({]\s*-?[0-9][-0-9.,\s]*[\])}]\s*")
_TRUE = frozenset(["1", "1.0", "true", "t", "yes", "y", "x"])
_FALSE = frozenset(["0", "0.0", "false", "f", "no", "n"])


@dataclass(frozen=True)
class Shapes:
    """How ids and genres are written.

    Attributes:
        ids: "number" for whole numbers, "text", or "row" if the file has no column of ids.
        style: Style of the genres column.
        separator: Separator between names in the "separated" style.
        odd_names: Names that are several genres of this file between another separator, with those genres.
        numbers: Whether the names in lists are numbers.
        one_hot: Columns that hold 1 for films of the genre that they are named after; empty for a column of genres.
    """

    ids: IdKind
    style: GenreStyle = "list"
    separator: str = ","
    odd_names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    numbers: bool = False
    one_hot: tuple[str, ...] = ()

    def reader(self) -> Callable[[Any], tuple[str, ...]]:
        """Return a function from a genres cell to its names that raises MalformedCellError.

        It remembers cells: films share a few thousand lists of genres, and to read one takes longer than the rest of
        its row.
        """
        known: dict[str, tuple[str, ...]] = {}
        odd = dict(self.odd_names)

        def read(cell: Any) -> tuple[str, ...]:
            if isinstance(cell, str) and (names := known.get(cell)) is not None:
                return names
            names = parse_genres(cell, self.style, self.separator, numbers=self.numbers)
            if odd and not odd.keys().isdisjoint(names):
                names = distinct_names(part for name in names for part in odd.get(name, (name,)))
            if isinstance(cell, str) and len(cell) <= _LONGEST_CELL and len(known) < _MOST_CELLS:
                known[cell] = names
            return names

        return read

    def genres_of(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the genres of a row of 0/1 columns.

        Raises:
            MalformedCellError: Another cell in one of them.
        """
        return tuple(column for column in self.one_hot if is_true(row.get(column)))

    def id_of(self, cell: Any) -> int | str:
        """Return the id in a cell.

        Raises:
            MalformedCellError: The cell has no ids, or one that is not a whole number in a column of them.
        """
        number = whole_number(cell)
        if number is not None and (self.ids == "number" or not isinstance(cell, str)):
            return number if self.ids == "number" else str(number)
        text = "" if cell is None else str(cell if number is None else number).strip()
        # a cell that is a number by its type but not a whole one is not a text either
        is_text = isinstance(cell, str | int) and not is_placeholder_genre(text) and len(text) <= _LONGEST_ID
        if self.ids == "number" or not is_text or has_half_character(text):
            raise MalformedCellError(f"id {text[:40]!r}")
        return text


def whole_number(cell: Any) -> int | None:
    """Return the whole number from 0 on in an id cell, also if it is written as 862.0; None for anything else."""
    if isinstance(cell, float):
        return int(cell) if math.isfinite(cell) and cell.is_integer() and 0 <= cell < 1e18 else None
    # 18 digits: what an int64 column of the tables to come can hold
    found = re.fullmatch(r"\s*([0-9]{1,18})(?:\.0+)?\s*", str(cell)) if cell is not None else None
    return int(found[1]) if found else None


def is_true(cell: Any) -> bool:
    """Return the truth in a cell of a 0/1 column; an empty one is false.

    Raises:
        MalformedCellError: Another cell.
    """
    text = "" if cell is None else str(cell).strip().casefold()
    if text in _TRUE:
        return True
    if text in _FALSE or is_placeholder_genre(text):
        return False
    raise MalformedCellError(f"a cell {text[:40]!r} in a 0/1 column")


class BinaryColumns:
    """Finds the columns that hold nothing but 0 and 1 in their first cells that are not empty, row by row.

    A rare genre may be empty in thousands of rows, and objects of JSON may lack the genres that a film has not.

    Args:
        others: Columns with another role.
    """

    def __init__(self, others: Iterable[str]) -> None:
        self._others = tuple(dict.fromkeys(others))
        self._cells: dict[str, int] = {}  # of each column that is not ruled out
        self._ruled_out = set(self._others)

    def add(self, row: Mapping[str, Any]) -> None:
        """Look at the cells of a row."""
        for column, cell in row.items():
            if column in self._ruled_out:
                continue
            cells = self._cells.setdefault(column, 0)
            if cells == _CELLS_TO_JUDGE_BY or cell is None or not str(cell).strip():
                continue
            try:
                is_true(cell)
            except MalformedCellError:
                self._ruled_out.add(column)
                del self._cells[column]
            else:
                self._cells[column] += 1

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that were found, in the order of the file."""
        return tuple(column for column, cells in self._cells.items() if cells)

    def check(self, path: Path, *, whole: bool) -> None:
        """Refuse rows without such a column.

        Args:
            path: Path of the file.
            whole: Whether all rows were added, so that a column without a cell is none.

        Raises:
            DataError: There is none; the message names the fix.
        """
        if not (self.names if whole else self._cells):
            raise DataError(
                f"{path} has no column of 0 and 1 beside {', '.join(self._others)}, as "
                "data.genre_format one_hot needs: list the genres' columns in data.columns.genres"
            )


@dataclass
class Tally:
    """What the ids and genres of the rows look like; counts that do not depend on how they are read.

    Attributes:
        wanted: Format of the genres that the user named, or "auto".
        separator: Separator that the user named; None to find out.
        has_ids: Whether the file has the column of ids.
        one_hot: Columns of 0/1 that the user named.
        binary: Finds the columns of 0/1 that the user has not named; None if the genres are in a column.
    """

    wanted: GenreFormat = "auto"
    separator: str | None = None
    has_ids: bool = True
    one_hot: tuple[str, ...] = ()
    binary: BinaryColumns | None = None
    number_ids: int = 0
    text_ids: int = 0
    text_id: str = ""
    cells: Counter[str] = field(default_factory=Counter)
    lists: int = 0
    texts: int = 0
    numbers: int = 0
    objects: int = 0

    def add(self, id_cell: Any, genres_cell: Any) -> None:
        """Count the cells of a row."""
        if isinstance(id_cell, str):
            if whole_number(id_cell) is not None:
                self.number_ids += 1
            elif not is_placeholder_genre(stripped := id_cell.strip()):
                self._count_text_id(stripped)
        elif isinstance(id_cell, int) and whole_number(id_cell) is None:
            self._count_text_id(str(id_cell))  # negative or large: as text it can be an id, and in a CSV it is one
        elif id_cell is not None:
            self.number_ids += 1  # by its type, whether or not it can be an id
        if isinstance(genres_cell, str) and (genres_cell in self.cells or self._is_new(genres_cell)):
            self.cells[genres_cell] += 1
        elif genres_cell is not None and not isinstance(genres_cell, str):
            entries = genres_cell if isinstance(genres_cell, list) else [genres_cell]
            self.objects += bool(entries)
            self.numbers += bool(entries) and all(isinstance(entry, int | float) for entry in entries)

    def _count_text_id(self, text: str) -> None:
        self.text_ids += 1
        self.text_id = self.text_id or text[:40]

    def _is_new(self, cell: str) -> bool:
        if len(self.cells) < _MOST_CELLS and len(cell) <= _LONGEST_CELL:
            return True
        self._count(cell, 1)  # not kept
        return False

    def _count(self, cell: str, times: int) -> None:
        if not is_placeholder_genre(cell):
            self.texts += times
            self.lists += times * looks_like_list(cell)
            self.numbers += times * bool(_NUMBERS.fullmatch(cell))

    def shapes(self) -> Shapes:
        """Decide by what has been counted."""
        ids: IdKind = "number" if self.text_ids <= _MOST_TEXT_IDS * (self.text_ids + self.number_ids) else "text"
        ids = ids if self.has_ids else "row"
        if one_hot := self.one_hot or (self.binary.names if self.binary else ()):
            return Shapes(ids, one_hot=one_hot)
        texts = self._texts()
        lists = self.lists + sum(times for cell, times in texts.items() if looks_like_list(cell))
        total = self.texts + sum(texts.values())
        if self.wanted in ("literal", "json") or (self.wanted == "auto" and 2 * lists >= total):
            numbers = self.numbers + sum(times for cell, times in texts.items() if _NUMBERS.fullmatch(cell))
            return Shapes(ids, "list", self.separator or ",", numbers=2 * numbers > total + self.objects)
        separator = self.separator or _best_separator(texts)
        return Shapes(ids, "separated", separator, _odd_names(texts, separator) if self.separator is None else ())

    def notes(self) -> list[str]:
        """Return what a reader of the audit should know of the ids and of an unusual separator."""
        shapes = self.shapes()
        separated = []
        if shapes.style == "separated" and not shapes.one_hot and self.separator is None:
            texts = self._texts()
            if shapes.separator not in SEPARATORS:
                separated = [f"genres are separated at {shapes.separator!r}: name another with --data.genre_separator"]
            if (other := _likelier_separator(texts, shapes.separator)) is not None:
                count, names = _count_names(texts, other), _count_names(texts, shapes.separator)
                separated += [
                    f"looks like {other!r} separates genres ({count:,} names, not {names:,}): "
                    f"set --data.genre_separator {other!r}"
                ]
        return [*self._notes_of_ids(shapes.ids), *separated]

    def _texts(self) -> dict[str, int]:
        return {cell: times for cell, times in self.cells.items() if not is_placeholder_genre(cell)}

    def _notes_of_ids(self, ids: IdKind) -> list[str]:
        if not self.has_ids:
            return ["the file has no column of ids: its rows are numbered from 1"]
        if not self.text_ids or not self.number_ids:
            return []
        kept = "those are malformed" if ids == "number" else "all are kept as text"
        return [
            f"{self.text_ids:,} of {self.text_ids + self.number_ids:,} ids are not whole numbers, such as "
            f"{self.text_id!r}: {kept}"
        ]


def _names(cell: str, separator: str) -> tuple[str, ...]:
    try:
        return split_names(cell, separator)
    except MalformedCellError:
        return ()


def _best_separator(texts: Mapping[str, int]) -> str:
    """Return the separator that leaves the fewest different names, of those that occur; the most frequent of equals.

    A name may hold a comma, and one odd cell another separator than the rest: counts alone mistake both.
    """
    used = {mark: sum(times for cell, times in texts.items() if mark in cell.strip()) for mark in SEPARATORS}
    candidates = [mark for mark in SEPARATORS if used[mark]]
    if not candidates:
        return _other_separator(texts) or ","
    names = {mark: _count_names(texts, mark) for mark in candidates}
    return min(candidates, key=lambda mark: (names[mark], -used[mark], SEPARATORS.index(mark)))


def _other_separator(texts: Mapping[str, int]) -> str | None:
    """Return a sign such as / or # between names that recur: without it there would be far more of them."""
    return _far_fewer(texts, _signs(texts), _count_names(texts, "\n"))


def _likelier_separator(texts: Mapping[str, int], separator: str) -> str | None:
    """Return what seems to separate names rather than `separator`, which was found, such as " - "; None if nothing."""
    others = [mark for mark in (*_signs(texts), *_WITHIN_NAMES) if mark != separator]
    return _far_fewer(texts, others, _count_names(texts, separator))


def _signs(texts: Mapping[str, int]) -> list[str]:
    signs = Counter(sign for cell in texts for sign in set(_SIGNS.findall(cell)))
    return [sign for sign, _ in signs.most_common(5)]


def _far_fewer(texts: Mapping[str, int], marks: Sequence[str], names: int) -> str | None:
    """Return the first mark that leaves at most two thirds of n names."""
    return next((mark for mark in marks if 3 * _count_names(texts, mark) <= 2 * names), None) if names else None


def _count_names(texts: Mapping[str, int], separator: str) -> int:
    return len({name for cell in texts for name in _names(cell, separator)})


def _odd_names(texts: Mapping[str, int], separator: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the names with another separator in them whose parts are all names of other cells."""
    films: Counter[str] = Counter()
    for cell, times in texts.items():
        films.update(dict.fromkeys(_names(cell, separator), times))
    odd = {}
    for name in films:
        for mark in SEPARATORS:
            parts = _names(name, mark) if mark in name and mark != separator else ()
            # a name that is more frequent than its parts is a name
            if len(parts) > 1 and all(films.get(part, 0) > films[name] for part in parts):
                odd[name] = parts
                break
    return tuple(sorted(odd.items()))
