"""From people's opinions to one set of genres for each text, with a weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from genre_lightning.config.continuation import ContinueOptions
from genre_lightning.data.corrections import Correction
from genre_lightning.errors import ConfigError
from genre_lightning.learning.store import Feedback, FeedbackStore


def resolve(
    rows: Iterable[Feedback], *, trusted: Collection[str] = (), weights: Mapping[str, float] | None = None
) -> list[Correction]:
    """Resolve the votes on each text.

    The newest opinion of a trusted user decides. Without one, a film has the genres that more than half of the people
    name; the newest opinion decides a tie.

    Args:
        rows: Each user's newest opinion of each text; of two of one time, the later row is newer.
        trusted: Names of users.
        weights: Of opinions by their source; 1 for a source that is not named. A source of weight 0 does not vote.

    Returns:
        A correction for each text, whose weight is the mean of the opinions that decided it.
    """
    given = weights or {}
    opinions: dict[bytes, list[Feedback]] = {}
    for row in sorted(rows, key=lambda row: row.time):
        if given.get(row.source, 1.0) > 0:
            opinions.setdefault(row.digest, []).append(row)
    found = []
    for votes in opinions.values():
        deciding = [vote for vote in votes if vote.user in trusted][-1:] or votes
        newest = deciding[-1]
        counts = Counter(genre for vote in deciding for genre in vote.genres)
        genres = {
            genre
            for genre, count in counts.items()
            if 2 * count > len(deciding) or (2 * count == len(deciding) and genre in newest.genres)
        }
        weight = sum(given.get(vote.source, 1.0) for vote in deciding) / len(deciding)
        found.append(Correction(newest.text, tuple(sorted(genres)), weight, newest.title, dict(newest.fields)))
    return found


def corrections_of(database: Path, options: ContinueOptions) -> list[Correction]:
    """Read a feedback database and resolve its votes.

    Raises:
        DataError: The database is missing, damaged or another program's.
        ConfigError: It holds no feedback.
    """
    with FeedbackStore(database) as store:
        found = resolve(store.rows(newest=True), trusted=options.trusted_users, weights=options.feedback_weights)
    if not found:
        raise ConfigError(f"--feedback {database} holds no opinion that counts: import some, or leave the option out")
    return found
