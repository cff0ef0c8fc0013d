"""Metrics by language: how well a run tags the films of each language that has enough of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.metrics import policy_metrics, threshold_free_metrics
from genre_lightning.shapes import Shape, count, maybe_number, text

FEWEST_FILMS = 30
"""Of a language with a row of its own: the metrics of fewer films are noise."""
MOST_LANGUAGES = 20
NO_LANGUAGE = "(none)"

SHAPE: Shape = {
    "language": text, "languages": count, "films": count, "f1_micro": maybe_number, "f1_low?": maybe_number,
    "f1_high?": maybe_number, "map_macro": maybe_number,
}  # fmt: skip
"""Of an entry of `languages` in metrics.json."""


def language_rows(scored: ScoredSplit, *, seed: int = 0, resamples: int = 0) -> list[dict[str, Any]]:
    """Return a row for each language, the most frequent first, and one for those of too few films together.

    Args:
        scored: Films with their languages, and the decision on them.
        seed: Of the bootstrap.
        resamples: Of the bootstrap for the interval of micro-F1; 0 for none.

    Returns:
        Language (such as "en", or "other"), languages that the row stands for, films, f1_micro by a threshold for each
        genre with its interval f1_low and f1_high, and map_macro; nothing if there are no languages, or one alone.
    """
    if scored.predictions.languages is None:
        return []
    names = np.array([name or NO_LANGUAGE for name in scored.predictions.languages], dtype=object)
    order = sorted(Counter(names.tolist()).items(), key=lambda entry: (-entry[1], entry[0]))
    own = [name for name, films in order if films >= FEWEST_FILMS][:MOST_LANGUAGES]
    others = [name for name, _ in order if name not in own]
    groups = [(name, 1, names == name) for name in own]
    if others:
        groups.append(("other", len(others), np.isin(names, others)))
    return [_row(scored, *group, seed, resamples) for group in groups] if len(groups) > 1 else []


def _row(
    scored: ScoredSplit, name: str, languages: int, films: NDArray[np.bool_], seed: int, resamples: int
) -> dict[str, Any]:
    labels, decided = scored.labels[films], scored.judged[SHIPPED_POLICY][films]
    known = None if scored.known is None else scored.known[films]
    f1 = policy_metrics(labels, decided, known)["f1_micro"]
    row = {"language": name, "languages": languages, "films": int(films.sum()), "f1_micro": f1}
    if resamples:
        row["f1_low"], row["f1_high"] = bootstrap.interval_of(
            lambda weights: bootstrap.policy_samples(labels, decided, weights, known)["f1_micro"],
            np.array(f1), len(labels), resamples, seed,
        ).tolist()  # fmt: skip
    free = threshold_free_metrics(labels, scored.probabilities[films], known=known)
    return {**row, "map_macro": free["map_macro"]}
