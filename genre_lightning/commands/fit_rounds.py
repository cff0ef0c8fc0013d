"""`genre-lightning fit` with `self_training.rounds`: one run after the other, each the teacher of the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.commands.continued import corrections_for, show_against_parent
from genre_lightning.config.changes import check_same_training
from genre_lightning.config.rounds import of_round
from genre_lightning.distributed.launch import has_company
from genre_lightning.errors import ConfigError
from genre_lightning.lineage import read_lineage
from genre_lightning.progress import answer_json, say
from genre_lightning.runs import RunDirectory
from genre_lightning.training.fit import fit_run
from genre_lightning.training.resume import as_shown, show
from genre_lightning.training.setup import check_setup

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def fit_rounds(config: Namespace, parser: ArgumentParser) -> int:
    """Train the rounds that are not finished; return the exit status.

    With `--require_no_worse`, a round that is worse than its parent is the last.

    Raises:
        ConfigError: Several processes were started for it, or a directory of a round holds something else.
        ConfigError, DataError, CheckpointError: See `fit_run`.
    """
    place, count = Path(config.run_dir).expanduser().absolute(), config.self_training.rounds
    if has_company():
        raise ConfigError(
            f"self_training.rounds is {count}, and rounds are trained in one process: start the command without "
            "torchrun or srun, or train each round by its own command, with --continue_from the round before it"
        )
    rounds = [of_round(config, place, number) for number in range(1, count + 1)]
    _check(rounds, parser)
    shown = []
    status = 0
    for number, own in enumerate(rounds, start=1):
        say(f"round   {number} of {count}: {own.run_dir}")
        run, results = fit_run(own, parser, corrections_for(own, parser))
        if config.json:
            shown.append(as_shown(run, results))
        else:
            show(run, results, as_json=False)
        if status := show_against_parent(run, config):
            break
    if config.json:
        answer_json({"run_dir": str(place), "rounds": shown})
    return status


def _check(rounds: list[Namespace], parser: ArgumentParser) -> None:
    """Refuse, before anything is trained, what would stop a later round.

    Raises:
        ConfigError: The directory of a round holds other files, or a run with other settings or of another parent.
        CheckpointError: A file of a run in it is damaged.
    """
    for own in rounds[1:]:
        run = RunDirectory(own.run_dir)
        run.check_writable()
        if run.config.is_file():
            check_same_training(run, check_setup(own, parser).config_text, override=own.override)
        lineage = read_lineage(run.lineage)
        if lineage is not None and Path(lineage.run) != own.continue_from:
            raise ConfigError(f"{run.path} continues from {lineage.run}: name another --run_dir")
