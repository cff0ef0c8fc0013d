"""`genre-lightning data`: a look at a movies file, the embedded sample, and the real file from Kaggle."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from genre_lightning.bounds import SEED, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.escapes import visible
from genre_lightning.evaluation.console import console_of
from genre_lightning.files import check_output
from genre_lightning.progress import answer, say


def sample(arguments: Sequence[str]) -> int:
    """Write the embedded sample."""
    from genre_lightning.data.sample.generate import write_sample

    parser = CommandParser("data sample", "Writes a made-up movies file in The Movies Dataset's format.")
    parser.add_argument("file", type=Path, help="where to: a .csv or .csv.gz file")
    parser.add_argument(
        "--films",
        type=within(int, at_least(100, 10**7)),
        default=2000,
        help="films that are fit to learn from, at least 100 (default: 2000)",
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="equal seeds write equal files (default: 0)")
    options = parser.parse_args(list(arguments))
    check_output(options.file, "FILE")
    path = write_sample(options.file, films=options.films, seed=options.seed)
    say(f"wrote {path}")
    return 0


def download(arguments: Sequence[str]) -> int:
    """Fetch The Movies Dataset's file."""
    from genre_lightning.data.download import HANDLE, download_movies

    parser = CommandParser(
        "data download",
        f"Fetches movies_metadata.csv of {HANDLE} by kagglehub, checks it, and puts it into a directory.",
    )
    parser.add_argument("dir", type=Path, nargs="?", default=Path("data"), help="where to (default: data)")
    path, audit, fetched = download_movies(parser.parse_args(list(arguments)).dir.expanduser())
    counts = f"{audit.rows:,} rows, {audit.kept:,} films kept"
    say(f"{'fetched and checked' if fetched else 'it is there already'}: {counts}")
    answer(path)
    return 0


def inspect(arguments: Sequence[str]) -> int:
    """Print the audit, the genres, the lengths and the splits of a file."""
    from genre_lightning.commands.checked import parse_checked
    from genre_lightning.config.words import with_film_file, with_run_config

    words = with_run_config(with_film_file(arguments))
    config, parser = parse_checked("data inspect", words, Path("runs/inspect"))
    # this loads torch, which takes seconds
    from genre_lightning.training.setup import check_setup

    setup = check_setup(config, parser)
    data = setup.data.prepare()
    lengths = data.tokens.lengths
    audit = {
        **data.audit,
        "tokens": {
            "tokenizer": setup.data.tokenizer_name,
            "max_tokens": setup.data.options.max_tokens,
            "mean": float(lengths.mean()),
            **{f"p{p}": int(np.percentile(lengths, p)) for p in (5, 50, 95, 99)},
            "longest": int(lengths.max()),
            "cut": int((lengths == setup.data.options.max_tokens).sum()),
        },
        "genres_a_film": float(np.concatenate([s.labels for s in _distinct(data.splits)]).sum(axis=1).mean()),
    }
    if config.json:
        answer(json.dumps(audit))
    else:
        _print(audit, console_of(sys.stdout))
    return 0


def _distinct(splits: dict[str, Any]) -> list[Any]:
    return list({split.sha256: split for split in splits.values()}.values())


def _print(audit: dict[str, Any], console: Console) -> None:
    from genre_lightning.data.movies import REASONS

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
            inputs.add_column(column)
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
