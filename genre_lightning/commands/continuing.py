"""How a command that makes a run goes on in its directory: configuration, lock, films, and what is already done."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genre_lightning.commands.build import is_first_rank, tell
from genre_lightning.data.datamodule import PreparedFilms
from genre_lightning.distributed.slurm import lock_patience
from genre_lightning.errors import CheckpointError, ConfigError, DataError, one_line
from genre_lightning.evaluation.console import print_headlines
from genre_lightning.evaluation.report import write_report
from genre_lightning.evaluation.runs import Run
from genre_lightning.files import remove_temporaries, restore_folder, write_json
from genre_lightning.runs import RunDirectory

EVALUATED = ("validation", "test")


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Keep a second command out of the run directory, and remove what killed ones have left; rank 0 holds the lock."""
    if not is_first_rank():
        yield
        return
    with run.locked(lock_patience()):
        remove_temporaries(run.path)
        for name in EVALUATED:
            restore_folder(run.evaluation(name).path)
        yield


def begin(run: RunDirectory, config_text: str, data: PreparedFilms, file: Path, *, override: bool, anew: bool) -> None:
    """Checks the films against those that the run was started with, and notes configuration and audit in it.

    Args:
        run: a directory that the command may write in.
        config_text: the resolved configuration.
        data: the films.
        file: that they are of, for messages.
        override: go on although they are others.
        anew: settings have changed, so that what the run has noted is no longer so.

    Raises:
        ConfigError: the run was started with other films.
    """
    before = run.facts().get("data")
    now = {"films": data.films.digest, "splits": {name: split.sha256 for name, split in data.splits.items()}}
    if before and before != now and not override:
        raise ConfigError(
            f"{run.path} was started with other films than {file} gives: "
            "give the file that it was started with, name another --run_dir, or go on with this one by --override"
        )
    anew = anew or before != now
    if is_first_rank() and not run.audit.is_file():
        write_json(run.audit, data.audit)
    if is_first_rank() and (anew or run.status in ("new", "training")):
        # these are asked of one call: kept, they would hold for every later one
        run.write_config(re.sub(r"^(override|json): true$", r"\1: false", config_text, flags=re.MULTILINE))
        write_json(run.audit, data.audit)
        run.set_status("training" if anew else run.status, data=now)


def stored_results(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """Read the metrics of each split of a finished run, and check that its decision and evaluations are whole.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    opened = Run(run.path)
    results = {}
    genres = opened.decision.genres
    for split in EVALUATED:
        results[split] = opened.metrics(split)
        opened.predictions(split).predictions.require_genres(genres)
        opened.genre_rows(split)
        opened.threshold_rows(split)
    return results


def finished_results(run: RunDirectory) -> dict[str, dict[str, Any]] | None:
    """Give the stored results of a run that is finished and whole; None for one that is to be evaluated."""
    if run.status != "finished":
        return None
    try:
        results = stored_results(run)
    except (CheckpointError, DataError) as error:
        tell(f"{one_line(error).partition(': run ')[0]}: evaluating {run.path} again")
        return None
    tell(f"{run.path} is finished: all is done. Its metrics:")
    return results


def finish(run: RunDirectory) -> None:
    """Writes the page about an evaluated run, and notes that all is done."""
    write_report(run.path)
    run.set_status("finished")


def show(run: RunDirectory, results: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    """Prints the results of a run."""
    if as_json:
        print(json.dumps({"run_dir": str(run.path), **results}))
        return
    for result in results.values():
        print_headlines(result, sys.stdout)
    print(f"\nresults in {run.path}, to be read in {run.report.name}")
