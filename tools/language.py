"""Find turns of phrase that plain technical English does not have, in everything that a reader sees.

    python tools/language.py            # exit status 1 and a list if there are any

It reads the documentation outside of code, the configurations and batch scripts, and of Python files the messages,
docstrings, comments and names of tests. A pattern stands beside what to write in its place. Ruff's D401 holds
docstrings imperative.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("genre_lightning", "benchmarks", "tools", "tests")
PAGES = ("*.md", "docs/**/*.md", "slurm/*.*", "configs/**/*.yaml", "benchmarks/*.md", ".github/**/*.md")
PATTERNS = {
    r"\b(?:go|goes|went|going|gone)[ _]on\b(?! and)": "resume, continue",
    r"\banew\b(?!:)": "again",
    r"\bthe[ _]cure\b|\bits cure\b|\bmend(?:s|ed|ing)?\b": "fix",
    r"\bvouch(?:es|ed)? for\b": "verify",
    r"(?<!here )\b(?:is|are|was|were) no (?!longer|more|such|need|way|other|better|less|use)\w+": "is not a",
    r"\btold (?:of|to|when|how|that)\b|\b(?:be|is|are|was) told\b": "is reported, is called with",
    r"\bso many\b": "n, at most n",
    r"\b(?:the|its|these|of) facts\b": "metadata",
    r"(?<![-/])\bfigures\b(?![/`:'])": "metrics, plots",
    r"\bsaid to be so\b|\b(?:is|are) said\b|\bsays so\b": "is reported",
    r"\b[Ww]hat (?:\w+ ){1,3}says? (?:of|about)\b": "name the contents",
    r"\ban? object a line\b|\ba line a text\b": "one object per line",
    r"\b(?:None|NaN|null|none|nothing|empty|undefined) where\b": "None if",
    r"(?<!it )(?<!to )\bwhere (?:there (?:is|are)|none is|it is none)\b": "if there is",
    r"\bas it was(?=[.,;:)]|$)": "unchanged",
    r"\b(?:a|the|three|two|larger) shares? of\b": "fraction",
    r"\bthe first rank\b(?!$| that| of a| it)": "rank 0",
    r"\bdealt? to (?:the )?ranks\b": "distributed over ranks",
    r"\b(?:behavior|favor|neighbor|honor|labeled|labeling)\w*": "British spelling",
    r"\b(?:normal|token|optim|serial|synchron|util|summar|organ|recogn|standard|minim|maxim)iz(?:e|es|ed)\b": "-ise",
}
"""What is not written, and what is in its place."""

ARGUMENT = r"^ {4,}\*{0,2}\w+: (?:of|in|at|with|by|from|over|that|whose|likewise)\b"
"""An argument or attribute whose description does not name the thing."""

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

Place = tuple[str, int, str]


def pages() -> Iterator[Place]:
    """Yield the lines of the documentation outside of code blocks: place, number and text."""
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
        for number, line in enumerate(text.splitlines(), 1):
            yield str(path.relative_to(ROOT)), number, re.sub(r"`[^`]*`", "", line)


def prose(path: Path) -> Iterator[Place]:
    """Yield the sentences of a Python file: messages, docstrings and comments, and the names of tests."""
    text, place = path.read_text(), str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            if not re.search(r"^(?:import|from) \w", node.value, re.MULTILINE):  # a script that a test runs
                yield place, node.lineno, node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield place, node.lineno, node.name.replace("_", " ")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield place, token.start[0], token.string


def sources() -> Iterator[Place]:
    """Yield the prose of all Python files but the made-up overviews of films and this file's own patterns."""
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        if "sample" not in path.parts and path != Path(__file__).resolve():
            yield from prose(path)


def problems(text: str) -> Iterator[tuple[str, str]]:
    """Yield each phrase of a text that is not written, with what to write instead."""
    for match in re.finditer(ARGUMENT, text, re.MULTILINE):
        yield match[0].strip(), "the thing's name first"
    for pattern, instead in PATTERNS.items():
        for match in re.finditer(pattern, " ".join(text.split())):
            yield match[0], instead


def main() -> int:
    """Print what is found, and return 1 if there is any."""
    found = [(place, line, *problem) for place, line, text in (*pages(), *sources()) for problem in problems(text)]
    for place, line, phrase, instead in found:
        print(f"{place}:{line}: {phrase!r}: write {instead}")
    print(f"{len(found)} found")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
