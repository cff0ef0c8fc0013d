"""A person's opinion of a film that a run has tagged, as feedback."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from genre_lightning.data.cells import readable
from genre_lightning.inference.tagger import TaggedText, Tagger, Text
from genre_lightning.learning.feedback_files import now
from genre_lightning.learning.store import Feedback


def correction(
    tagger: Tagger,
    film: Text,
    tagged: TaggedText,
    genres: Sequence[str],
    *,
    user: str,
    source: str,
    run: str,
    film_id: str | None = None,
    title: str | None = None,
) -> Feedback:
    """Make feedback of a person's genres, beside those that the run predicts.

    Args:
        tagger: The run.
        film: Its overview, or its columns.
        tagged: What the run predicts.
        genres: That it has, by this person.
        user: Name of the person.
        source: Where it comes from.
        run: Directory of the run.
        film_id: Id of the film in its file, if known.
        title: Of the film; None takes that of its columns.
    """
    columns = film if isinstance(film, Mapping) else {"overview": film}
    return Feedback(
        text=_words(columns.get("overview")) or tagged.text,
        title=title or _words(columns.get("title")),
        genres=tuple(genres),
        user=user,
        time=now(),
        source=source,
        film=film_id,
        fields={name: cell if isinstance(cell, str) else json.dumps(cell) for name, cell in tagger.cells(film).items()},
        predicted=tagged.names,
        run=run,
        checkpoint_sha256=tagger.decision.checkpoint_sha256,
    )


def _words(cell: object) -> str:
    return cell if isinstance(cell, str) else readable(cell)
