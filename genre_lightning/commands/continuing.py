"""How a command that makes a run goes on in its directory: configuration, lock, films, and what is already done."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from genre_lightning.commands.build import is_first_rank
from genre_lightning.data.datamodule import PreparedFilms
from genre_lightning.distributed.slurm import lock_patience
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.console import print_headlines
from genre_lightning.evaluation.ensemble import KIND as ENSEMBLE
from genre_lightning.evaluation.report import write_report
from genre_lightning.files import read_json, write_json
from genre_lightning.runs import RunDirectory

EVALUATED = ("validation", "test")


def with_run_config(arguments: Sequence[str], kind: str = "fit") -> list[str]:
    """Puts the run's own configuration in front where no other is named: a run directory alone is enough to go on.

    Args:
        arguments: of the command.
        kind: of the runs that the command can go on with: "fit", "baseline tfidf_nb", …

    Raises:
        ConfigError: the directory holds a run of another kind.
    """
    words = list(arguments)
    named = any(word in ("--config", "-c") or word.startswith("--config=") for word in words)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--run_dir":
            run = RunDirectory(Path(value if equals else words[place + 1] if place + 1 < len(words) else ""))
            if run.config.is_file():
                _check_kind(run, kind)
                return words if named else ["--config", str(run.config), *words]
    return words


def _check_kind(run: RunDirectory, kind: str) -> None:
    try:
        settings = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # the parser's message names the line
    found = kind_of(settings if isinstance(settings, dict) else {})
    if found != kind:
        raise ConfigError(
            f"{run.path} holds a run of 'genre-lightning {found}': use that command, or name another --run_dir"
        )


def kind_of(settings: Mapping[str, Any]) -> str:
    """The command that made a run, "fit" or "ensemble" or "baseline tfidf_nb", by its settings."""
    if ENSEMBLE in settings:
        return "ensemble"
    return f"baseline {settings['baseline']}" if "baseline" in settings else "fit"


def default_run_dir(arguments: Sequence[str]) -> Path:
    """`runs/NAME` after the first configuration file that the arguments name."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c") and (equals or place + 1 < len(arguments)):
            return Path("runs") / Path(value if equals else arguments[place + 1]).stem
    return Path("runs/default")


def locked(run: RunDirectory) -> AbstractContextManager[Any]:
    """Keeps a second command out of the run directory; only the first rank holds the lock."""
    return run.locked(lock_patience()) if is_first_rank() else nullcontext()


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
    if is_first_rank() and (anew or run.status in ("new", "training")):
        # these are asked of one call: kept, they would hold for every later one
        run.write_config(re.sub(r"^(override|json): true$", r"\1: false", config_text, flags=re.MULTILINE))
        write_json(run.audit, data.audit)
        run.set_status("training" if anew else run.status, data=now)


def stored_results(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """What metrics.json of each split of a finished run holds."""
    return {split: read_json(run.evaluation(split).metrics) for split in EVALUATED}


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
