"""Rows of a file of JSON lines: an object each, its keys the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, TextIO

from genre_lightning.data.csv_rows import BYTE_ORDER_MARK, MAX_ROW_CHARACTERS, MisfitRow, TooLargeError
from genre_lightning.files import parse_json

_HEAD_ROWS = 200
_LINES_BETWEEN_REPORTS = 4096


class JsonRows:
    """The objects of a file of JSON lines; a line that holds none is a `MisfitRow`. Iterate once.

    Args:
        text: The file.
        count_lines: Called with the number of lines read since the last call, now and then.

    Attributes:
        header: Keys of the first objects, in their order; an object may lack some.

    Raises:
        TooLargeError: A line has more characters than any film's; from here or from the iteration.
    """

    def __init__(self, text: TextIO, count_lines: Callable[[int], None] | None = None) -> None:
        self._text = text
        self._count_lines = count_lines
        rows = self._rows()
        head = list(islice(rows, _HEAD_ROWS))
        self.header = list(dict.fromkeys(key for row in head for key in row))
        self._rest = chain(head, rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._rest

    def _rows(self) -> Iterator[dict[str, Any]]:
        number = uncounted = 0
        while line := self._text.readline(MAX_ROW_CHARACTERS + 1):
            if not number:
                line = line.removeprefix(BYTE_ORDER_MARK)
            number, uncounted = number + 1, uncounted + 1
            if len(line) > MAX_ROW_CHARACTERS:
                raise TooLargeError(f"line {number} has more than {MAX_ROW_CHARACTERS:,} characters")
            if self._count_lines and uncounted == _LINES_BETWEEN_REPORTS:
                self._count_lines(uncounted)
                uncounted = 0
            if line.strip():
                yield _object(line, number)
        if self._count_lines and uncounted:
            self._count_lines(uncounted)


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else MisfitRow(f"line {number} is not a JSON object")
