"""`genre-lightning fit`: train and evaluate a run, or resume it where an earlier start stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genre_lightning.commands.checked import parse_checked, run_of
from genre_lightning.config.continuation import ContinueOptions, continued_words
from genre_lightning.config.sweep import sweep_run_id
from genre_lightning.config.words import default_run_dir


def fit(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    with continued_words(arguments) as words:
        config, parser = parse_checked("fit", words, default_run_dir(arguments))
    # these load torch, which takes seconds
    from genre_lightning.distributed.ranks import is_first_rank
    from genre_lightning.evaluation.against_parent import is_worse, print_against_parent, read_against_parent, verdict
    from genre_lightning.learning.votes import corrections_of
    from genre_lightning.progress import say
    from genre_lightning.training.fit import fit_run
    from genre_lightning.training.resume import show

    corrections = None
    if config.feedback is not None and not run_of(config).corrections.is_file():
        corrections = corrections_of(config.feedback, ContinueOptions(**vars(config["continue"])))
    trial = None
    if sweep_run_id() is not None:
        from genre_lightning.training.trial import of_sweep

        trial = of_sweep(config.checkpoint.monitor)
    run, results = fit_run(config, parser, corrections, trial)
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
