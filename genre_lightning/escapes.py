"""Text that comes from data, made safe for where it is written: terminals, JSON, spreadsheets and Markdown."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

# C0 and C1 controls, which move cursors and retitle terminals; line and paragraph separators; the embeddings, overrides
# and isolates that reorder what is shown; half characters, which no encoding can write
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# what a spreadsheet program takes for the start of a formula, with the apostrophes that `cell` has put before it
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")  # Japanese spreadsheets know the wide forms

# emphasis, code, links, bare addresses, columns of a table, formulas
_MARKDOWN = re.compile(r"[\\`*_\[\]|~$]|(?<=\])\(|:(?=//)")
_WORD = re.compile(r"[^\W\d_]{2}")  # letters, beyond the e of 1e-05
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_PLAIN_CODE = re.compile(r"[^`|<>&\s](?:[^`|<>&\n]*[^`|<>&\s])?")

SEPARATOR = "|"
"""Stands between the genres of a film in a CSV."""


def visible(text: object, keep: str = "") -> str:
    """Write the characters that a terminal obeys as their escapes in Python.

    Args:
        text: Text of any origin.
        keep: Characters that are not escaped, such as a line break.
    """

    def escaped(match: re.Match[str]) -> str:
        character = match.group()
        return character if character in keep else character.encode("unicode_escape").decode()

    return _UNSAFE.sub(escaped, str(text))


def json_line(value: Any, *, ascii_only: bool = False) -> str:
    """Write a value as one line of JSON that is safe on a terminal; reading it gives the value.

    Args:
        value: Value that JSON can hold.
        ascii_only: Write every other character as an escape.
    """
    text = json.dumps(value, ensure_ascii=ascii_only)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def cell(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet program would compute; `original_cell` takes it off."""
    return f"'{text}" if _FORMULA.match(text) else text


def original_cell(text: str) -> str:
    """Give back the text that `cell` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def join_names(names: Iterable[str]) -> str:
    """Join names by `SEPARATOR`; within a name it gets a backslash before it, as a backslash does."""
    return SEPARATOR.join(name.replace("\\", "\\\\").replace(SEPARATOR, f"\\{SEPARATOR}") for name in names)


def split_names(text: str) -> list[str]:
    """Give back the names that `join_names` has joined."""
    if not text:
        return []
    names = [""]
    for part in re.findall(r"\\.|[^\\]", text, flags=re.DOTALL):
        if part == SEPARATOR:
            names.append("")
        else:
            names[-1] += part.removeprefix("\\") if len(part) > 1 else part
    return names


def markdown(text: object) -> str:
    """Write a text so that Markdown shows it as it is, in one line: no markup, link, HTML or column of a table."""
    line = visible(" ".join(str(text).split()))
    escaped = _MARKDOWN.sub(lambda match: f"\\{match.group()}", line)
    return re.sub("[&<>]", lambda match: _HTML[match.group()], escaped)


def markdown_code(text: object) -> str:
    """Write a text as code in a line of Markdown; one that could end the code or a table's cell is written plainly."""
    line = visible(text)
    return f"`{line}`" if _PLAIN_CODE.fullmatch(line) else markdown(text)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table, columns of numbers right-aligned and the others left; the cells are Markdown."""
    rows = list(rows)
    columns = list(zip(*rows, strict=True)) or [()] * len(heads)
    rule = ["---", *("---" if _WORD.search(" ".join(cells)) else "---:" for cells in columns[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rule, *rows])


def show_any_text() -> None:
    """Have the output streams write an escape for a character that their encoding lacks, in place of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
