"""Tagger: a trained run as a function from texts to genres."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from genre_lightning.config.decision import SHIPPED_POLICY, Policy
from genre_lightning.data.cells import MAX_CELL_CHARACTERS, MalformedCellError, readable
from genre_lightning.data.familiarity import familiar_of
from genre_lightning.data.features.read import value_of
from genre_lightning.data.templates import field_for
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.runs import RunDirectory

__all__ = ["Genre", "TaggedText", "Tagger"]

WINDOW = 2048
"""Texts that are sorted by length and computed together; results of a stream come in groups of this size."""

_WINDOW_CHARACTERS = 1 << 24
"""Of a window's texts together, whatever their number: at most some 100 MB of memory."""

Text = str | Mapping[str, Any]
"""A film's overview, or its columns: texts, and the inputs of the run's head as a file or Python has them."""


@dataclass(frozen=True)
class Genre:
    """A genre of a text.

    Attributes:
        name: Name of the genre.
        probability: Calibrated probability that the text has the genre.
        threshold: Threshold that the probability has reached; None if the genre is one of the `top_k` asked for.
    """

    name: str
    probability: float
    threshold: float | None


@dataclass(frozen=True)
class TaggedText:
    """A run's prediction for a text.

    Attributes:
        text: Text as it was given.
        genres: Decided, the likeliest first.
        probabilities: Probabilities of all genres, the likeliest first; empty for an empty text.
        thresholds: Thresholds of all genres.
        notes: What a reader should know: that the text is empty, was cut, or is unlike those of the training.
    """

    text: str
    genres: tuple[Genre, ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the genres decided."""
        return tuple(genre.name for genre in self.genres)

    def __str__(self) -> str:
        return ", ".join(f"{genre.name} {genre.probability:.2f}" for genre in self.genres) or "-"

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "text": self.text,
            "genres": [vars(genre) for genre in self.genres],
            "probabilities": self.probabilities,
            "notes": list(self.notes),
        }


class Tagger:
    """A trained run, loaded once: `Tagger("runs/distilbert")("A boy finds a map …").names`.

    Texts go through what the run's evaluation used: text template, tokenizer, largest length, precision, calibration
    and the thresholds of each genre. A text is taken for an overview; a template over more columns is filled from a
    mapping such as {"title": …, "overview": …}, and so are the inputs of the head: {"overview": …, "keywords": […]}.

    Args:
        run: Directory of a run of `fit`, `baseline` or `ensemble`.
        device: "cpu", "cuda", "cuda:1" or "mps"; None takes a GPU if there is one.
        precision: Precision, such as "32-true"; None takes that of the training, if the device has it.

    Raises:
        CheckpointError: The directory is not a run, or an unfinished or damaged one.
        ConfigError: There is no such device, or the base of the run's adapters is not there.
    """

    def __init__(self, run: str | os.PathLike[str], device: str | None = None, precision: str | None = None) -> None:
        self.scorer = open_scorer(run, device, precision)
        self.decision = self.scorer.decision
        self.genres = self.decision.genres
        self._inputs = [feature for feature in self.scorer.features if not feature.in_text]
        inputs = {feature.column for feature in self._inputs}
        self.in_text = [name for name in self.scorer.fields if name not in inputs]
        """Columns that are read as text."""
        self._familiar = familiar_of(RunDirectory(Path(run)).evaluation("validation").predictions)

    # a string is a sequence of strings to mypy; the first overload that fits is taken
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, texts: Text, *, top_k: int | None = None, threshold: float | None = None
    ) -> TaggedText: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, texts: Sequence[Text], *, top_k: int | None = None, threshold: float | None = None
    ) -> list[TaggedText]: ...

    @overload
    def __call__(
        self, texts: Iterable[Text], *, top_k: int | None = None, threshold: float | None = None
    ) -> Iterator[TaggedText]: ...

    def __call__(
        self, texts: Text | Iterable[Text], *, top_k: int | None = None, threshold: float | None = None
    ) -> TaggedText | list[TaggedText] | Iterator[TaggedText]:
        """Tag a text, a list of texts, or a stream of them that may be endless.

        Args:
            texts: One text, a sequence, or an iterator, from which `WINDOW` are taken at a time.
            top_k: Number of the likeliest genres to decide on, whatever their thresholds.
            threshold: Threshold in place of each genre's own; with `top_k`, one that the likeliest must reach too.

        Returns:
            A result for a text, a list for a sequence, an iterator for anything else; in the order of the texts.

        Raises:
            ConfigError: An impossible `top_k` or `threshold`.
        """
        self._check(top_k, () if threshold is None else (threshold,))
        if isinstance(texts, str | Mapping):
            return self._tag([texts], top_k, threshold)[0]
        tagged = self._stream(iter(texts), top_k, threshold)
        return list(tagged) if isinstance(texts, Sequence) else tagged

    def decide(
        self,
        tagged: TaggedText,
        policy: Policy = SHIPPED_POLICY,
        *,
        top_k: int | None = None,
        threshold: float | Mapping[str, float] | None = None,
    ) -> TaggedText:
        """Decide again on the genres of a text that has been tagged, from its probabilities.

        Args:
            tagged: Result of this run.
            policy: Of the thresholds.
            top_k: See `__call__`.
            threshold: In place of the policy's, for all genres or for those that are named.

        Raises:
            ConfigError: An impossible option, or a genre that the run does not know.
        """
        named = threshold if isinstance(threshold, Mapping) else {}
        if unknown := [name for name in named if name not in self.genres]:
            raise ConfigError(f"{unknown[0][:60]!r} is not one of the {len(self.genres)} genres known: correct it")
        common = None if isinstance(threshold, Mapping) else threshold
        self._check(top_k, (*named.values(), *(() if common is None else (common,))))
        limits = dict(zip(self.genres, self.decision.thresholds(policy).tolist(), strict=True))
        limits = limits | dict(named) if common is None else dict.fromkeys(self.genres, common)
        genres = _decide(tagged.probabilities, limits, top_k, whatever=threshold is None)
        return replace(tagged, genres=genres, thresholds=limits if tagged.probabilities else {})

    def _check(self, top_k: int | None, thresholds: Iterable[float]) -> None:
        if top_k is not None and not 1 <= top_k <= len(self.genres):
            raise ConfigError(f"top_k is {top_k}: give 1 to {len(self.genres)}, the number of genres")
        for threshold in thresholds:
            if not 0 <= threshold <= 1:
                raise ConfigError(f"threshold is {threshold}: give a probability from 0 to 1")

    def _stream(self, texts: Iterator[Text], top_k: int | None, threshold: float | None) -> Iterator[TaggedText]:
        for window in _windows(texts):
            yield from self._tag(window, top_k, threshold)

    def _tag(self, texts: Sequence[Text], top_k: int | None, threshold: float | None) -> list[TaggedText]:
        films = [self.cells(text) for text in texts]
        full = [place for place, film in enumerate(films) if has_content(film)]
        asked = [films[place] for place in full]
        probabilities = self.decision.probabilities(self.scorer.logits(asked))
        counts = self.scorer.tokens(asked)
        shown = [text if isinstance(text, str) else self._shown(text) for text in texts]
        tagged = [TaggedText(text, notes=("the text is empty",)) for text in shown]
        thresholds = self.decision.thresholds(SHIPPED_POLICY)
        if threshold is not None:
            thresholds = np.full(len(self.genres), threshold)
        limits = dict(zip(self.genres, thresholds.tolist(), strict=True))
        for row, place in enumerate(full):
            order = np.argsort(-probabilities[row], kind="stable")
            likeliest = {self.genres[genre]: float(probabilities[row, genre]) for genre in order}
            tagged[place] = TaggedText(
                shown[place],
                _decide(likeliest, limits, top_k, whatever=threshold is None),
                likeliest,
                limits,
                self._notes(shown[place], counts[row]) + self._unread(films[place]),
            )
        return tagged

    def _shown(self, film: Mapping[str, Any]) -> str:
        cells = [cell for name, cell in film.items() if field_for(name, self.in_text, self.scorer.columns)]
        return " ".join(filter(None, (cell if isinstance(cell, str) else readable(cell) for cell in cells)))

    def cells(self, text: Text) -> dict[str, Any]:
        """Return what the template is filled with, and the inputs of the head: of a plain text, its overview alone.

        Raises:
            DataError: Neither a string nor a mapping of the run's columns.
        """
        fields = self.scorer.fields
        if isinstance(text, str):
            text = {field_for("overview", fields, self.scorer.columns) or fields[0]: text}
        elif not isinstance(text, Mapping):
            raise DataError(f"a text is a {type(text).__name__}: give a string, or a mapping of columns to strings")
        known = {name: field_for(name, fields, self.scorer.columns) for name in text}
        if unknown := [name for name, field in known.items() if field is None]:
            raise DataError(f"a text has {', '.join(unknown)}, and the run reads {', '.join(fields)}: name those")
        given = {known[name]: cell for name, cell in text.items()}
        if len(given) < len(text):
            twice = ", ".join(name for name, field in known.items() if list(known.values()).count(field) > 1)
            raise DataError(f"a text has {twice}, which are one column of the run: give one of them")
        return {name: readable(given.get(name)) if name in self.in_text else given.get(name) for name in fields}

    def _unread(self, film: Mapping[str, Any]) -> tuple[str, ...]:
        """Name the inputs of the head that are read as missing because they are malformed."""
        notes = []
        for feature in self._inputs:
            try:
                value_of(feature, film.get(feature.column))
            except MalformedCellError as error:
                notes.append(f"{feature.column} is read as missing: {error}")
        return tuple(notes)

    def _notes(self, text: str, tokens: int | None) -> tuple[str, ...]:
        notes = []
        limit = self.scorer.max_tokens
        if tokens is not None and limit is not None and tokens > limit:
            more = "more than " if len(text) > MAX_CELL_CHARACTERS else ""
            notes.append(f"the text has {more}{tokens:,} tokens, of which the model reads the first {limit}")
        elif len(text) > MAX_CELL_CHARACTERS:
            notes.append(f"the model reads the first {MAX_CELL_CHARACTERS:,} characters of the text")
        if self._familiar and self._familiar.unlike(text[:MAX_CELL_CHARACTERS]):
            notes.append(
                "the text is unlike those of the training, perhaps in another language: its genres are a guess"
            )
        return tuple(notes)


def has_content(film: Mapping[str, Any]) -> bool:
    """Return whether a film's cells hold anything that a model could read."""
    return any(cell.strip() if isinstance(cell, str) else cell not in (None, []) for cell in film.values())


def _windows(texts: Iterator[Text]) -> Iterator[list[Text]]:
    """Give texts by `WINDOW`, or by fewer if they are long."""
    window: list[Text] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text) if isinstance(text, str) else 0
        if len(window) == WINDOW or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _decide(
    likeliest: Mapping[str, float], thresholds: Mapping[str, float], top_k: int | None, *, whatever: bool
) -> tuple[Genre, ...]:
    if top_k is not None and whatever:
        return tuple(Genre(name, probability, None) for name, probability in islice(likeliest.items(), top_k))
    reached = (Genre(name, p, thresholds[name]) for name, p in likeliest.items() if p >= thresholds[name])
    return tuple(islice(reached, top_k))
