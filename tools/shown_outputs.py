"""Compare the outputs that the documentation shows with what the commands print now, or write them again.

Every block of README.md and docs/ that starts with ```console holds a command after "$ ", and below it what it prints:

    python tools/shown_outputs.py            # exit status 1 and a diff if a block is out of date
    python tools/shown_outputs.py --write    # puts the present outputs in

Commands run in an empty folder with configs/ and data/sample.csv (of `genre-lightning data sample`), without network
and without the hub's cache, so that they print the same everywhere. A line "…" of a block stands for any lines.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
_ELISION = "…"
_PROGRAM = "genre-lightning"


def pages() -> list[Path]:
    """Return the pages of the documentation; the tutorials are followed as a whole, by tutorials.py."""
    return [
        ROOT / "README.md",
        *(page for page in sorted((ROOT / "docs").rglob("*.md")) if TUTORIALS not in page.parents),
    ]


def renewed(block: str, place: str) -> str:
    """Return a block with what its command prints now; lines that it leaves out stay out.

    Args:
        block: "$ genre-lightning ...", which may continue in lines that follow a backslash, and its output.
        place: Name of the page, for messages.
    """
    lines = block.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.endswith("\\")) + 1
    command = " ".join(line.rstrip("\\").strip() for line in lines[:end])
    program, *arguments = shlex.split(command.removeprefix("$ "), comments=True)
    if not command.startswith("$ ") or program != _PROGRAM:
        raise SystemExit(f"{place}: a console block starts with '$ {_PROGRAM} ...', not {command!r}")
    return "\n".join([*lines[:end], *with_elision(lines[end:], output_of(arguments))]) + "\n"


def with_elision(shown: list[str], printed: list[str]) -> list[str]:
    """Return what is printed, leaving out as many lines as a shown output with a line "…" does."""
    if _ELISION not in shown:
        return printed
    before = shown.index(_ELISION)
    after = len(shown) - before - 1
    return [*printed[:before], _ELISION, *(printed[-after:] if after else [])]


def _renewed_match(match: re.Match[str], place: str) -> str:
    return renewed(match[0], place)


def output_of(arguments: list[str]) -> list[str]:
    """Return the lines that a command prints to the standard output."""
    from genre_lightning.__main__ import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(arguments)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@contextlib.contextmanager
def empty_place() -> Iterator[None]:
    """Work in a new folder that holds only what the documentation's commands name."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        # before the hub's client is loaded
        os.environ |= {"HF_HOME": f"{place}/hub", "HF_HUB_OFFLINE": "1", "GENRE_LIGHTNING_CACHE": f"{place}/cache"}
        os.environ.pop("HF_HUB_CACHE", None)
        Path("configs").symlink_to(ROOT / "configs")
        output_of(["data", "sample", "data/sample.csv"])
        yield


def check(paths: list[Path], *, write: bool) -> bool:
    """Compare the blocks of pages, or renew them; return whether all were up to date."""
    fresh = True
    for path in paths:
        text = path.read_text(encoding="utf-8")
        new = _BLOCK.sub(partial(_renewed_match, place=path.name), text)
        if new == text:
            continue
        fresh = False
        if write:
            path.write_text(new, encoding="utf-8")
        sys.stdout.writelines(difflib.unified_diff(text.splitlines(True), new.splitlines(True), str(path), "now", n=1))
    return fresh


if __name__ == "__main__":
    with empty_place():
        sys.exit(0 if check(pages(), write=sys.argv[1:] == ["--write"]) or sys.argv[1:] == ["--write"] else 1)
