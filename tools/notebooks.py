"""A tutorial as a Jupyter notebook: its text, its code as cells, and the outputs that the page shows.

The page is what is edited; tutorials.py follows it, and writes the notebook of a page that has one.
"""

from __future__ import annotations

import json
import re
from typing import Any

_BLOCK = re.compile(r"^```(python|console|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?", re.MULTILINE)


def commands_of(block: str) -> list[tuple[str, str]]:
    """Return the commands of a `console` block, as written after "$ ", each with what is shown below it."""
    commands = [*_COMMAND.finditer(block)]
    ends = [*(command.start() for command in commands[1:]), len(block)]
    return [(command[1], block[command.end() : end]) for command, end in zip(commands, ends, strict=True)]


def notebook_of(page: str) -> str:
    """Return the notebook of a page as JSON (nbformat 4.5).

    A `python` block is a cell of code, and a `text` block right below it the cell's output; a command of a `console`
    block becomes a cell with "!". All else is text.
    """
    cells: list[dict[str, Any]] = []
    place = 0
    for match in _BLOCK.finditer(page):
        between = page[place : match.start()].strip()
        place = match.end()
        language, body = match.groups()
        if between:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": _lines(between)})
        if language == "text" and cells and cells[-1]["cell_type"] == "code" and not between:
            cells[-1]["outputs"] = _printed(body)
        elif language == "text":
            cells.append({"cell_type": "markdown", "metadata": {}, "source": _lines(match[0])})
        elif language == "python":
            cells.append(_code(body.rstrip("\n"), ""))
        else:
            cells += [_code(f"!{command}", shown) for command, shown in commands_of(body)]
    if rest := page[place:].strip():
        cells.append({"cell_type": "markdown", "metadata": {}, "source": _lines(rest)})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _code(source: str, printed: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "source": _lines(source),
        "outputs": _printed(printed),
    }


def _printed(text: str) -> list[dict[str, Any]]:
    return [{"output_type": "stream", "name": "stdout", "text": _lines(text)}] if text.strip() else []


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
