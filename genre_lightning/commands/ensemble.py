"""`genre-lightning ensemble`: the weighted mean of several runs as a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from genre_lightning.bounds import SEED
from genre_lightning.commands.arguments import CommandParser, within


def ensemble(arguments: Sequence[str]) -> int:
    """Fit the weights on validation, evaluate on validation and test, and leave a run directory."""
    parser = CommandParser("ensemble", "Averages the probabilities of runs with weights fitted on validation.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="directories of finished runs, two or more")
    parser.add_argument("--run_dir", type=Path, required=True, help="directory of the ensemble, made if needed")
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="of thresholds and bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(list(arguments))
    from genre_lightning.evaluation.ensemble import write_ensemble
    from genre_lightning.progress import say
    from genre_lightning.runs import RunDirectory
    from genre_lightning.training.resume import finish, locked, show, stored_results

    run = RunDirectory(options.run_dir.expanduser().absolute())
    with ExitStack() as until_the_end:
        weights = write_ensemble(
            run.path, options.runs, seed=options.seed, before_writing=lambda: until_the_end.enter_context(locked(run))
        )
        finish(run)
    for path, weight in weights.items():
        say(f"weight {weight:.3f}  {path}")
    show(run, stored_results(run), as_json=options.json)
    return 0
