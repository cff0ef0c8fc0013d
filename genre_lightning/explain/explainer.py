"""Explainer: explain why a trained run gives a text its genres."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.errors import ConfigError
from genre_lightning.explain.attribution import LARGEST_STEPS, Attribution, Attributor
from genre_lightning.explain.words import Words
from genre_lightning.inference.model_scorer import ModelScorer
from genre_lightning.inference.scoring import BaselineScorer
from genre_lightning.inference.tagger import TaggedText, Tagger, Text
from genre_lightning.runs import ENSEMBLE, RunDirectory, kind_of, open_run

__all__ = ["Explainer", "Explanation", "GenreExplanation"]

_LEAST_NAMED = 0.005
"""Log-odds below which a word is not named: two digits are shown."""


@dataclass(frozen=True)
class GenreExplanation:
    """Why a text has a genre. Log-odds are calibrated: their sigmoid is the probability.

    Attributes:
        genre: Its name.
        probability: Probability that the text has the genre.
        threshold: Threshold of the probability; None if the genre is one of the `top_k` asked for.
        decided: Whether the run gives the text this genre.
        values: float64 (words,): log-odds that each word adds.
        log_odds: Log-odds of the text.
        baseline: Log-odds of what the text is compared with.
        error: Absolute difference between the sum of the words and `log_odds - baseline`, in log-odds.
        steps: Points of the path at which gradients were taken; 0 if the values are exact.
        inputs: Log-odds that each input of the head adds, the strongest first.
    """

    genre: str
    probability: float
    threshold: float | None
    decided: bool
    values: NDArray[np.float64]
    log_odds: float
    baseline: float
    error: float
    steps: int
    inputs: Mapping[str, float] = field(default_factory=dict)

    @property
    def change(self) -> float:
        """Log-odds that the words and inputs should add up to."""
        return self.log_odds - self.baseline

    @property
    def named_inputs(self) -> list[tuple[str, float]]:
        """The inputs that count for the genre, the strongest first."""
        return [(name, value) for name, value in self.inputs.items() if abs(value) >= _LEAST_NAMED]

    @property
    def error_share(self) -> float:
        """The error as a fraction of the change; infinite if nothing has changed."""
        if self.error == 0:
            return 0.0
        return self.error / abs(self.change) if self.change else float("inf")

    @property
    def strengths(self) -> NDArray[np.float64]:
        """Each word's value over the largest one's, float64 (words,) from -1, against, to 1, for."""
        largest = np.abs(self.values).max(initial=0.0)
        return self.values / largest if largest else np.zeros_like(self.values)

    def strongest(self, words: Words, count: int, *, against: bool = False) -> list[tuple[str, float]]:
        """Return the words that count most for or against the genre, each once, with its log-odds in all places."""
        sums: dict[str, float] = {}
        for name, value in zip(words.names, self.values.tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + value
        signed = {name: -value if against else value for name, value in sums.items()}
        order = sorted(signed, key=lambda name: -signed[name])[:count]
        return [(name, sums[name]) for name in order if signed[name] >= _LEAST_NAMED]


@dataclass(frozen=True)
class Explanation:
    """A run's prediction for a text, and why.

    Attributes:
        tagged: The text with its genres.
        text: What the model reads: the run's template, filled.
        words: Words of `text`; none if it is empty.
        read: Characters of `text` that the model reads.
        baseline: What the text is compared with, in words.
        genres: Explained: those decided or else the likeliest one, the likeliest first.
    """

    tagged: TaggedText
    text: str
    words: Words | None
    read: int
    baseline: str
    genres: tuple[GenreExplanation, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            **self.tagged.as_dict(),
            "read": self.text[: self.read],
            "baseline": self.baseline,
            "explanations": [self._genre_as_dict(genre) for genre in self.genres],
        }

    def _genre_as_dict(self, genre: GenreExplanation) -> dict[str, Any]:
        assert self.words is not None
        spans = zip(self.words.names, self.words.starts, self.words.ends, genre.values, strict=True)
        return {
            "genre": genre.genre,
            "decided": genre.decided,
            "probability": genre.probability,
            "threshold": genre.threshold,
            "log_odds": genre.log_odds,
            "baseline_log_odds": genre.baseline,
            "attribution_sum": float(genre.values.sum()) + sum(genre.inputs.values()),
            "completeness_error": genre.error,
            "completeness_error_share": genre.error_share if np.isfinite(genre.error_share) else None,
            "steps": genre.steps,
            "words": [
                {"word": name, "start": int(start), "end": int(end), "log_odds": float(value)}
                for name, start, end, value in spans
            ],
            "inputs": [{"input": name, "log_odds": value} for name, value in genre.inputs.items()],
        }


class Explainer:
    """A trained run, loaded once, in 32 bits: `Explainer("runs/distilbert")("A boy finds a map …").genres[0]`.

    Args:
        run: Directory of a run of `fit` or `baseline`.
        device: "cpu", "cuda", "cuda:1" or "mps"; None takes a GPU if there is one.
        steps: Steps of the integral, for encoders and decoders; None takes as many as it needs.
        bound: See `GradientAttributor`.
        tagger: The run, if it is loaded already; used if it computes in 32 bits.

    Raises:
        CheckpointError: The directory is not a run, or an unfinished or damaged one.
        ConfigError: A run that has no explanation, or no such device.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        device: str | None = None,
        steps: int | None = None,
        bound: float = 0.01,
        tagger: Tagger | None = None,
    ) -> None:
        if steps is not None and not 2 <= steps <= LARGEST_STEPS:
            raise ConfigError(f"steps is {steps}: give 2 to {LARGEST_STEPS:,}")
        directory = open_run(run)
        check_explainable(directory)
        exact = tagger is not None and getattr(tagger.scorer, "precision", "32-true") == "32-true"
        self.tagger = tagger if tagger and exact else Tagger(directory.path, device, precision="32-true")
        self.decision = self.tagger.decision
        self.attributor: Attributor
        scorer = self.tagger.scorer
        assert isinstance(scorer, ModelScorer | BaselineScorer)
        self.scorer = scorer
        if isinstance(scorer, BaselineScorer):
            from genre_lightning.explain.terms import TermAttributor

            if steps is not None:
                raise ConfigError(f"{run} counts words, so its explanation is exact: leave out --steps")
            self.attributor = TermAttributor(scorer.model)
        else:
            from genre_lightning.explain.gradients import GradientAttributor

            self.attributor = GradientAttributor(scorer, steps, bound)

    def __call__(self, text: Text, *, top_k: int | None = None, threshold: float | None = None) -> Explanation:
        """Explain the genres of a text: those decided, or the likeliest one if none is.

        Args:
            text: See `Tagger`.
            top_k: See `Tagger`.
            threshold: See `Tagger`.

        Raises:
            ConfigError: An impossible `top_k` or `threshold`.
        """
        return self.explain(text, self.tagger(text, top_k=top_k, threshold=threshold))

    def explain(self, text: Text, tagged: TaggedText) -> Explanation:
        """Explain the genres of a text that this run has tagged: those decided, or the most probable one.

        Args:
            text: See `Tagger`.
            tagged: Its genres.
        """
        cells = [self.tagger.cells(text)]
        filled, inputs = self.scorer.texts(cells)[0], self.scorer.inputs(cells)
        if not tagged.probabilities:
            return Explanation(tagged, filled, None, 0, self.attributor.baseline, ())
        names = tagged.names or tuple(tagged.probabilities)[:1]
        attribution = self.attribute(filled, [self.decision.genres.index(name) for name in names], inputs)
        limits: Mapping[str, float | None] = {**tagged.thresholds, **{g.name: g.threshold for g in tagged.genres}}
        genres = tuple(
            GenreExplanation(
                genre=name,
                probability=tagged.probabilities[name],
                threshold=limits[name],
                decided=name in tagged.names,
                values=attribution.values[:, place],
                log_odds=float(attribution.log_odds[place]),
                baseline=float(attribution.baseline[place]),
                error=float(attribution.errors[place]),
                steps=int(attribution.steps[place]),
                inputs=_strongest_first({one: float(values[place]) for one, values in attribution.inputs.items()}),
            )
            for place, name in enumerate(names)
        )
        return Explanation(tagged, filled, attribution.words, attribution.read, self.attributor.baseline, genres)

    def attribute(self, filled: str, genres: Sequence[int], inputs: EncodedInputs | None = None) -> Attribution:
        """Explain the calibrated log-odds of a text to which the template has been applied.

        Args:
            filled: What the model reads.
            genres: Columns of the decision.
            inputs: This film's inputs of the head; None if the head has none.
        """
        scale, shift = self.decision.affine
        columns = list(genres)
        return self.attributor.attribute(filled, columns, inputs).calibrated(scale[columns], shift[columns])


def _strongest_first(values: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda entry: -abs(entry[1])))


def check_explainable(run: RunDirectory) -> None:
    """Refuse runs that have no explanation, before anything is loaded.

    Raises:
        ConfigError: An ensemble, or a model that is asked in words.
    """
    settings = run.settings()
    if kind_of(settings) == "ensemble":
        members = ", ".join(settings[ENSEMBLE]["weights"])
        raise ConfigError(f"{run.path} is an ensemble: explain one of its runs: {members}")
    if str((settings.get("model") or {}).get("class_path", "")).endswith(".ZeroShotLlama"):
        raise ConfigError(
            f"{run.path} asks a language model about each genre, and has no head to explain: "
            "explain a run of LlamaQLoraClassifier or of an encoder"
        )
