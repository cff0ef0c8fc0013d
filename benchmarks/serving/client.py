"""A closed-loop client: each of several threads sends a request, waits for its answer, and sends the next."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Load:
    """What a load has measured; seconds of each answered request, and what became of all."""

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0

    def percentile(self, p: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))] if ordered else float("nan")

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.wall if self.wall else 0.0


def load(url: str, texts: list[str], clients: int, requests: int, most_seconds: float, path: str = "/v1/tag") -> Load:
    """Send at most `requests` requests by `clients` threads for at most `most_seconds`."""
    address, result, lock = urlsplit(url), Load(), threading.Lock()
    left = iter(range(requests))
    end = time.monotonic() + most_seconds

    def client() -> None:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        while time.monotonic() < end:
            with lock:
                number = next(left, None)
            if number is None:
                break
            body = json.dumps({"text": texts[number % len(texts)]})
            started = time.perf_counter()
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                outcome = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                outcome = type(error).__name__
            seconds = time.perf_counter() - started
            with lock:
                result.outcomes[outcome] += 1
                if outcome == "200":
                    result.seconds.append(seconds)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.wall = time.perf_counter() - started
    return result
