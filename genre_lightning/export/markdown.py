"""Templates of Markdown: what stands in braces is escaped for Markdown, unless it is `Markdown` already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from genre_lightning.escapes import markdown, markdown_code, markdown_table


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def render(template: str, **values: object) -> str:
    """Fill a template of this package; a missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # which would escape for HTML
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "count": "{:,}".format, "literal": _literal, "table": _table}
    return environment.get_template(template).render(values)


def code(value: object) -> Markdown:
    """Write a value as code in a line."""
    return Markdown(markdown_code(value))


def _escaped(value: object) -> Markdown:
    return value if isinstance(value, Markdown) else Markdown(markdown(value))


def _literal(value: object) -> Markdown:
    """Write a value of a block of Python in ASCII, so that none can end its string or the block."""
    return Markdown(ascii(value).replace("`", "\\x60"))


def _table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    return Markdown(markdown_table(list(map(_escaped, heads)), [list(map(_escaped, row)) for row in rows]))
