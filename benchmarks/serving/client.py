"""A closed-loop client: each of several threads sends a request, waits for its answer, and sends the next."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Request = tuple[str, dict[str, Any]]
"""A path, and the body that is posted to it."""


@dataclass
class Load:
    """What a load has measured.

    Attributes:
        seconds: Of each answered request.
        outcomes: How many requests ended with which status, or with which error of the connection.
        lost: When each request began that ended with an error of the connection, in seconds of `time.monotonic`.
        wall: Seconds of the whole load.
    """

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[float] = field(default_factory=list)
    wall: float = 0.0

    def percentile(self, p: float) -> float:
        """Return a percentile of the seconds."""
        return percentile(self.seconds, p)

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return self.outcomes.total()

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.seconds) / self.wall if self.wall else 0.0


def percentile(values: list[float], p: float) -> float:
    """Return a percentile; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))] if ordered else float("nan")


def load(
    url: str,
    request_of: Callable[[int], Request],
    clients: int,
    requests: int,
    most_seconds: float,
    result: Load | None = None,
) -> Load:
    """Send requests by several threads.

    Args:
        url: Of the server.
        request_of: Makes the request with a number.
        clients: Threads.
        requests: At most.
        most_seconds: After which no further request is sent.
        result: Filled meanwhile, for others to watch.
    """
    address, lock = urlsplit(url), threading.Lock()
    found = Load() if result is None else result
    left = iter(range(requests))
    end = time.monotonic() + most_seconds

    def client() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        while time.monotonic() < end:
            with lock:
                number = next(left, None)
            if number is None:
                break
            path, content = request_of(number)
            body = json.dumps(content)
            began, started = time.monotonic(), time.perf_counter()
            lost = False
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                outcome, lost = type(error).__name__, True
            seconds = time.perf_counter() - started
            with lock:
                found.outcomes[outcome] += 1
                if outcome == "200":
                    found.seconds.append(seconds)
                if lost:
                    found.lost.append(began)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.wall = time.perf_counter() - started
    return found
