"""Drift: whether new films are unlike those that a run was evaluated on, in their texts, genres or labels.

The reference are the run's validation films, which it was not trained on. Each difference has a test, its p-values are
corrected for the number of tests (Holm, 1979), and it counts only if it is also large enough to matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import chi2, fisher_exact, norm, poisson

from genre_lightning.data.cells import MAX_CELL_CHARACTERS
from genre_lightning.data.familiarity import Familiar, words_in
from genre_lightning.evaluation.bootstrap import film_weights, holm, threshold_free_samples
from genre_lightning.metrics import BoolArray, FloatArray, IntArray

Advice = Literal["nothing", "refit thresholds", "continue training"]

PSI_BINS = 10
LARGE_PSI = 0.25
"""Above it a shift is commonly called large, above 0.1 moderate."""

_UNLIKE_MORE = 0.02
"""Additional fraction of texts unlike those of the reference that counts."""
_NEW_GENRE = 0.02
"""Fraction of the labelled films with a genre that the run does not know that counts, if they are not too few."""
_RATE_RATIO = 1.25
"""Ratio of predicted rates, or of observed to expected positives, that counts, either way."""
_FEW = 10.0
"""Variance of a count of films below which it is not taken for normal."""
_AUROC_LOSS = 0.02
_AUROC_UNKNOWN = 0.05
"""A loss of AUROC that labels must rule out before drift of the texts is ignored."""
_FEWEST_POSITIVES = 5
"""Films with a genre, in either set, for its ranking to be compared, or for a genre to be news."""
_RESAMPLES = 200


@dataclass(frozen=True)
class Check:
    """A comparison of the new films with the reference.

    Attributes:
        name: What is compared: a measure of texts, or a genre.
        reference: Value of the reference.
        new: Value of the new films.
        effect: How far they differ: a PSI, a difference of fractions, or a ratio.
        p: Of the test, corrected for all tests of its kind.
        drifted: Whether the difference is significant and large.
        interval: Of `new - reference`, 95%; None for other effects.
    """

    name: str
    reference: float
    new: float
    effect: float
    p: float
    drifted: bool
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Drift:
    """What differs, and what to do about it.

    Attributes:
        films: New films.
        reference_films: Films of the reference.
        labelled: New films with labels.
        inputs: Lengths, unknown words, and unlike texts.
        genres: Predicted rates of each genre.
        calibration: Observed and expected positives of each genre, of the labelled films.
        auroc: Macro AUROC of the reference and of the labelled films; None without enough of them.
        auroc_interval: Of their difference, 95%.
        new_genres: Labelled films of each genre that the run does not know, the most frequent one first.
        advice: What to do.
        why: The reason.
    """

    films: int
    reference_films: int
    labelled: int
    inputs: list[Check]
    genres: list[Check]
    calibration: list[Check] = field(default_factory=list)
    auroc: tuple[float, float] | None = None
    auroc_interval: tuple[float, float] | None = None
    new_genres: Mapping[str, int] = field(default_factory=dict)
    advice: Advice = "nothing"
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give what JSON holds."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Tagged:
    """Films as a run sees them.

    Attributes:
        texts: That the run reads.
        probabilities: Calibrated, (films, genres).
        decided: Genres, bool (films, genres).
        labels: The truth, bool (films, genres).
        known: Labels of them that are known; None for all.
        labelled: Whether the truth of a film is known, bool (films,).
        new_genres: Films of each genre that the run does not know.
    """

    texts: Sequence[str]
    probabilities: FloatArray
    decided: BoolArray
    labels: BoolArray
    labelled: BoolArray
    known: BoolArray | None = None
    new_genres: Mapping[str, int] = field(default_factory=dict)


def find_drift(genres: Sequence[str], reference: Tagged, new: Tagged, *, level: float = 0.05, seed: int = 0) -> Drift:
    """Compare new films with the reference, and give advice.

    Args:
        genres: Names of the columns.
        reference: Films that the run was not trained on, with labels.
        new: Other films.
        level: Significance level of the corrected tests.
        seed: Random seed of the bootstrap.
    """
    inputs = compare_texts(reference.texts, new.texts, level)
    rates = compare_rates(genres, reference.decided, new.decided, level)
    calibration: list[Check] = []
    auroc = interval = None
    if new.labelled.any():
        truth, likely = new.labels[new.labelled], new.probabilities[new.labelled]
        known = None if new.known is None else new.known[new.labelled]
        calibration = compare_calibration(genres, truth, likely, level, known)
        auroc, interval = compare_ranking(
            reference.labels, reference.probabilities, truth, likely, seed, reference.known, known
        )
    new_genres = dict(sorted(new.new_genres.items(), key=lambda item: (-item[1], item[0])))
    counts = len(new.texts), len(reference.texts), int(new.labelled.sum())
    found = Drift(*counts, inputs, rates, calibration, auroc, interval, new_genres)
    advice, why = _advise(found)
    return replace(found, advice=advice, why=why)


def _advise(found: Drift) -> tuple[Advice, str]:
    low, high = found.auroc_interval or (-1.0, 1.0)
    before, now = found.auroc or (0.0, 0.0)
    if high < 0 and before - now >= _AUROC_LOSS:
        ranking = f"AUROC {now:.3f}, was {before:.3f}"
        return "continue training", f"the run ranks genres worse than on validation ({ranking})"
    enough = max(_NEW_GENRE * found.labelled, _FEWEST_POSITIVES)
    if frequent := [name for name, films in found.new_genres.items() if films >= enough]:
        return "continue training", f"films have genres that the run does not know ({_some(frequent)})"
    # other texts do no harm if labels show that they are ranked as well
    texts_matter = low < -_AUROC_UNKNOWN
    if texts_matter and (texts := [check.name for check in found.inputs if check.drifted]):
        return "continue training", f"the texts are unlike those of validation ({', '.join(texts)})"
    if found.calibration:
        if wrong := [check.name for check in found.calibration if check.drifted]:
            return "refit thresholds", f"observed genres differ from the probabilities ({_some(wrong)})"
        return "nothing", "the probabilities fit the labels that have arrived"
    if changed := [check.name for check in found.genres if check.drifted]:
        return "refit thresholds", f"predicted rates have changed ({_some(changed)}); labels would show whether rightly"
    return "nothing", "texts and predicted genres are like those of validation"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def population_stability(reference: FloatArray, new: FloatArray) -> tuple[float, float]:
    """Give the population stability index, and the p-value that it is 0.

    Bins are deciles of the reference, and each count gets the bin's fraction of all films more, so that none is 0. If
    nothing has changed, PSI / (1/n + 1/m) is about chi-squared with bins - 1 degrees of freedom (Yurdakul and
    Naranjo, 2020).

    Args:
        reference: (n,).
        new: (m,).
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    bins = [np.searchsorted(edges, values, side="left") for values in (reference, new)]
    counts = np.array([np.bincount(places, minlength=len(edges) + 1) for places in bins], dtype=np.float64)
    counts = counts[:, counts.any(axis=0)]
    counts += counts.sum(axis=0) / counts.sum()
    before, now = counts / counts.sum(axis=1, keepdims=True)
    psi = float(((now - before) * np.log(now / before)).sum())
    return psi, float(chi2.sf(psi / (1 / len(reference) + 1 / len(new)), max(counts.shape[1] - 1, 1)))


