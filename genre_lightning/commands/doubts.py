"""`genre-lightning data doubts`: genres of films that are probably wrong or missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.bounds import at_least
from genre_lightning.commands.arguments import CommandParser, check_out, within
from genre_lightning.progress import answer, say

if TYPE_CHECKING:
    from genre_lightning.learning.doubts import Doubt

_SHOWN = 20


def doubts(arguments: Sequence[str]) -> int:
    """Print the most doubtful labels, and write them as a CSV."""
    parser = CommandParser(
        "data doubts",
        "Lists genres of the run's validation and test films that are probably wrong or missing, the most doubtful "
        "first: those to which the run, which was not trained on these films, gives the lowest probability.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run of any kind")
    parser.add_argument("--size", type=within(int, at_least(1, 10**7)), default=200, help="labels (default: 200)")
    parser.add_argument("--kind", choices=("wrong", "missing"), help="only genres that films have, or that they lack")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the .csv file to write (default: RUN/doubts.csv)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(list(arguments))
    from genre_lightning.commands.report_section import add_to_report
    from genre_lightning.evaluation.runs import open_run
    from genre_lightning.files import check_output, write_csv
    from genre_lightning.learning.doubts import find_doubts

    run = open_run(options.run, "validation").require_finished()
    out = options.out or options.run / "doubts.csv"
    if options.out is None:
        check_output(out, "the list of doubts")
    else:
        check_out(out, ".csv", run=run.files)
    found = find_doubts(run, options.size, options.kind)
    write_csv(out, [doubt.row() for doubt in found])
    if options.json:
        answer(json.dumps([doubt.row() for doubt in found]))
    else:
        _print(found)
    say(f"wrote {len(found):,} rows to {out}")
    add_to_report(
        run,
        "doubts",
        {"count": len(found), "kind": options.kind, "rows": [doubt.shown() for doubt in found[:_SHOWN]]},
    )
    return 0


def _print(found: Sequence[Doubt]) -> None:
    from rich import box
    from rich.table import Table

    from genre_lightning.evaluation.console import console_of

    table = Table(title=f"the {min(len(found), _SHOWN)} most doubtful labels", title_justify="left", box=box.ASCII)
    for head in ("film", "genre", "is probably", "score", "labels", "predicted"):
        table.add_column(head, justify="right" if head == "score" else "left", overflow="fold")
    for doubt in found[:_SHOWN]:
        names = (", ".join(doubt.labels), ", ".join(doubt.predicted))
        table.add_row(doubt.film, doubt.genre, doubt.kind, f"{doubt.score:.3f}", *names)
    console_of(sys.stdout).print(table)
