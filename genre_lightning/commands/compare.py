"""`genre-lightning compare`: several runs on the same films in one table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from genre_lightning.bounds import SEED
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.config.run_pattern import matching_runs


def compare(arguments: Sequence[str]) -> int:
    """Print the table, and write it as Markdown, CSV and HTML."""
    parser = CommandParser(
        "compare", "Compares runs on the same films: metrics with 95% intervals, paired p-values, time, parameters."
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="directories of finished runs, two or more; or a pattern such as 'runs/lr-{model.lr}-seed-{seed}'",
    )
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="films to compare on")
    parser.add_argument(
        "--out", type=Path, help="folder of comparison.md, .csv and .html (default: comparison, beside the first run)"
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--paper", action="store_true", help="show the paper's published metrics beside the runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(list(arguments))
    from genre_lightning.evaluation.comparison import (
        compare_runs,
        comparison_files,
        is_comparison,
        print_comparison,
        write_comparison,
    )
    from genre_lightning.files import check_folder, check_output, json_value
    from genre_lightning.progress import answer, say

    out = options.out or matching_runs(options.runs[0])[0].resolve().parent / "comparison"
    check_folder(out, "--out")
    for file in comparison_files(out).values():
        check_output(file, "--out")
    # `compare runs/*` finds what it has written there before
    given = [found for path in options.runs for found in matching_runs(path)]
    runs = [run for run in given if not is_comparison(run)]
    for run in given:
        if run not in runs:
            say(f"{run} is left out: it holds a comparison, not a run")
    comparison = compare_runs(runs, split=options.split, seed=options.seed, paper=options.paper)
    paths = write_comparison(comparison, out)
    if options.json:
        files = {kind: str(path) for kind, path in paths.items()}
        answer(json.dumps(json_value({**asdict(comparison), "files": files}), allow_nan=False))
    else:
        print_comparison(comparison, sys.stdout)
        answer("")
        answer(f"written to {', '.join(str(path) for path in paths.values())}")
    return 0
