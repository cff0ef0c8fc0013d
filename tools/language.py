"""Count turns of phrase that plain technical English does not have, in what a user reads.

Documentation, messages and help; with --all docstrings too:

    python tools/language.py            # exit status 1 and a list if there are any in the documentation or in messages
    python tools/language.py --all      # docstrings and comments too

A pattern stands beside what to write in its place.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = {
    r"\bgoes? on\b|\bwent on\b|\bgoing on\b": "resume, continue",
    r"\bthe cure\b|\bits cure\b": "fix",
    r"\bmended?\b|\bmending\b": "fix",
    r"\bvouch(?:es|ed)? for\b": "verify",
    r"(?<!there )\bis no (?!longer|more|such|need|way|other)\w+": "is not a",
    r"\b(?:be|is|are|was) told\b": "is reported, is shown",
    r"\bso many\b": "n, at most n",
    r"\bfacts\b": "metadata",
    r"(?<![-/])\bfigures\b(?![/`])": "metrics, plots",
    r"\bsaid to be so\b|\bis said\b|\bsays so\b": "is reported",
    r"\ban? object a line\b|\ba line a text\b": "one object per line",
    r"\bwhere there is (?:no|none|one)\b": "if there is",
    r"\bas it was\b": "unchanged",
}
"""What is not written, and what is in its place."""

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def pages() -> Iterator[tuple[str, int, str]]:
    """Yield the lines of the documentation outside of code blocks: place, number and text."""
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "slurm/README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]:
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
        for number, line in enumerate(text.splitlines(), 1):
            yield str(path.relative_to(ROOT)), number, re.sub(r"`[^`]*`", "", line)


def strings(*, docstrings: bool) -> Iterator[tuple[str, int, str]]:
    """String constants of the package that are sentences: messages and help, and docstrings if asked for."""
    for path in sorted((ROOT / "genre_lightning").rglob("*.py")):
        if "sample" in path.parts:  # made-up overviews of films
            continue
        tree = ast.parse(path.read_text())
        documentation = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            sentence = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
            if sentence and (id(node) in documentation) == docstrings:
                yield str(path.relative_to(ROOT)), node.lineno, node.value


def options() -> Iterator[tuple[str, int, str]]:
    """Yield the docstrings of the dataclasses of options, which are the help."""
    for path in sorted((ROOT / "genre_lightning" / "config").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and (text := ast.get_docstring(node)):
                yield str(path.relative_to(ROOT)), node.lineno, text


def main() -> int:
    """Print what is found, and return 1 if there is any."""
    places = [*pages(), *strings(docstrings=False), *options()]
    if "--all" in sys.argv[1:]:
        places += strings(docstrings=True)
    found = 0
    for place, line, text in places:
        for pattern, instead in PATTERNS.items():
            for match in re.finditer(pattern, " ".join(text.split()), re.IGNORECASE):
                found += 1
                print(f"{place}:{line}: {match[0]!r}: write {instead}")
    print(f"{found} found")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
