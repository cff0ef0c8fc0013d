"""A run that is loaded for a service, and what the service shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from genre_lightning import __version__
from genre_lightning.config.decision import POLICIES
from genre_lightning.errors import CheckpointError, ConfigError, GenreLightningError
from genre_lightning.evaluation.runs import Run
from genre_lightning.explain.explainer import Explainer, check_explainable
from genre_lightning.files import json_value
from genre_lightning.inference.tagger import TaggedText, Tagger, Text
from genre_lightning.learning.film_file import FilmFile
from genre_lightning.runs import kind_of, open_run
from genre_lightning.serving.examples import example_films

_EXPLAINED_GENRES = 5
_KNOWN_VALUES = 100
"""Of an input, the most frequent in training."""
_BOUND_FOR_READING = 0.05
"""Completeness error of the explanations: colours do not show less, and it takes half the time."""
_CHARACTERS_OF_A_TOKEN = 3
_FREE_TOKENS = 16_384
"""Tokens of a batch of a model that counts words, and of an ensemble."""


class ServedRun:
    """A run that is loaded.

    Args:
        path: Its directory, or a link to it.
        device: See `Tagger`.

    Raises:
        GenreLightningError: It cannot be used.
    """

    def __init__(self, path: Path, device: str | None = None) -> None:
        # a link is followed once, so that all parts are of one run although the link is moved meanwhile
        self.run = open_run(path.resolve())
        self.device = device
        self.tagger = Tagger(self.run.path, device)
        self.genres = self.tagger.genres
        self.name = self.run.path.name
        self.checkpoint = self.tagger.decision.checkpoint_sha256
        self.batch_tokens: int = getattr(self.tagger.scorer, "budget", _FREE_TOKENS)
        """Tokens of a batch, as estimated by `tokens`."""

    def movies_file(self) -> FilmFile | None:
        """Open the movies file that the run, or the first run of an ensemble, was trained on; None if it names none.

        Raises:
            DataError: It is not there, or lacks a column.
        """
        data = self.run.first_model.settings().get("data") or {}
        if not data.get("csv"):
            return None
        return FilmFile.of(Path(data["csv"]), self.tagger.scorer, {}, str(data.get("encoding") or "utf-8"))

    def tokens(self, film: Text) -> int:
        """Estimate the tokens of a film's text without the tokenizer, which belongs to the model's thread."""
        cells = [film] if isinstance(film, str) else list(film.values())
        estimate = 2 + sum(len(str(cell)) for cell in cells) // _CHARACTERS_OF_A_TOKEN
        return min(estimate, self.tagger.scorer.max_tokens or estimate)

    def tag(self, films: Sequence[Text]) -> list[TaggedText | Exception]:
        """Tag films; one that fails does so alone, unless the machine does."""
        try:
            return list(self.tagger(films))
        except GenreLightningError as error:
            if len(films) == 1:
                return [error]
            return [self.tag([film])[0] for film in films]

    @cached_property
    def is_explained(self) -> bool:
        """Whether the run has explanations."""
        try:
            check_explainable(self.run)
        except ConfigError:
            return False
        return True

    @cached_property
    def _explainer(self) -> Explainer:
        """What explains; loaded for the first explanation if the run is served in half precision.

        Raises:
            CheckpointError: The directory has another run by now, or none.
        """
        explainer = Explainer(self.run.path, self.device, bound=_BOUND_FOR_READING, tagger=self.tagger)
        if explainer.decision.checkpoint_sha256 != self.checkpoint:
            raise CheckpointError(f"{self.run.path} has another run than the one that is served: reload it")
        return explainer

    def explain(self, film: Text, options: Mapping[str, Any]) -> dict[str, Any]:
        """Decide the genres of a film, and explain at most the five most probable ones.

        Args:
            film: Its overview, or its columns.
            options: Of `Tagger.decide`.

        Raises:
            GenreLightningError: The run has no explanations, or an option is impossible.
        """
        if not self.is_explained:
            check_explainable(self.run)
        decided = self.tagger.decide(self._explainer.tagger(film), **options)
        explained = self._explainer.explain(film, replace(decided, genres=decided.genres[:_EXPLAINED_GENRES]))
        return {**explained.as_dict(), **decided.as_dict(), "thresholds": decided.thresholds}

    @cached_property
    def description(self) -> dict[str, Any]:
        """What `GET /v1/model` shows: no path, and no number that JSON does not have."""
        found = Run(self.run.path)
        settings = self.run.settings()
        scorer, decision = self.tagger.scorer, self.tagger.decision
        thresholds = {policy: decision.thresholds(policy).tolist() for policy in POLICIES}
        features = {feature.column: feature.kind for feature in scorer.features}
        known = {one.name: list(one.values[:_KNOWN_VALUES]) for one in scorer.fitted_inputs}
        audit = found.audit() or {}
        splits = {name: split.get("films") for name, split in (audit.get("splits") or {}).items()}
        evaluated = [split for split in ("validation", "test") if found.has(split)]
        metrics = {split: found.metrics(split) for split in evaluated}
        model = str((settings.get("model") or {}).get("class_path", "")).rpartition(".")[2]
        description = json_value(
            {
                "name": self.name,
                "kind": model or kind_of(settings),
                "version": __version__,
                "checkpoint_sha256": self.checkpoint,
                "genres": [
                    {"name": name, "thresholds": {policy: thresholds[policy][place] for policy in POLICIES}}
                    for place, name in enumerate(self.genres)
                ],
                "inputs": [
                    {
                        "name": name,
                        "kind": features.get(name, "text"),
                        "in_text": name in self.tagger.in_text,
                        "values": known.get(name, []),
                    }
                    for name in scorer.fields
                ],
                "max_tokens": scorer.max_tokens,
                "explained": self.is_explained,
                "data": {
                    "file": str(audit.get("file") or "").rpartition("/")[2],
                    "rows": audit.get("rows"),
                    "splits": splits,
                },
                "metrics": {
                    split: {"films": one["n"], "threshold_free": one["threshold_free"], "policies": one["policies"]}
                    for split, one in metrics.items()
                },
                "per_genre": found.genre_rows(evaluated[-1]) if evaluated else [],
                "has_report": self.run.report.is_file(),
            }
        )
        assert isinstance(description, dict)
        return description

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        """See `example_films`; `add_inputs` completes them."""
        return example_films(self)
