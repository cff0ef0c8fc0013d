"""`genre-lightning demo`: the service and its page on a small run of the embedded sample, trained at the first call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.commands.serve import add_serve_options, require_packages, run_service
from genre_lightning.files import check_folder
from genre_lightning.progress import say

_TEXT = "{title}. {overview}"
_UNLABELLED_FILMS = 100
_QUEUED = 30


def demo(arguments: Sequence[str]) -> int:
    """Train the run of the quickstart if it is not there, then serve it."""
    parser = CommandParser(
        "demo",
        "Serves a small run on the embedded sample, with a queue of films to label. The first call trains it, which "
        "takes a few minutes; nothing is downloaded.",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("genre-lightning-demo"), help="of its files (default: genre-lightning-demo)"
    )
    add_serve_options(parser)
    options = parser.parse_args(list(arguments))
    require_packages()
    check_folder(options.folder, "--folder")
    options.run = options.folder / "run"
    options.queue = options.queue or options.folder / "queue.csv"
    _prepare(options.folder, options.queue)
    return run_service(options)


def _prepare(folder: Path, queue: Path) -> None:
    """Write the sample, train the run and choose films to label; what is there already stays."""
    from genre_lightning.commands.queue import queue as make_queue
    from genre_lightning.data.sample.generate import write_sample
    from genre_lightning.runs import RunDirectory

    folder.mkdir(parents=True, exist_ok=True)
    sample, new = folder / "sample.csv", folder / "new_films.csv"
    if not sample.exists():
        write_sample(sample)
    run = RunDirectory(folder / "run")
    if not run.config.is_file() or run.status != "finished":
        say(f"training a small run in {run.path}: this takes a few minutes")
        from genre_lightning.training.api import train

        train("quickstart", csv=sample, run_dir=run.path, options={"data.text": _TEXT})
    if not queue.exists():
        write_sample(new, films=_UNLABELLED_FILMS, seed=1)
        make_queue([
            str(run.path), "--data.csv", str(new), "--size", str(_QUEUED), "--out", str(queue), "--other_ids",
        ])  # fmt: skip
