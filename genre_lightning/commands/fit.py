"""`genre-lightning fit`: train and evaluate a run, or resume it where an earlier start stopped."""

from __future__ import annotations

from collections.abc import Sequence

from genre_lightning.commands.checked import parse_checked
from genre_lightning.config.continuation import continued_words
from genre_lightning.config.words import default_run_dir


def fit(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    with continued_words(arguments) as words:
        config, parser = parse_checked("fit", words, default_run_dir(arguments))
    # these load torch, which takes seconds
    from genre_lightning.distributed.ranks import is_first_rank
    from genre_lightning.training.fit import fit_run
    from genre_lightning.training.resume import show

    run, results = fit_run(config, parser)
    if is_first_rank():
        show(run, results, as_json=config.json)
    return 0
