"""What a continued run learns from besides its files: stored feedback, a filled-in queue, and pseudo-labels."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from genre_lightning.config.continuation import ContinueOptions
from genre_lightning.data.corrections import Correction
from genre_lightning.data.kept_splits import as_bytes
from genre_lightning.data.splits import text_digests
from genre_lightning.evaluation.decisions import read_decision
from genre_lightning.learning.feedback_files import login_name, read_labels
from genre_lightning.learning.store import Added, FeedbackStore
from genre_lightning.learning.votes import resolve
from genre_lightning.runs import RunDirectory


def joined_labels(
    labels: Path, feedback: Path | None, parent: RunDirectory, options: ContinueOptions
) -> tuple[list[Correction], Added]:
    """Read a filled-in queue or another table of labels, and resolve its votes together with stored feedback.

    The database of the feedback is not changed.

    Args:
        labels: The table; a row without a user is by whoever runs the command.
        feedback: A database, or None.
        parent: The run that is continued, whose genres may be named.
        options: Of the continuation.

    Returns:
        A correction for each text, and what the table has changed and where people differ.

    Raises:
        DataError: The table or the database cannot be used.
        ConfigError: A row has no user, and whoever runs the command no login name.
    """
    genres = read_decision(parent.decision, parent.again).genres
    with tempfile.TemporaryDirectory() as folder, FeedbackStore(Path(folder) / "labels.db", write=True) as store:
        if feedback is not None:
            with FeedbackStore(feedback) as before:
                genres = tuple(dict.fromkeys([*genres, *before.vocabulary()]))
                store.add(before.rows(newest=True), genres)
        user = partial(login_name, f"add a column user to {labels}")
        added = store.add(read_labels(labels, genres, user=user).rows, genres)
        rows = list(store.rows(newest=True))
    return resolve(rows, trusted=options.trusted_users, weights=options.feedback_weights), added


def with_pseudo_labels(by_people: list[Correction], by_model: list[Correction]) -> list[Correction]:
    """Join corrections; of a text on which people have an opinion, theirs counts."""
    said = set(as_bytes(text_digests(one.text for one in by_people)))
    digests = as_bytes(text_digests(one.text for one in by_model))
    return by_people + [one for one, digest in zip(by_model, digests, strict=True) if digest not in said]
