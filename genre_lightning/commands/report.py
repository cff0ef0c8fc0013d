"""`genre-lightning report`: makes the page about a run again, and the paper's tables of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.commands.arguments import CommandParser


def report(arguments: Sequence[str]) -> int:
    """Write report.html, or paper.html with --paper, into the run directory; prints its path."""
    parser = CommandParser("report", "Makes report.html of a run again, from the run's own files.")
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="write paper.html instead: the paper's Tables I and II beside its published values",
    )
    options = parser.parse_args(list(arguments))
    from genre_lightning.evaluation.paper import write_paper_report
    from genre_lightning.evaluation.report import write_report
    from genre_lightning.evaluation.runs import open_run
    from genre_lightning.files import check_folder
    from genre_lightning.training.resume import locked

    run = open_run(options.run).require_finished()
    check_folder(options.run, "RUN")
    with locked(run.files):
        print(write_paper_report(options.run) if options.paper else write_report(options.run))
    return 0
