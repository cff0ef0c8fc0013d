"""`genre-lightning baseline`: models that count words, on the same films and judged in the same way as any other."""

from __future__ import annotations

from collections.abc import Sequence

from genre_lightning.commands.checked import parse_checked_baseline
from genre_lightning.compat import import_lightning
from genre_lightning.config.words import default_run_dir, with_run_config
from genre_lightning.models.tfidf import BASELINES


def tfidf_nb(arguments: Sequence[str]) -> int:
    """Train TF-IDF and naive Bayes."""
    return _run("tfidf_nb", arguments)


def tfidf_logreg(arguments: Sequence[str]) -> int:
    """Train TF-IDF and logistic regression."""
    return _run("tfidf_logreg", arguments)


def _run(name: str, arguments: Sequence[str]) -> int:
    words = with_run_config(arguments, f"baseline {name}")
    config, parser = parse_checked_baseline(name, BASELINES[name], words, default_run_dir(words))
    import_lightning()
    # these load torch, which takes seconds
    from genre_lightning.training.baseline import fit_baseline
    from genre_lightning.training.resume import show

    run, results = fit_baseline(config, parser)
    show(run, results, as_json=config.json)
    return 0
