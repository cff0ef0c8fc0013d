"""How long the parts of a command take, by the wall clock and in CPU time."""

import json
import sys
import time
from collections import defaultdict
from contextlib import contextmanager


class Parts:
    """Seconds of named parts; a part within another one is taken off it."""

    def __init__(self):
        self._seconds = defaultdict(lambda: [0.0, 0.0])
        self._open = []

    @contextmanager
    def __call__(self, name):
        """Time a part, which may come several times."""
        started = time.perf_counter(), time.process_time()
        self._open.append([0.0, 0.0])
        try:
            yield
        finally:
            inner = self._open.pop()
            taken = [now - then for now, then in zip((time.perf_counter(), time.process_time()), started, strict=True)]
            for clock in (0, 1):
                self._seconds[name][clock] += taken[clock] - inner[clock]
                if self._open:
                    self._open[-1][clock] += taken[clock]

    def time_calls(self, owner, function, name):
        """Time the calls of a function or method, to be found in `owner`, as a part."""
        plain = getattr(owner, function)

        def timed(*given, **named):
            with self(name):
                return plain(*given, **named)

        setattr(owner, function, timed)

    def report(self, metrics):
        """Print the parts and metrics as one line of JSON, the last of the output."""
        sys.stdout.write("\n" + json.dumps({"parts": self._seconds, "metrics": metrics}) + "\n")
        sys.stdout.flush()