def compare_texts(reference: Sequence[str], new: Sequence[str], level: float) -> list[Check]:
    """Compare lengths, the fraction of words that are unknown, and the fraction of texts in another language."""
    # words of every other text are those known, and the other texts are compared with the new ones
    known = {word for text in reference[::2] for word in words_in(text)}
    familiar = Familiar.of_texts(reference)
    (old_lengths, old_unknown), (new_lengths, new_unknown) = (_measured(texts, known) for texts in (reference, new))
    pairs = [
        ("length in words", old_lengths, new_lengths),
        ("fraction of unknown words", old_unknown[1::2], new_unknown),
    ]
    stability = [population_stability(before, now) for _, before, now in pairs]
    unlike = [np.array([familiar.unlike(text[:MAX_CELL_CHARACTERS]) for text in texts]) for texts in (reference, new)]
    p = holm([*(p for _, p in stability), _rates_p(*unlike)])
    checks = []
    for place, ((name, was, now), (psi, _)) in enumerate(zip(pairs, stability, strict=True)):
        drifted = bool(p[place] < level and psi > LARGE_PSI)
        checks.append(Check(name, float(was.mean()), float(now.mean()), psi, float(p[place]), drifted))
    was_unlike, now_unlike = (float(flags.mean()) for flags in unlike)
    change = now_unlike - was_unlike
    drifted = bool(p[-1] < level and change > _UNLIKE_MORE)
    return [
        *checks,
        Check("texts in another language", was_unlike, now_unlike, change, float(p[-1]), drifted, _interval(*unlike)),
    ]


def _measured(texts: Iterable[str], known: set[str]) -> tuple[FloatArray, FloatArray]:
    """Return the length of each text in words, and the fraction of its words that are unknown."""
    lengths, unknown = [], []
    for text in texts:
        words = words_in(text[:MAX_CELL_CHARACTERS])
        lengths.append(len(words))
        unknown.append(sum(word not in known for word in words) / max(len(words), 1))
    return np.array(lengths, dtype=np.float64), np.array(unknown)


def compare_rates(genres: Sequence[str], reference: BoolArray, new: BoolArray, level: float) -> list[Check]:
    """Compare how often each genre is predicted, by Fisher's exact test and Newcombe's interval."""
    p = holm([_rates_p(reference[:, place], new[:, place]) for place in range(len(genres))])
    checks = []
    for place, name in enumerate(genres):
        before, now = float(reference[:, place].mean()), float(new[:, place].mean())
        # one film more, so that a genre that was never predicted has a ratio
        ratio = (now + 1 / len(new)) / (before + 1 / len(reference))
        drifted = bool(p[place] < level and max(ratio, 1 / ratio) > _RATE_RATIO)
        interval = _interval(reference[:, place], new[:, place])
        checks.append(Check(name, before, now, now - before, float(p[place]), drifted, interval))
    return checks


