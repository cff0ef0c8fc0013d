"""What `fit` does for a run that continues from another: corrections before it, the comparison after it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from genre_lightning.commands.checked import run_of
from genre_lightning.config.continuation import ContinueOptions, SelfTrainingOptions
from genre_lightning.config.parser import make_options

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from genre_lightning.data.corrections import Correction
    from genre_lightning.runs import RunDirectory


def show_against_parent(run: RunDirectory, config: Namespace) -> int:
    """Print the comparison of a continued run with its parent; return the exit status that it gives."""
    from genre_lightning.evaluation.against_parent import is_worse, print_against_parent, read_against_parent, verdict
    from genre_lightning.progress import say

    against = read_against_parent(run)
    if against is None:
        return 0
    if not config.json:
        print_against_parent(against, sys.stdout)
    if config.require_no_worse and is_worse(against):
        say(f"{run.path} is {verdict(against)}")
        return 1
    return 0


def corrections_for(config: Namespace, parser: ArgumentParser) -> list[Correction] | None:
    """Return what a continued run learns besides its files; None for nothing, or for a run that has kept it."""
    run = run_of(config)
    if run.corrections.is_file() or run.has_trained:
        return None
    from genre_lightning.commands.feedback import print_pairs
    from genre_lightning.distributed.ranks import is_first_rank
    from genre_lightning.learning.pseudo_labels import pseudo_labels
    from genre_lightning.learning.training_labels import joined_labels, with_pseudo_labels
    from genre_lightning.learning.votes import corrections_of
    from genre_lightning.progress import say
    from genre_lightning.runs import RunDirectory

    options = ContinueOptions(**vars(config["continue"]))
    found: list[Correction] = []
    if config.labels is not None:
        found, added = joined_labels(config.labels, config.feedback, RunDirectory(config.continue_from), options)
        if is_first_rank():
            say(f"labels of {config.labels}: {added.stored:,} opinions, {len(added.conflicts):,} conflicts")
            print_pairs("changed", added.changed)
            print_pairs("conflict", added.conflicts)
    elif config.feedback is not None:
        found = corrections_of(config.feedback, options)
    data = make_options("fit", config, parser).data
    if data.unlabelled_files:
        settings = SelfTrainingOptions(**vars(config.self_training))
        found = with_pseudo_labels(found, pseudo_labels(data, RunDirectory(config.continue_from), settings))
    return found or None
