"""`genre-lightning fit`: train and evaluate a run, or resume it from where an earlier start stopped."""

from __future__ import annotations

from collections.abc import Sequence

from genre_lightning.commands.checked import parse_checked
from genre_lightning.commands.continued import corrections_for, show_against_parent
from genre_lightning.compat import import_lightning
from genre_lightning.config.continuation import continued_words
from genre_lightning.config.sweep import sweep_run_id
from genre_lightning.config.words import default_run_dir


def fit(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    with continued_words(arguments) as words:
        config, parser = parse_checked("fit", words, default_run_dir(arguments), in_rounds=True)
    import_lightning()
    if config.self_training.rounds > 1:
        from genre_lightning.commands.fit_rounds import fit_rounds

        return fit_rounds(config, parser)
    # these load torch, which takes seconds
    from genre_lightning.distributed.ranks import is_first_rank
    from genre_lightning.training.fit import fit_run
    from genre_lightning.training.resume import show

    trial = None
    if sweep_run_id() is not None:
        from genre_lightning.training.trial import of_sweep

        trial = of_sweep(config.checkpoint.monitor)
    run, results = fit_run(config, parser, corrections_for(config, parser), trial)
    if not is_first_rank():
        return 0
    show(run, results, as_json=config.json)
    return show_against_parent(run, config)
