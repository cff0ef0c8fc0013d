"""The tables and the plot of the page on resuming, made from the results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genre_lightning.escapes import markdown_table
from genre_lightning.evaluation.plots import style

Row = Mapping[str, Any]
TOLERANCE_OTHER_RANKS = 1e-4
"""Sums over another number of ranks round differently; a tool's unbroken runs may differ by more, which counts then."""
AS_UNBROKEN, WEIGHTS, FILMS, FAILED = "as unbroken", "weights differ", "films twice or never", "does not resume"
COLOURS = {AS_UNBROKEN: style.BLUE, WEIGHTS: style.ORANGE, FILMS: style.RED, FAILED: style.GREY}


def verdict(row: Row) -> str:
    """Return the worst that can be seen of a cut run that was resumed."""
    if not row["finished"]:
        return FAILED
    if row["twice"] or row["never"]:
        return FILMS
    same = row["ranks"] == row["resumed_ranks"]
    tolerance = 0.0 if same else max(TOLERANCE_OTHER_RANKS, row["unbroken_difference"])
    return AS_UNBROKEN if row["largest_difference"] <= tolerance else WEIGHTS


def write_results(results: Mapping[str, Any], out: Path) -> None:
    """Write the tables and the plot beside the JSON file."""
    rows = results["cells"]
    machine = results["machine"]
    heading = (
        f"# Resume conformance, {results['date']}\n\n"
        f"`benchmarks/resume/conformance.py` on {machine['cores']} cores of {machine['processor']}, shared with other "
        f"work, Python {machine['python']}.\n\n"
    )
    kinds = {"The same number of ranks": True, "Another number of ranks": False}
    summaries = [
        f"## {title}\n\n{summary([row for row in rows if (row['ranks'] == row['resumed_ranks']) == same])}\n"
        for title, same in kinds.items()
    ]
    versions = [[name, ", ".join(f"{p} {v}" for p, v in found.items())] for name, found in results["versions"].items()]
    parts = [*summaries, f"## Every cut\n\n{every_cut(rows)}\n"]
    parts.append(f"## Versions\n\n{markdown_table(['environment', 'packages'], versions)}\n")
    (out / "resume_conformance.md").write_text(heading + "\n".join(parts), encoding="utf-8")
    draw(rows, out / "resume_conformance.png")


def summary(rows: Sequence[Row]) -> str:
    """Return a table with a line for each tool: the worst of its cuts."""
    heads = [
        "tool", "cuts resumed", "films twice, never in an epoch", "steps in the unbroken order", "weights differ by",
        "steps lost on SIGTERM, SIGKILL", "points of curves missing, double", "status after SIGTERM", "CPU s to resume",
    ]  # fmt: skip
    lines = []
    for tool in dict.fromkeys(row["tool"] for row in rows):
        cuts = [row for row in rows if row["tool"] == tool]
        done = [row for row in cuts if row["finished"]]
        line = [tool, f"{len(done)} of {len(cuts)}"]
        if done:
            lost = [_worst(done, "steps_lost", signal) for signal in ("SIGTERM", "SIGKILL")]
            seconds = [row["cpu_seconds_to_resume"] for row in done if row["cpu_seconds_to_resume"] is not None]
            line += [
                f"{_worst(done, 'twice_in_worst_epoch')}, {_worst(done, 'never_in_worst_epoch')}",
                f"{sum(row['steps_in_order'] for row in done)} of {sum(row['steps_after'] for row in done)}",
                _weights(max(done, key=lambda row: row["largest_difference"])),
                ", ".join(lost),
                f"{_worst(done, 'gaps')}, {_worst(done, 'doubles')}",
            ]
        else:
            line += ["–"] * 5
            seconds = []
        stopped = [row for row in cuts if row["signal"] == "SIGTERM"]
        line += [_after_signal(stopped), f"{statistics.median(seconds):.2f}" if seconds else "–"]
        lines.append(line)
    return markdown_table(heads, lines)


def every_cut(rows: Sequence[Row]) -> str:
    """Return a table with a line for each cut."""
    heads = [
        "tool",
        "moment",
        "signal",
        "ranks",
        "films twice, never",
        "in order",
        "weights",
        "steps lost",
        "curves",
        "statuses",
    ]
    lines = []
    for row in rows:
        line = [row["tool"], row["moment"], row["signal"], f"{row['ranks']} → {row['resumed_ranks']}"]
        if row["finished"]:
            line += [
                f"{row['twice']}, {row['never']}",
                f"{row['steps_in_order']} of {row['steps_after']}",
                _weights(row),
                str(row["steps_lost"]),
                f"{row['gaps']} missing, {row['doubles']} double",
            ]
        else:
            line += ["does not resume: " + row["why"], "–", "–", "–", "–"]
        lines.append([*line, f"{_after_signal([row])}; {', '.join(map(str, row['resumed_statuses']))}"])
    return markdown_table(heads, lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the verdict on every cut: tools down, cuts across."""
    tools = list(dict.fromkeys(row["tool"] for row in rows))
    cuts = list(dict.fromkeys(_cut(row) for row in rows))
    figure, axes = style.one_axes(
        "Cut and resumed, beside the unbroken run", 1.2 + 0.62 * len(cuts), 1.9 + 0.42 * len(tools)
    )
    for kind, colour in COLOURS.items():
        at = [(cuts.index(_cut(row)), tools.index(row["tool"])) for row in rows if verdict(row) == kind]
        axes.scatter([x for x, _ in at], [y for _, y in at], s=190, marker="s", color=colour, label=kind)
    axes.set_xticks(range(len(cuts)), cuts, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(tools)), tools)
    axes.set_ylim(len(tools) - 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=len(COLOURS))
    style.save_figure(figure, path)


def _cut(row: Row) -> str:
    return f"{row['moment']}, {row['signal']}, {row['ranks']} → {row['resumed_ranks']}"


def _worst(rows: Sequence[Row], name: str, signal: str = "") -> str:
    return str(max((row[name] for row in rows if row["signal"] == signal or not signal), default="–"))


def _weights(row: Row) -> str:
    """Return the difference; on other ranks beside that of the tool's unbroken runs on both numbers of ranks."""
    numbers = [row["largest_difference"]]
    if row["ranks"] != row["resumed_ranks"]:
        numbers.append(row["unbroken_difference"])
    return " / ".join(f"{number:.1e}" if number else "0" for number in numbers)


def _after_signal(rows: Sequence[Row]) -> str:
    """Return the exit statuses after the cut; those of ranks that had to be killed say nothing."""
    ended = {str(status) for row in rows if not row["hung"] for status in row["statuses"]}
    return ", ".join([*sorted(ended), *(["hangs"] if any(row["hung"] for row in rows) else [])])