def _rates_p(reference: BoolArray, new: BoolArray) -> float:
    table = [[int(flags.sum()), int((~flags).sum())] for flags in (reference, new)]
    return float(fisher_exact(table).pvalue)


def _interval(reference: BoolArray, new: BoolArray) -> tuple[float, float]:
    """Give the 95% interval of the difference of two fractions, from Wilson's of each (Newcombe, 1998)."""
    (low, rate, high), (low_new, rate_new, high_new) = (_wilson(flags) for flags in (reference, new))
    change = rate_new - rate
    return (
        change - float(np.hypot(rate_new - low_new, high - rate)),
        change + float(np.hypot(high_new - rate_new, rate - low)),
    )


def _wilson(flags: BoolArray) -> tuple[float, float, float]:
    n, rate, z = len(flags), float(flags.mean()), float(norm.ppf(0.975))
    centre, spread = rate + z * z / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return float((centre - spread) / scale), rate, float((centre + spread) / scale)


def compare_calibration(
    genres: Sequence[str],
    labels: BoolArray,
    probabilities: FloatArray,
    level: float,
    known: BoolArray | None = None,
) -> list[Check]:
    """Compare the films that have each genre with the sum of its probabilities.

    If the probabilities are right, the number of films is nearly normal with variance sum of p (1 - p). If that is
    small, its tails are bounded by those of the Poisson distribution (Hoeffding 1956), of the films that have the genre
    or of those that lack it if they are fewer. Labels that are not known do not count.
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    films = np.full(labels.shape[1], len(labels))
    if known is not None:
        # with a probability of 0 and without the genre, a film adds nothing
        wide, labels, films = wide * known, labels & known, known.sum(axis=0)
    expected, observed = wide.sum(axis=0), labels.sum(axis=0)
    spread = np.sqrt((wide * (1 - wide)).sum(axis=0))
    # half a film of continuity correction: counts are whole
    gap = np.maximum(np.abs(observed - expected) - 0.5, 0) / np.maximum(spread, 1e-12)
    tails = np.where(spread**2 < _FEW, _poisson_tails(expected, observed, films), 2 * norm.sf(gap))
    p = holm(tails.tolist())
    ratio = (observed + 1) / (expected + 1)
    drifted = (p < level) & (np.maximum(ratio, 1 / ratio) > _RATE_RATIO)
    rates = expected / np.maximum(films, 1), observed / np.maximum(films, 1)
    return [
        Check(name, float(before), float(now), float(ratio[i]), float(p[i]), bool(drifted[i]))
        for i, (name, before, now) in enumerate(zip(genres, *rates, strict=True))
    ]


def _poisson_tails(expected: FloatArray, observed: IntArray, films: IntArray) -> FloatArray:
    """Return two-sided p-values, (genres,), of counts under the Poisson distribution."""
    common = expected > films / 2
    mean, count = np.where(common, films - expected, expected), np.where(common, films - observed, observed)
    tails = np.minimum(poisson.sf(count - 1, mean), poisson.cdf(count, mean))
    return np.minimum(2 * tails, 1.0)


def compare_ranking(
    reference: BoolArray,
    reference_probabilities: FloatArray,
    labels: BoolArray,
    probabilities: FloatArray,
    seed: int,
    known: BoolArray | None = None,
    known_labels: BoolArray | None = None,
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Compare macro AUROC, which does not depend on how frequent genres are, with a bootstrap interval.

    `known` marks the labels of the reference that are known, `known_labels` those of the new films; None for all.

    Returns:
        That of the reference and of the new films, and the 95% interval of the difference; None for too few films.
    """
    sets = ((reference, reference_probabilities, known), (labels, probabilities, known_labels))
    counts = [
        np.minimum(truth.sum(axis=0), (~truth if mask is None else mask & ~truth).sum(axis=0))
        for truth, _, mask in sets
    ]
    shared = np.minimum(*counts) >= _FEWEST_POSITIVES
    if not shared.any():
        return None, None
    figures, samples = [], []
    for number, (truth, likely, mask) in enumerate(sets):
        truth, likely, mask = truth[:, shared], likely[:, shared], None if mask is None else mask[:, shared]
        whole = np.ones((1, len(truth)), dtype=np.float32)
        figures.append(float(threshold_free_samples(truth, likely, whole, mask)["auroc_macro"][0]))
        drawn = [
            threshold_free_samples(truth, likely, weights, mask)["auroc_macro"]
            for weights in film_weights(len(truth), _RESAMPLES, seed + number)
        ]
        samples.append(np.concatenate(drawn))
    low, high = np.nanquantile(samples[1] - samples[0], (0.025, 0.975)).tolist()
    return (figures[0], figures[1]), (low, high)
