"""Run the documentation's tutorials as a reader does, and compare what they show with what is printed.

    python tools/tutorials.py [PAGE ...]            # exit status 1 and a diff if a page is out of date
    python tools/tutorials.py --write [PAGE ...]    # puts the present outputs in

notebook.md is a notebook too: --write makes notebook.ipynb of it, by notebooks.py.

A tutorial is a page of docs/tutorials. Its blocks are followed in order, in an empty folder without network:

- a block with a title is the file of that name;
- a `python` block is run, all of a page in one namespace; a `text` block right below it shows what it prints;
- a `console` block holds commands after "$ ", each with what it prints below it. A command that ends with "&" runs
  until the page ends. A line "…" stands for any lines.

Every command must succeed. Numbers, and a few lines that depend on them, differ from machine to machine: a page is up
to date if nine tenths of its lines are as shown, numbers aside.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from notebooks import commands_of, notebook_of
from shown_outputs import ROOT, TUTORIALS, with_elision

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_PROGRESS = re.compile(r"^(epoch \d+/\d+  step|reading |tokenising )")
"""Lines that are printed as time passes, and not at all on a fast machine."""
_SECONDS = 600
_ALIKE = 0.9
"""Fraction of a page's lines that must be as shown."""


class Reader:
    """Somebody who follows one page in the working directory, and notes what is printed.

    Args:
        place: The working directory, as outputs name it.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._printed: list[str] | None = None
        self._background: list[subprocess.Popen[bytes]] = []

    def follow(self, text: str) -> str:
        """Follow all blocks of a page; return the page with what its commands print."""
        try:
            return _BLOCK.sub(self._block, text)
        finally:
            for process in self._background:
                process.terminate()
                process.wait()

    def _block(self, match: re.Match[str]) -> str:
        language, title, body = match.groups()
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(body, encoding="utf-8")
        elif language == "python":
            self._printed = self._python(body)
        elif language == "text" and self._printed is not None:
            printed, self._printed = with_elision(body.splitlines(), self._printed), None
            return "\n".join(["```text", *printed, "```"])
        elif language == "console":
            return match[0].replace(body, "".join(self._console(body)))
        return match[0]

    def _python(self, body: str) -> list[str]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(body, "a block of the tutorial", "exec"), self._names)
        return self._lines(printed.getvalue())

    def _lines(self, printed: str) -> list[str]:
        """Split what is printed into the lines that are the same in every place and at every speed."""
        lines = [line.rstrip() for line in printed.replace(f"{self._place}/", "").splitlines()]
        return [line for line in lines if not _PROGRESS.match(line)]

    def _console(self, body: str) -> Iterator[str]:
        for command, shown in commands_of(body):
            printed = self._run(command.replace("\\\n", " "))
            yield "\n".join([f"$ {command}", *with_elision(shown.splitlines(), printed)]) + "\n"

    def _run(self, command: str) -> list[str]:
        if command.endswith("&"):
            words = shlex.split(command[:-1])
            self._background.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            return []
        words = shlex.split(command, comments=True)
        if words[0] == "genre-lightning" and not {"|", ">", ";", "&&", "||"} & set(words):
            status, printed = _in_this_process(words[1:])
        else:
            done = subprocess.run(
                ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_SECONDS
            )
            status, printed = done.returncode, done.stdout
        if status:
            raise SystemExit(f"'{command}' ended with status {status}:\n{printed[-2000:]}")
        return self._lines(printed)


def _in_this_process(words: list[str]) -> tuple[int, str]:
    """Run the program here, where its libraries are loaded once for all commands."""
    from genre_lightning.__main__ import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(words)
    return status, printed.getvalue()


def without_numbers(text: str) -> list[str]:
    """Reduce a page to what is equal on every machine."""
    text = re.sub(r"\b[0-9a-f]{12,}\b", "#", text)
    text = re.sub(r"[-+]?\d+(?:[.,:]\d+)*|\bnan\b", "#", text)
    return [re.sub(r"[\s━─-]+", " ", line).strip() + "\n" for line in text.splitlines()]


def check(page: Path, *, write: bool) -> bool:
    """Follow a page and compare it with what it shows, or renew it; return whether it was up to date."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        os.environ |= {
            "GENRE_LIGHTNING_CACHE": f"{place}/.cache", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        new = Reader(str(Path(place).resolve())).follow(text)
    if write:
        page.write_text(new, encoding="utf-8")
        if (notebook := page.with_suffix(".ipynb")).is_file():
            notebook.write_text(notebook_of(new), encoding="utf-8")
    left, right = without_numbers(text), without_numbers(new)
    sys.stdout.writelines(difflib.unified_diff(left, right, page.name, "printed now", n=1))
    return difflib.SequenceMatcher(None, left, right, autojunk=False).ratio() >= _ALIKE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="*", default=sorted(TUTORIALS.glob("*.md")))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    fresh = [check(page.resolve(), write=options.write) for page in options.pages]
    sys.exit(0 if options.write or all(fresh) else 1)
