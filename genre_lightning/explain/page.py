"""Explanations as one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from genre_lightning.evaluation.report import render
from genre_lightning.explain.console import legend, sum_text, threshold_text
from genre_lightning.explain.explainer import Explanation, GenreExplanation
from genre_lightning.files import write_text

_LEAST_STRENGTH = 0.03
"""Fraction of the strongest word's log-odds below which a word is left without colour."""
_STRONGEST = 8


def write_page(path: str | os.PathLike[str], run: str, explanations: Sequence[Explanation]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: Path of the page.
        run: Name of the run.
        explanations: Explanations, each of one text.
    """
    write_text(path, render("explanation.html.j2", page_values(run, explanations)))


def page_values(run: str, explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Gather what the page shows."""
    return {"run": run, "texts": [_text_values(explanation) for explanation in explanations]}


def _text_values(explanation: Explanation) -> dict[str, Any]:
    explained = {genre.genre for genre in explanation.genres}
    tagged = explanation.tagged
    others = [
        {"genre": name, "probability": probability, "threshold": tagged.thresholds[name]}
        for name, probability in tagged.probabilities.items()
        if name not in explained
    ]
    return {
        "notes": tagged.notes,
        "undecided": bool(explanation.genres) and not explanation.genres[0].decided,
        "genres": [_genre_values(explanation, genre) for genre in explanation.genres],
        "others": others,
        "legend": legend(explanation),
    }


def _genre_values(explanation: Explanation, genre: GenreExplanation) -> dict[str, Any]:
    assert explanation.words is not None
    return {
        "genre": genre.genre,
        "probability": genre.probability,
        "threshold": threshold_text(genre),
        "pieces": _pieces(explanation, genre),
        "strongest": [
            ("for", genre.strongest(explanation.words, _STRONGEST)),
            ("against", genre.strongest(explanation.words, _STRONGEST, against=True)),
            ("inputs", genre.named_inputs),
        ],
        "sum": sum_text(genre),
    }


def _pieces(explanation: Explanation, genre: GenreExplanation) -> list[dict[str, Any]]:
    """Yield the text in its order: words with their strength from -1 to 1, and what is between them without one."""
    words, text = explanation.words, explanation.text
    assert words is not None
    pieces: list[dict[str, Any]] = []
    done = 0
    for start, end, value, strength in zip(words.starts, words.ends, genre.values, genre.strengths, strict=True):
        if end > explanation.read:
            break
        pieces.append({"text": text[done:start], "strength": None})
        shown = float(strength) if abs(strength) >= _LEAST_STRENGTH else None
        pieces.append({"text": text[start:end], "strength": shown, "value": float(value)})
        done = int(end)
    pieces.append({"text": " …" if done < len(text.rstrip()) else "", "strength": None})
    return pieces
