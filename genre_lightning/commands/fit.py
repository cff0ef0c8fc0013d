"""`genre-lightning fit`: train and evaluate a run, or resume it where an earlier start stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genre_lightning.commands.checked import parse_checked, run_of
from genre_lightning.config.continuation import ContinueOptions, SelfTrainingOptions, continued_words
from genre_lightning.config.parser import make_options
from genre_lightning.config.sweep import sweep_run_id
from genre_lightning.config.words import default_run_dir

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from genre_lightning.data.corrections import Correction


def fit(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    with continued_words(arguments) as words:
        config, parser = parse_checked("fit", words, default_run_dir(arguments))
    # these load torch, which takes seconds
    from genre_lightning.distributed.ranks import is_first_rank
    from genre_lightning.evaluation.against_parent import is_worse, print_against_parent, read_against_parent, verdict
    from genre_lightning.progress import say
    from genre_lightning.training.fit import fit_run
    from genre_lightning.training.resume import show

    trial = None
    if sweep_run_id() is not None:
        from genre_lightning.training.trial import of_sweep

        trial = of_sweep(config.checkpoint.monitor)
    run, results = fit_run(config, parser, _corrections(config, parser), trial)
    if not is_first_rank():
        return 0
    show(run, results, as_json=config.json)
    against = read_against_parent(run)
    if against is None:
        return 0
    if not config.json:
        print_against_parent(against, sys.stdout)
    if config.require_no_worse and is_worse(against):
        say(f"{run.path} is {verdict(against)}")
        return 1
    return 0


def _corrections(config: Namespace, parser: ArgumentParser) -> list[Correction] | None:
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
