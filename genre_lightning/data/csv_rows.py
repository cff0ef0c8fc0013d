"""Rows of a CSV, each accounted for: separators found, damaged quotes contained, and no row larger than a bound."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TextIO

MAX_ROW_CHARACTERS = 16 * 2**20
"""A longer line or row is refused: a small compressed file may hold gigabytes of one cell."""

BYTE_ORDER_MARK = "\ufeff"
"""What spreadsheet programs put before the first column's name; of Python's decoders only some remove it."""

_DELIMITERS = ",;\t|"
_LINES_BETWEEN_REPORTS = 4096
_CERTAINLY_ROWS = 20
"""Lines of one cell that have as many cells as a row: no text has that many."""


class TooLargeError(ValueError):
    """A row or a cell is larger than anything that films have."""


class MisfitRow(dict[str, Any]):
    """A row whose cells do not fit the header, or that a damaged quote has spoilt.

    Attributes:
        flaw: What is wrong with it, and the line that it starts at.
    """

    def __init__(self, flaw: str) -> None:
        super().__init__()
        self.flaw = flaw


class CsvRows:
    """The rows of a CSV as cells by column; iterate once.

    Columns may be separated by commas, semicolons, tabs or pipes: those that give the columns needed, else those that
    give the most. A `sep=` line before the header is obeyed, blank lines are skipped.

    Args:
        text: Opened with newline="".
        needed: Columns that the header should have.
        count_lines: Called with the number of lines read since the last call, now and then.

    Raises:
        TooLargeError: A row or cell is too large, found here or in the iteration.
    """

    def __init__(self, text: TextIO, needed: Sequence[str], count_lines: Callable[[int], None] | None = None) -> None:
        self._read_line = partial(text.readline, MAX_ROW_CHARACTERS + 1)
        self._count_lines = count_lines
        self._pushed: list[str] = []
        self._taken: list[str] = []
        self._characters = 0
        self._line = self._uncounted = 0
        self._delimiter = ","
        csv.field_size_limit(MAX_ROW_CHARACTERS)
        self.header = self._read_header(needed)

    def _lines(self) -> Iterator[str]:
        """Yield the lines, those of the row under way noted: a damaged row gives back what is not its own."""
        taken = self._taken
        while True:
            if self._pushed:
                line = self._pushed.pop()
            else:
                line = self._read_line()
                self._uncounted += bool(line)
                if self._count_lines and self._uncounted and (not line or self._uncounted == _LINES_BETWEEN_REPORTS):
                    self._count_lines(self._uncounted)
                    self._uncounted = 0
                if not line:
                    return
            if not self._line:
                line = line.removeprefix(BYTE_ORDER_MARK)
            self._line += 1
            # the row's lines but the last are in its list
            self._characters = self._characters + len(line) if taken else len(line)
            taken.append(line)
            if self._characters > MAX_ROW_CHARACTERS:
                raise TooLargeError(f"the row at line {self._line} has more than {MAX_ROW_CHARACTERS:,} characters")
            yield line

    def _read_header(self, needed: Sequence[str]) -> list[str]:
        line = self._header_line()
        if named := re.fullmatch(r'"?sep=([^"])"?[\r\n]*', line, re.IGNORECASE):
            delimiters = named[1]
            line = self._header_line()
        else:
            delimiters = _DELIMITERS
        found = {mark: self._cells(line, mark) for mark in delimiters}
        self._delimiter = max(found, key=lambda mark: (len(set(needed) & set(found[mark])), len(found[mark])))
        return found[self._delimiter]

    def _header_line(self) -> str:
        """Return the next row as text, over several lines if quoted names have them; empty at the end of the file."""
        lines = self._lines()
        while (line := next(lines, "")) and not line.strip():
            self._taken.clear()
        while line.count('"') % 2 and (more := next(lines, "")):
            line += more
        self._taken.clear()
        return line

    @staticmethod
    def _cells(line: str, delimiter: str) -> list[str]:
        return [cell.strip() for cell in next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter), [])]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        header, width, taken = self.header, len(self.header), self._taken
        while True:
            # strict: a quote that ends within a cell is an error, not a cell of another hundred rows
            reader = csv.reader(self._lines(), delimiter=self._delimiter, strict=True)
            try:
                for cells in reader:
                    if len(cells) == width and (len(taken) == 1 or not self._is_several_rows()):
                        yield dict(zip(header, cells, strict=True))
                    elif cells:
                        yield self._repaired(cells)
                    taken.clear()
                return
            except csv.Error as error:
                row = self._repaired(None, str(error))
            except TooLargeError:
                if not any(map(self._is_row, taken[1:])):
                    raise
                row = self._repaired(None)
            yield row
            taken.clear()

    def _repaired(self, cells: list[str] | None, error: str = "") -> dict[str, Any]:
        """Return a row that is not what the header promises: read by another rule that fits it, or given up alone.

        The lines behind it that are rows of their own are read again.

        Args:
            cells: Cells of the row; None if it cannot be parsed.
            error: Error of the parser.
        """
        taken, width = list(self._taken), len(self.header)
        first = self._line - len(taken) + 1
        if cells is not None and len(cells) > width and not any(map(str.strip, cells[width:])):
            return dict(zip(self.header, cells, strict=False))
        # where the next row starts; 0 for nowhere
        own = next((place for place, line in enumerate(taken) if place and self._is_row(line)), 0)
        escaped = any('\\"' in line for line in taken)
        # a backslash before each quote, else quotes that are not doubled
        attempts = [(taken, {"escapechar": "\\", "doublequote": False, "strict": True})] if escaped else []
        for lines, rule in [*attempts, (taken[: own or None], {})]:
            parsed, used = self._parsed(lines, **rule)
            if parsed is not None and len(parsed) == width:
                self._give_back(taken[used:])
                return dict(zip(self.header, parsed, strict=True))
        if own:
            self._give_back(taken[own:])
        if cells is None or own:
            return MisfitRow(f"line {first} opens a quote that it does not close ({error or 'it spans other rows'})")
        return MisfitRow(f"line {first} has {len(cells)} cells under {width} columns")

    def _parsed(self, lines: Sequence[str], **rule: Any) -> tuple[list[str] | None, int]:
        """Return the first row of some lines, and how many lines it has."""
        reader = csv.reader(lines, delimiter=self._delimiter, **rule)
        try:
            return next(reader, None), reader.line_num
        except csv.Error:
            return None, 0

    def _is_several_rows(self) -> bool:
        """Return whether most lines of a parsed row are rows: its quote is damaged, and closed by that of another."""
        first, *others = (line for line in self._taken if line.strip())
        rows = [line for line in others if self._is_row(line)]
        # a line of a text may have as many commas as a row, but hardly an id too
        alike = bool(rows) and self._form_of_id(rows[0]) == self._form_of_id(first)
        return 2 * len(rows) > len(others) and (alike or len(rows) >= _CERTAINLY_ROWS)

    def _form_of_id(self, line: str) -> str:
        """Return the first cell of a line, each number in it as 0."""
        return re.sub(r"[0-9]+", "0", line.partition(self._delimiter)[0].strip(' "'))

    def _is_row(self, line: str) -> bool:
        cells, _ = self._parsed([line], strict=True)
        return cells is not None and len(cells) == len(self.header) > 1

    def _give_back(self, lines: Sequence[str]) -> None:
        self._pushed += reversed(lines)
        self._line -= len(lines)
