"""Films of the test split, for people to try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genre_lightning.config.features import Feature
from genre_lightning.evaluation.runs import Run

if TYPE_CHECKING:
    from genre_lightning.serving.served import ServedRun

_EXAMPLES = 12
_CHARACTERS = 1500


def example_films(served: ServedRun) -> list[dict[str, Any]]:
    """Return films spread over the test split: id, title, overview, the fields that their text holds, and genres."""
    found = Run(served.run.path)
    if not found.has("test"):
        return []
    stored = found.predictions("test").predictions
    rows = np.linspace(0, len(stored) - 1, min(_EXAMPLES, len(stored)), dtype=np.int64)
    names = stored.genre_names(stored.labels)
    films = []
    for row in rows.tolist():
        text, fields = _apart(served, stored.titles[row], stored.texts[row])
        shown = {"film": str(stored.ids[row]), "title": stored.titles[row], "text": text[:_CHARACTERS]}
        films.append({**shown, "fields": fields, "genres": names[row]})
    return films


def _apart(served: ServedRun, title: str, text: str) -> tuple[str, dict[str, str]]:
    """Divide the text of an evaluated film, which the run's template has made, into overview and fields."""
    scorer, fields = served.tagger.scorer, {}
    for feature in reversed([feature for feature in scorer.features if feature.in_text]):
        before, mark, line = text.rpartition(f"\n{feature.line}")
        if mark and "\n" not in line:
            text, fields[feature.column] = before, line
    if "title" in scorer.fields:
        text = text.removeprefix(title).lstrip(" .:-–—\n")
    return text, fields


def add_inputs(served: ServedRun) -> None:
    """Give the examples the inputs of the head that the movies file has for them; it is read as a whole.

    Raises:
        DataError: The movies file is not where the run was trained on it.
    """
    features = [
        feature for feature in served.tagger.scorer.features if not feature.in_text and feature.kind != "vector"
    ]
    wanted = {film["film"]: film for film in served.examples}
    file = served.movies_file() if features and wanted else None
    if file is None:
        return
    for chunk in file.chunks():
        for film in chunk:
            if example := wanted.pop(film.id or "", None):
                values = {feature.column: _typed(feature, film.cells.get(feature.column)) for feature in features}
                given = {column: value for column, value in values.items() if value is not None}
                example["fields"] = {**example["fields"], **given}  # one assignment: others read it meanwhile
        if not wanted:
            return


def _typed(feature: Feature, value: Any) -> Any:
    """Return a value as a person would type it: a date in place of a year and the part of it that has passed."""
    if feature.kind != "date" or value is None:
        return value
    year, part = int(value), value % 1
    month = int(12 * part + 1e-6)
    return f"{year:04}-{month + 1:02}-{round(365 * (part - month / 12)) + 1:02}"
