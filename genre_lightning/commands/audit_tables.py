"""The audit of a movies file as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from genre_lightning.data.movies import REASONS
from genre_lightning.escapes import visible


def print_audit(audit: dict[str, Any], console: Console) -> None:
    """Print what became of the rows, the genres of each split, and the lengths of texts.

    Args:
        audit: That of `data_audit.json`, with `tokens` and `genres_a_film`.
        console: It is printed there.
    """
    rows = Table(title=f"{audit['file']}: {audit['rows']:,} rows", title_justify="left", box=box.ASCII)
    rows.add_column("outcome")
    rows.add_column("rows", justify="right")
    rows.add_column("share", justify="right")
    for reason in (*REASONS, "kept"):
        rows.add_row(reason, f"{audit[reason]:,}", f"{audit[reason] / max(audit['rows'], 1):.2%}")
    console.print(rows)
    for note in audit["notes"]:
        console.print(note, highlight=False)

    if "inputs" in audit:
        _print_inputs(audit, console)

    splits = audit["splits"]
    genres = Table(title="films of each genre", title_justify="left", box=box.ASCII)
    genres.add_column("genre")
    for name in ("all", *splits):
        genres.add_column(name, justify="right")
    genres.add_column("share", justify="right")
    shown = ["train", "validation"] if audit["validation_is_test"] else list(splits)
    totals = {genre: sum(splits[s]["genres"][genre] for s in shown) for genre in splits["train"]["genres"]}
    for genre, total in sorted(totals.items(), key=lambda item: -item[1]):
        counts = [f"{splits[name]['genres'][genre]:,}" for name in splits]
        genres.add_row(genre, f"{total:,}", *counts, f"{total / audit['films_used']:.1%}")
    genres.add_section()
    genres.add_row("films", f"{audit['films_used']:,}", *(f"{splits[name]['films']:,}" for name in splits), "")
    console.print(genres)

    tokens = audit["tokens"]
    console.print(
        f"tokens a text: mean {tokens['mean']:.1f}, 5% under {tokens['p5']}, median {tokens['p50']}, 95% under "
        f"{tokens['p95']}, longest {tokens['longest']}; {tokens['cut']:,} at the limit of {tokens['max_tokens']}"
    )
    console.print(f"genres a film: mean {audit['genres_a_film']:.2f}")
    for name in splits:
        console.print(f"{name:<10} ids sha256 {splits[name]['ids_sha256'][:16]}…")
    if audit["validation_is_test"]:
        console.print("validation and test are the same films (the paper's protocol): metrics on them are optimistic")


def _through(join: dict[str, Any]) -> str:
    return f" through {join['via']}" if "via" in join else ""


def _print_inputs(audit: dict[str, Any], console: Console) -> None:
    """Print what became of joined files and inputs."""
    for join in audit["joins"]:
        console.print(
            f"{join['file']}: {join['rows']:,} rows by {join['key']}{_through(join)}; "
            f"{join['films_matched']:,} films matched, {join['films_unmatched']:,} without a row; "
            f"{join['rows_unmatched']:,} rows of no film, "
            f"{join['duplicate_keys']:,} duplicate keys, {join['rows_without_key']:,} rows without a key"
            + (f", {join['rows_without_link']:,} without a link" if "via" in join else ""),
            highlight=False,
        )
    if audit["inputs"]:
        inputs = Table(title="inputs of the head", title_justify="left", box=box.ASCII)
        for column in ("input", "kind"):
            inputs.add_column(column, overflow="fold")
        for column in ("known", "missing", "malformed"):
            inputs.add_column(column, justify="right")
        inputs.add_column("fitted on training")
        for name, one in audit["inputs"].items():
            counts = [f"{one[kind]:,}" for kind in ("known", "missing", "malformed")]
            inputs.add_row(visible(name), one["kind"], *counts, one["fitted"])
        console.print(inputs)
    for leak in audit["leaks"]:
        console.print(
            f"leak: {leak['column']} {leak['value']!r} all but gives {leak['genre']} away "
            f"({leak['with_genre']:,} of {leak['films']:,} training films)"
            + (", left out" if leak["excluded"] else "; leave such values out with --data.exclude_leaks true"),
            highlight=False,
            markup=False,
        )
