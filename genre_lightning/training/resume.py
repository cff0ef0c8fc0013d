"""How a command resumes a run in its directory: configuration, lock, films, and what is already done."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genre_lightning.config.changes import decision_changes, with_decision_of
from genre_lightning.data.films import READING_VERSION
from genre_lightning.data.kept_splits import KeptSplits, read_if_there
from genre_lightning.data.prepare import PreparedFilms
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.slurm import lock_patience
from genre_lightning.errors import CheckpointError, ConfigError, DataError, GenreLightningError, one_line
from genre_lightning.evaluation.against_parent import read_against_parent
from genre_lightning.evaluation.console import print_headline, print_headlines
from genre_lightning.evaluation.report import write_report
from genre_lightning.evaluation.runs import Run
from genre_lightning.files import read_json, remove_temporaries, replacing, restore_folder, write_json
from genre_lightning.run_state import FilmsOfRun
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
        run.check_links()
        for name in EVALUATED:
            restore_folder(run.evaluation(name).path)
        yield


def kept_splits(run: RunDirectory) -> KeptSplits | None:
    """Return the splits of a run that has been trained, on whose sides its films stay; None for another run."""
    return read_if_there(run.splits) if run.has_trained else None


def check_films(run: RunDirectory, data: PreparedFilms, file: Path, *, override: bool | None) -> bool:
    """Check the films against those that the run was started with.

    Args:
        run: The directory.
        data: The films.
        file: File that holds them, for messages.
        override: Accept others, if no film of a run that has been trained moves to another side; None for a command
            that evaluates the run, and so never does.

    Returns:
        Whether they are others.

    Raises:
        ConfigError: They are, and `override` is not set or films would move.
    """
    before, now = run.read_state().data, films_of(data)
    if before is None or before == now:
        return before != now
    if before.reading != now.reading and before.splits == now.splits and _same_genres(run, data):
        return False
    moved = run.has_trained and before.splits != now.splits
    if moved or not override:
        if override is None:
            way_on = ", or evaluate others with 'genre-lightning evaluate RUN --data.csv FILE'"
        else:
            way_on = "" if moved else ", or use --override to train this one with them"
        raise ConfigError(
            f"{run.path} was started with other films than {file} gives: "
            f"give the file that it was started with, or name another --run_dir{way_on}"
        )
    return True


def _same_genres(run: RunDirectory, data: PreparedFilms) -> bool:
    """Return whether the splits have the genres that an earlier version read, whose digests of films are others."""
    return run.audit.is_file() and read_json(run.audit).get("splits") == data.audit["splits"]


def films_of(data: PreparedFilms) -> FilmsOfRun:
    """Return what a run notes of its films."""
    return FilmsOfRun(data.films.digest, READING_VERSION, {name: split.sha256 for name, split in data.splits.items()})


def begin(run: RunDirectory, config_text: str, data: PreparedFilms, *, anew: bool) -> None:
    """Write configuration, audit and splits into a run directory, once everything has been checked.

    Args:
        run: A directory that the command may write in.
        config_text: The resolved configuration.
        data: The films.
        anew: Settings or films have changed, so that what is noted in the run no longer holds.
    """
    if not is_first_rank():
        return
    starts = anew or run.status in ("new", "training")
    if not starts and (changes := decision_changes(run, config_text)):
        tell(f"fitting the decision again ({'; '.join(changes)})")
        # the status first: cut off in between, the run is evaluated by its next command
        run.set_status("evaluating")
        run.write_config(with_decision_of(run, config_text))
    if anew and run.config.is_file():
        # a rank that is late sees no change in what is written next, and is not to take the run for a finished one
        run.set_status("training")
    if starts:
        # first, as a folder with other files and no configuration is not a run: ranks that are late may look at it now.
        # These options are asked of one call: kept, they would hold for every later one
        run.write_config(
            re.sub(r"^(override|json|require_no_worse): true$", r"\1: false", config_text, flags=re.MULTILINE)
        )
    if starts or not run.audit.is_file():
        write_json(run.audit, data.audit)
    if starts or not run.splits.is_file():
        data.sides.write(run.splits)
    if starts:
        run.set_status("training" if anew else run.status, data=films_of(data))


@contextmanager
def undone_if_refused(run: RunDirectory) -> Iterator[None]:
    """Leave a run directory as it was if what is done within is refused: exit status 2 means that nothing has changed.

    What can be checked beforehand is; whether a checkpoint fits the model is known only once both are loaded.
    """
    if not is_first_rank():
        yield
        return
    there = set(run.path.iterdir())
    written = (run.config, run.audit, run.state, run.splits, run.curves)
    notes = {path: path.read_bytes() for path in written if path.is_file()}
    checkpoints = _stamps(run)
    try:
        yield
    except GenreLightningError as error:
        if error.exit_status == ConfigError.exit_status and _stamps(run) == checkpoints:
            for path in set(run.path.iterdir()) - there:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            for path, content in notes.items():
                if not path.is_file() or path.read_bytes() != content:
                    with replacing(path) as temporary:
                        temporary.write_bytes(content)
        raise


def _stamps(run: RunDirectory) -> dict[Path, int]:
    """Return when each checkpoint was last written: a step that is kept is not undone."""
    return {path: path.stat().st_mtime_ns for path in run.checkpoints.glob("*.ckpt")}


def stored_results(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """Read the metrics of each split of a finished run, and check that its decision and evaluations are whole.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    opened = Run(run.path)
    results = {}
    genres = opened.decision.genres
    thresholds = dict(zip(genres, opened.decision.threshold_per_genre.tolist(), strict=True))
    for split in EVALUATED:
        results[split] = opened.metrics(split)
        opened.predictions(split).predictions.require_genres(genres)
        if {row["genre"]: float(row["threshold"] or "nan") for row in opened.genre_rows(split)} != thresholds:
            raise CheckpointError(f"the evaluation of {split} is of another decision: {run.again}")
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
    """Write the page about an evaluated run, and note that all is done."""
    write_report(run.path)
    run.set_status("finished")


def as_shown(run: RunDirectory, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the results of a run as `--json` prints them."""
    against = read_against_parent(run)
    return {"run_dir": str(run.path), **results, **({"against_parent": against} if against else {})}


def show(run: RunDirectory, results: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    """Print the results of a run."""
    if as_json:
        print(json.dumps(as_shown(run, results)))
        return
    for result in results.values():
        print_headlines(result, sys.stdout)
    if "test" in results:
        print_headline(results["test"], sys.stdout)
    print(f"results in {run.path}, to be read in {run.report.name}")
