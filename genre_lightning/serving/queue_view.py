"""The films to label next, as `genre-lightning queue` wrote them, for the page to walk through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genre_lightning.data.csv_rows import MisfitRow
from genre_lightning.data.splits import text_digests
from genre_lightning.data.tables import read_rows
from genre_lightning.escapes import original_cell, split_names
from genre_lightning.learning.feedback_files import FIELD, NO_GENRE
from genre_lightning.learning.queue import labelled_in

_MOST_ROWS = 1000


def queue_rows(path: Path, database: Path) -> dict[str, Any]:
    """Read the films that have no feedback yet.

    Args:
        path: File of `genre-lightning queue`.
        database: Of the feedback.

    Returns:
        `films` with `film`, `title`, `text`, `suggested`, `reason` and `fields`, and how many are `done`.

    Raises:
        DataError: A file cannot be read.
    """
    labelled = labelled_in(database)
    films: list[dict[str, Any]] = []
    done = 0
    for row in read_rows(path, ["text"]):
        if isinstance(row, MisfitRow):
            continue
        cells = {name: original_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        text = str(cells.get("text") or "")
        if not text.strip():
            continue
        if text_digests([text]).tobytes() in labelled:
            done += 1
            continue
        if len(films) >= _MOST_ROWS:
            continue
        suggested = str(cells.get("suggested") or "")
        films.append(
            {
                "film": str(cells.get("id") or "") or None,
                "title": str(cells.get("title") or ""),
                "text": text,
                "suggested": [] if suggested in ("", NO_GENRE) else split_names(suggested),
                "reason": str(cells.get("reason") or ""),
                "fields": {
                    name.removeprefix(FIELD): str(cell)
                    for name, cell in cells.items()
                    if name.startswith(FIELD) and cell
                },
            }
        )
    return {"films": films, "done": done}
