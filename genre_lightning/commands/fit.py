"""`genre-lightning fit`: train and evaluate a run, or resume it where an earlier start stopped."""

from __future__ import annotations

from collections.abc import Sequence

from genre_lightning.commands.words import default_run_dir, with_run_config
from genre_lightning.distributed.ranks import is_first_rank
from genre_lightning.training.fit import fit_run
from genre_lightning.training.parser import parse
from genre_lightning.training.resume import show


def fit(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config, parser = parse("fit", with_run_config(arguments))
    if config.run_dir is None:
        config.run_dir = default_run_dir(arguments)
    run, results = fit_run(config, parser)
    if is_first_rank():
        show(run, results, as_json=config.json)
    return 0
