"""Counters of all workers, in memory that they share, and their text for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableSequence

ROUTES = (
    "/v1/tag", "/v1/similar", "/v1/feedback", "/v1/model", "/v1/examples", "/v1/queue", "/v1/report", "/v1/reload",
    "other",
)  # fmt: skip
STATUSES = (200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503, 507)
"""Others are counted as 500."""
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, math.inf)
"""Upper bounds of the seconds of a request for tags."""
TOTALS = {
    "films": "Films tagged.",
    "batches": "Batches computed.",
    "compute_seconds": "Seconds that the model has computed batches.",
    "feedback": "Corrections stored.",
    "worker_starts": "Starts of worker processes.",
}
GAUGES = {
    "queued_films": "Films that wait for the model.",
    "resident_bytes": "Memory of the worker processes.",
}

_REQUESTS = len(ROUTES) * len(STATUSES)
_SECONDS = _REQUESTS + len(BUCKETS)
"""Where the sum of the seconds stands, behind the buckets."""
_NAMED = {name: _SECONDS + 1 + place for place, name in enumerate((*TOTALS, *GAUGES))}
WIDTH = _SECONDS + 1 + len(_NAMED)
"""Numbers of each worker."""


class Counters:
    """The counters of a worker, beside those of the others.

    Args:
        memory: `WIDTH` numbers for each slot; only one worker at a time counts in a slot.
        slot: Of the worker.
    """

    def __init__(self, memory: MutableSequence[float] | None = None, slot: int = 0) -> None:
        self.memory: MutableSequence[float] = [0.0] * WIDTH if memory is None else memory
        self.slot = slot
        self._start = slot * WIDTH

    def add(self, name: str, value: float = 1) -> None:
        """Add to one of `TOTALS`."""
        self.memory[self._start + _NAMED[name]] += value

    def put(self, name: str, value: float) -> None:
        """Set one of `GAUGES`."""
        self.memory[self._start + _NAMED[name]] = value

    def clear_gauges(self) -> None:
        """Forget the gauges of a worker that has ended."""
        for name in GAUGES:
            self.put(name, 0)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        line = ROUTES.index(route) if route in ROUTES else len(ROUTES) - 1
        column = STATUSES.index(status if status in STATUSES else 500)
        self.memory[self._start + line * len(STATUSES) + column] += 1
        if route == "/v1/tag":
            bucket = next(place for place, bound in enumerate(BUCKETS) if seconds <= bound)
            self.memory[self._start + _REQUESTS + bucket] += 1
            self.memory[self._start + _SECONDS] += seconds

    def text(self) -> str:
        """Write the sums over all workers in Prometheus's text format."""
        return "\n".join(self._lines()) + "\n"

    def _sum(self, place: int) -> float:
        return math.fsum(self.memory[start + place] for start in range(0, len(self.memory), WIDTH))

    def _lines(self) -> Iterator[str]:
        yield from _heading("requests_total", "counter", "Requests by route and status.")
        for line, route in enumerate(ROUTES):
            for column, status in enumerate(STATUSES):
                if count := self._sum(line * len(STATUSES) + column):
                    yield f'genre_lightning_requests_total{{route="{route}",status="{status}"}} {count:.0f}'
        yield from _heading("tag_seconds", "histogram", "Seconds from a request for tags to its answer.")
        below = 0.0
        for place, bound in enumerate(BUCKETS):
            below += self._sum(_REQUESTS + place)
            name = "+Inf" if math.isinf(bound) else f"{bound:g}"
            yield f'genre_lightning_tag_seconds_bucket{{le="{name}"}} {below:.0f}'
        yield f"genre_lightning_tag_seconds_sum {self._sum(_SECONDS):.6f}"
        yield f"genre_lightning_tag_seconds_count {below:.0f}"
        for name, about in TOTALS.items():
            yield from _heading(f"{name}_total", "counter", about)
            yield f"genre_lightning_{name}_total {self._sum(_NAMED[name]):.10g}"
        for name, about in GAUGES.items():
            yield from _heading(name, "gauge", about)
            yield f"genre_lightning_{name} {self._sum(_NAMED[name]):.10g}"


def _heading(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP genre_lightning_{name} {about}"
    yield f"# TYPE genre_lightning_{name} {kind}"
