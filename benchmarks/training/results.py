"""The training benchmark's results: medians and ratios, as a table, JSON and a plot."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from suites import OURS, PEER_FORMS, Aims

FOLDER = Path(__file__).parent.parent / "results"


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the medians of each side over the rounds, and of the ratios within them.

    Args:
        rounds: Metrics that the worker measured in every round, for each side.
    """
    names = ("tokens_per_second", "films_per_second", "padding", "peak_gib")
    medians = {side: {n: statistics.median(row[n] for row in rows) for n in names} for side, rows in rounds.items()}
    ratios = {
        side: statistics.median(
            ours["tokens_per_second"] / peer["tokens_per_second"]
            for ours, peer in zip(rounds[OURS], rounds[side], strict=True)
        )
        for side in PEER_FORMS
    }
    return {"medians": medians, "ratios": ratios}


def table(result: dict[str, Any], aims: Aims) -> str:
    """Return a suite's result as text."""
    lines = [f"{'side':32} {'real tokens/s':>13} {'films/s':>8} {'padding':>8} {'peak GiB':>9} {'ratio':>6} {'aim':>6}"]
    for side, row in result["medians"].items():
        ratio = f"{result['ratios'][side]:.2f}" if side in result["ratios"] else ""
        lines.append(
            f"{name_of(side):32} {row['tokens_per_second']:13,.0f} {row['films_per_second']:8.1f} "
            f"{row['padding']:8.1%} {row['peak_gib']:9.2f} {ratio:>6} {aims.ratios.get(side, ''):>6}"
        )
    rate, cost = result["product_flops_per_second"], result["flops_per_token"]
    lines.append(
        f"matrix multiplications of a real token are {cost / 1e6:,.0f} MFLOP; at the {rate / 1e9:,.0f} GFLOP/s "
        f"of large ones they alone would allow {rate / cost:,.0f} tokens/s, of which "
        f"{result['share_of_products']:.0%} is reached"
    )
    ours = result["medians"][OURS]
    if result["share_of_peak"] is not None:
        aim = f" (aim {aims.share_of_peak:.0%})" if aims.share_of_peak else ""
        lines.append(f"fraction of the GPU's dense peak: {result['share_of_peak']:.1%}{aim}")
    if aims.tokens_per_second:
        lines.append(f"real tokens/s: {ours['tokens_per_second']:,.0f} (aim {aims.tokens_per_second:,} on an H200)")
    if aims.peak_gib:
        lines.append(f"peak memory: {ours['peak_gib']:.2f} GiB (aim below {aims.peak_gib:g})")
    return "\n".join(lines)


def name_of(side: str) -> str:
    """Return what a table calls a side."""
    return side if side == OURS else f"Trainer, {side}"


def heading(result: dict[str, Any]) -> str:
    """Return what a result was measured on and when, as a sentence."""
    on, of = result["machine"], result["files"]
    return (
        f"{result['date']}, {on['processor']}, {on['cores']} cores, {result['precision']}, Python {on['python']}, "
        f"torch {on['torch']}, transformers {on['transformers']}; {of['model']} on {of['films']}."
    )


def keep(stem: Path, title: str, result: dict[str, Any], text: str) -> None:
    """Write a result as JSON and as a page."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(f"# {title}\n\n{heading(result)}\n\n```\n{text}\n```\n", encoding="utf-8")


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot the real tokens a second of each side, every round a point."""
    figure = Figure(figsize=(7, 2.8), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sides = list(result["medians"])[::-1]
    for place, side in enumerate(sides):
        rates = [row["tokens_per_second"] for row in result["rounds"][side]]
        axes.barh(place, statistics.median(rates), color="#2a6f97" if side == OURS else "#b8b8b8", height=0.6)
        axes.plot(rates, [place] * len(rates), "o", color="#333333", markersize=4)
        ratio = f"   (here {result['ratios'][side]:.2f} times as fast)" if side in result["ratios"] else ""
        axes.annotate(f"{statistics.median(rates):,.0f}{ratio}", (max(rates), place),
                      textcoords="offset points", xytext=(8, 0), va="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(sides)), [name_of(side) for side in sides])
    axes.set_xlim(0, max(row["tokens_per_second"] for rows in result["rounds"].values() for row in rows) * 1.5)
    axes.set_xlabel("real tokens a second")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
