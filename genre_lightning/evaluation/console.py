"""The headline metrics as a table for a terminal, and for the log file of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from genre_lightning.config.decision import POLICIES, SHIPPED_POLICY
from genre_lightning.escapes import visible
from genre_lightning.progress import printing

HEADLINES = (
    ("f1_micro", "micro-F1"),
    ("f1_macro", "macro-F1"),
    ("f1_samples", "samples F1"),
    ("precision_micro", "precision"),
    ("recall_micro", "recall"),
    ("subset_accuracy", "subset accuracy"),
    ("hamming_loss", "Hamming loss"),
)
THRESHOLD_FREE = (("map_macro", "mAP"), ("auroc_macro", "AUROC"), ("ece", "calibration error"), ("loss", "loss (nats)"))
POLICY_NAMES = {"fixed_0.5": "at 0.5", "global": "one threshold", "per_genre": "per genre"}
_MOST_GENRES = 5
"""Names of the trivial baseline that are shown; of many genres most can be in it."""
LOG_WIDTH = 100
"""Columns of a table written to a file, which has no width of its own."""


def titles_without_interval(result: Mapping[str, Any]) -> list[str]:
    """Name the defined metrics that have no interval, as there are too few films for one."""
    names = dict((*HEADLINES, *THRESHOLD_FREE))
    found = []
    for path in result.get("bootstrap", {}).get("too_few_films_for", ()):
        place, _, name = path.rpartition(".")
        figures = result["threshold_free"] if place == "threshold_free" else result["policies"].get(place, {})
        if name in names and figures.get(name) is not None:
            found.append(names[name] if place == "threshold_free" else f"{names[name]} {POLICY_NAMES[place]}")
    return found


def figure_text(value: float | None, interval: Sequence[float | None] | None = None) -> str:
    """Format a metric with its interval, "0.605 [0.597, 0.613]"; an undefined one is a dash."""
    if value is None:
        return "-"
    if not interval or interval[0] is None or interval[1] is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def headline_lines(result: Mapping[str, Any]) -> list[str]:
    """Write what `evaluate` gave in two or three lines: micro-F1 as the run decides, beside the trivial baseline."""
    value, name = result["policies"][SHIPPED_POLICY]["f1_micro"], result["split"] or "evaluation"
    span = result.get("intervals", {}).get("policies", {}).get(SHIPPED_POLICY, {}).get("f1_micro")
    lines = [f"{name} micro-F1 {figure_text(value, span)}, {result['n']:,} films, a threshold for each genre"]
    trivial = result.get("trivial_baseline")
    if trivial:
        genres, value_of_trivial = trivial["genres"], trivial["f1_micro"]
        lines.append(
            f"trivial baseline {figure_text(value_of_trivial)}: {_some_of(genres, _MOST_GENRES)} for every "
            f"film, the best constant set on {trivial['chosen_on']}"
        )
        low = value if not span or span[0] is None else span[0]
        if value is not None and value_of_trivial is not None and low <= value_of_trivial:
            lines.append("not clearly better than the trivial baseline: the model may have learned nothing from texts")
    return lines


def _some_of(genres: Sequence[str], most: int = 20) -> str:
    """Name the first genres, and count the others, which the tables name."""
    more = f" and {len(genres) - most:,} more" if len(genres) > most else ""
    return f"{', '.join(genres[:most])}{more}"


def headline_table(result: Mapping[str, Any], *, narrow: bool = False) -> Table:
    """Lay out the result of `evaluate`: one row per metric, one column per policy, with 95% intervals.

    Args:
        result: Result of a split's evaluation.
        narrow: Put each interval on a line of its own.
    """
    spans = result.get("intervals", {})
    # ASCII: a log may be read with any encoding
    table = Table(
        box=box.ASCII, title=f"{result['split'] or 'evaluation'}: {result['n']:,} films", title_justify="left"
    )
    table.add_column("metric", no_wrap=True)
    for policy in POLICIES:
        table.add_column(POLICY_NAMES[policy], justify="right", no_wrap=True)
    for name, title in HEADLINES:
        cells = []
        for policy in POLICIES:
            span = spans.get("policies", {}).get(policy, {}).get(name)
            cells.append(figure_text(result["policies"][policy][name], span).replace(" ", "\n" if narrow else " ", 1))
        table.add_row(title, *cells)
    return table


def probability_table(result: Mapping[str, Any]) -> Table:
    """Lay out the metrics that need no threshold."""
    spans = result.get("intervals", {}).get("threshold_free", {})
    table = Table(box=box.ASCII)
    table.add_column("of the probabilities", no_wrap=True)
    table.add_column("any threshold", justify="right", no_wrap=True)
    for name, title in THRESHOLD_FREE:
        table.add_row(title, figure_text(result["threshold_free"][name], spans.get(name)))
    return table


class SafeConsole(Console):
    """A console that takes text as it is: no markup, no emoji by name, and nothing that a terminal obeys.

    Args:
        file: File that it prints to; None takes the standard output.
        options: Options of rich's console.
    """

    def __init__(self, file: TextIO | None, **options: Any) -> None:
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **options)

    @override
    def render_str(self, text: str, **options: Any) -> Text:
        # before a table measures it, as escapes are longer
        return super().render_str(visible(text, keep="\n\t"), **options)

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, keep="\n"))

    @override
    def print(self, *objects: Any, **options: Any) -> None:
        with printing():
            super().print(*objects, **options)


def console_of(file: TextIO | None) -> Console:
    """Give a terminal its own width, and a file a fixed one."""
    console = SafeConsole(file)
    return console if console.is_terminal else SafeConsole(file, width=LOG_WIDTH, color_system=None)


def print_stacked(console: Console, heads: Sequence[str], rows: Sequence[Sequence[Sequence[str]]], title: str) -> None:
    """Print a table of cells of several lines each; intervals and heads are broken if it is too wide."""
    without_names = [[[""], *cells] for _, *cells in rows]  # which fold
    wide = _fits(_stacked_table(heads, without_names, title, narrow=False), console)
    console.print(_stacked_table(heads, rows, title, narrow=not wide))


def _stacked_table(heads: Sequence[str], rows: Sequence[Sequence[Sequence[str]]], title: str, *, narrow: bool) -> Table:
    table = Table(box=box.ASCII, title=title, title_justify="left", show_lines=True)
    table.add_column(heads[0], overflow="fold", min_width=None if narrow else 12)
    for head in heads[1:]:
        text = head.replace(" ", "\n") if narrow else head
        table.add_column(text, justify="right", no_wrap=not narrow, overflow="fold")
    for row in rows:
        cells = ("\n".join(lines) for lines in row)
        table.add_row(*(Text(cell.replace(", ", ",\n") if narrow else cell) for cell in cells))
    return table


def _fits(table: Table, console: Console) -> bool:
    """Return whether a table is printed without cutting off cells."""
    needed = console.measure(table, options=console.options.update(max_width=2 * LOG_WIDTH)).maximum
    return needed <= console.width


def print_headlines(result: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print the headline table, and the genres whose metrics are undefined."""
    console = console_of(file)
    table = headline_table(result)
    console.print(table if _fits(table, console) else headline_table(result, narrow=True))
    console.print(probability_table(result))
    level = result.get("bootstrap", {}).get("level")
    if level:
        console.print(f"in brackets: {level:.0%} bootstrap intervals over films", soft_wrap=True)
        if without := titles_without_interval(result):
            console.print(
                f"no interval, as {result['n']:,} films are too few for one: {', '.join(without)}", markup=False
            )
    if result["undefined"]:
        names = _some_of(result["undefined"])
        console.print(f"left out of the macro means, having no films with (or without) them: {names}", markup=False)
    absent = result["decision"]["without_positives"]
    if absent:
        names = _some_of(absent)
        console.print(f"decided by the global threshold, having no films to fit their own: {names}", markup=False)


def print_headline(result: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print the lines of `headline_lines`, after an empty one."""
    console = console_of(file)
    console.print()
    for line in headline_lines(result):
        console.print(line, soft_wrap=True)
