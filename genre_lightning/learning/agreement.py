"""How far people agree with what runs predicted, for each genre and over time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from genre_lightning.learning.store import Feedback

Period = Literal["day", "week", "month", "year"]
_CHARACTERS = {"day": 10, "month": 7, "year": 4}
"""Of a time such as 2026-01-31T12:00:00Z."""


@dataclass
class Agreement:
    """Counts of a genre over films that a run had tagged.

    Attributes:
        agreed: The run predicted the genre, and the person names it too.
        wrong: The run predicted it, and the person does not.
        missed: The person names it, and the run did not.
    """

    agreed: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def films(self) -> int:
        """Films for which the run or the person names the genre."""
        return self.agreed + self.wrong + self.missed

    @property
    def fraction(self) -> float | None:
        """Jaccard index, agreed / films; None without films."""
        return self.agreed / self.films if self.films else None

    def as_dict(self) -> dict[str, Any]:
        """Give what JSON holds."""
        return {"agreed": self.agreed, "wrong": self.wrong, "missed": self.missed, "agreement": self.fraction}


@dataclass
class Statistics:
    """What a feedback store holds; each user's newest opinion of each text counts.

    Attributes:
        rows: Opinions.
        texts: Different texts.
        disputed: Texts of which users disagree.
        predicted: Opinions of films that a run had tagged.
        exact: Those of them that are exactly the run's genres.
        users: Opinions of each user.
        sources: Opinions from each source.
        genres: Agreement for each genre.
        over_time: The same for each period, in order.
    """

    rows: int = 0
    texts: int = 0
    disputed: int = 0
    predicted: int = 0
    exact: int = 0
    users: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    genres: dict[str, Agreement] = field(default_factory=dict)
    over_time: dict[str, dict[str, Agreement]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give what JSON holds."""
        return {
            **{name: getattr(self, name) for name in ("rows", "texts", "disputed", "predicted", "exact")},
            "users": dict(self.users),
            "sources": dict(self.sources),
            "genres": {name: counts.as_dict() for name, counts in self.genres.items()},
            "over_time": {
                period: {name: counts.as_dict() for name, counts in genres.items()}
                for period, genres in self.over_time.items()
            },
        }


def statistics(rows: Iterable[Feedback], by: Period = "month") -> Statistics:
    """Count opinions.

    Args:
        rows: Each user's newest opinion of each text.
        by: Period of the counts over time.
    """
    found = Statistics()
    opinions: defaultdict[bytes, set[frozenset[str]]] = defaultdict(set)
    total: defaultdict[str, Agreement] = defaultdict(Agreement)
    periods: defaultdict[str, defaultdict[str, Agreement]] = defaultdict(lambda: defaultdict(Agreement))
    for row in rows:
        found.rows += 1
        found.users[row.user] += 1
        found.sources[row.source] += 1
        said = set(row.genres)
        opinions[row.digest].add(frozenset(said))
        if row.predicted is None:
            continue
        predicted = set(row.predicted)
        found.predicted += 1
        found.exact += predicted == said
        for genre in predicted | said:
            for counts in (total[genre], periods[_period(row.time, by)][genre]):
                counts.agreed += genre in predicted and genre in said
                counts.wrong += genre not in said
                counts.missed += genre not in predicted
    found.texts = len(opinions)
    found.disputed = sum(len(different) > 1 for different in opinions.values())
    found.genres = dict(sorted(total.items()))
    found.over_time = {period: dict(sorted(periods[period].items())) for period in sorted(periods)}
    return found


def _period(time: str, by: Period) -> str:
    if by != "week":
        return time[: _CHARACTERS[by]]
    year, week, _ = date.fromisoformat(time[:10]).isocalendar()
    return f"{year}-W{week:02}"
