"""A long load on `genre-lightning serve`: its memory over time, and a worker that is killed half-way.

    python benchmarks/serving/soak.py RUN [--requests 100000] [--clients 8] [--workers 2] [--seconds 14400]
        [--every 1] [--out FOLDER] [--name serving_soak]

Texts of all lengths, requests of several films and some corrections, in an order that a seed fixes. After half of the
requests, one worker gets SIGKILL. Writes NAME.json and NAME.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from client import Load, Request, load  # noqa: E402
from machine import machine  # noqa: E402
from servers import free_port, running  # noqa: E402

from genre_lightning.evaluation.runs import Run  # noqa: E402
from genre_lightning.runs import kind_of  # noqa: E402

WARM_UP = 0.25
"""Fraction of the requests after which a worker has met most sizes of batches."""
FLAT = 0.05
"""Deviation of a process's resident memory from its median after the warm-up, at most."""
_SEED = 7
_SECONDS_TO_COME_BACK = 300
_SHOWN_SAMPLES = 200
_LISTS, _CORRECTIONS = 0.10, 0.02
"""Fractions of the requests."""


def requests_of(texts: list[str], genres: list[str]) -> Callable[[int], Request]:
    """Make the request with a number: mostly one film, of a few words up to four plots."""

    def text(draw: random.Random) -> str:
        words = " ".join(draw.choices(texts, k=draw.randint(1, 4))).split()
        return " ".join(words[: draw.randint(1, len(words))])

    def request(number: int) -> Request:
        draw = random.Random(_SEED * 1_000_003 + number)
        kind = draw.random()
        if kind < _CORRECTIONS:
            return "/v1/feedback", {"text": text(draw), "genres": draw.sample(genres, 2), "user": f"user {number % 5}"}
        if kind < _CORRECTIONS + _LISTS:
            return "/v1/tag", {"films": [{"text": text(draw)} for _ in range(draw.randint(2, 8))]}
        return "/v1/tag", {"text": text(draw)}

    return request


@dataclass
class Watch:
    """Samples of the processes' memory, and the kill.

    Attributes:
        log: The service's log, which names the workers' processes.
        supervisor: Its process.
        samples: By process: how many requests had ended, and its resident bytes.
        seen: Processes of workers, in the order in which they were ready.
        killed: Process of the killed worker; 0 before.
        killed_at: In seconds of `time.monotonic`.
    """

    log: Path
    supervisor: int
    found: Load
    kill_after: int
    every: float
    samples: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    killed: int = 0
    killed_at: float = 0.0

    def workers(self) -> list[int]:
        """Return the processes of all workers that were ever ready."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line)["pid"] for line in lines if '"event": "worker ready"' in line]

    def run(self, stop: threading.Event) -> None:
        """Sample until asked to stop."""
        self.seen = self.workers()
        while not stop.wait(self.every):
            if self.killed and self.seen[-1] == self.killed:
                self.seen = self.workers()
            elif not self.killed and self.found.done >= self.kill_after:
                self.killed, self.killed_at = self.seen[-1], time.monotonic()
                os.kill(self.killed, signal.SIGKILL)
            for process in (self.supervisor, *self.seen):
                if resident := resident_bytes(process):
                    self.samples.setdefault(process, []).append((self.found.done, resident))


def resident_bytes(process: int) -> int:
    """Return a process's resident memory; 0 of one that has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory(samples: list[tuple[int, int]], requests: int) -> dict[str, Any]:
    """Describe the memory of a process; its deviation is None if it did not outlive its warm-up."""
    first = samples[0][0] + WARM_UP * requests
    warm = [resident for done, resident in samples if done >= first]
    middle = statistics.median(warm) if warm else 0
    step = max(1, len(samples) // _SHOWN_SAMPLES)
    return {
        "median_mib": round(middle / 2**20, 1) if warm else None,
        "first_mib": round(warm[0] / 2**20, 1) if warm else None,
        "last_mib": round(samples[-1][1] / 2**20, 1),
        "deviation": round(max(abs(one / middle - 1) for one in warm), 4) if warm else None,
        "samples": [[done, round(resident / 2**20, 1)] for done, resident in samples[::step]],
    }


def model_of(run: Run) -> str:
    """Name the model of a run: its backbone, or the command that made a run without one."""
    settings = run.files.settings()
    return str(settings.get("model", {}).get("init_args", {}).get("backbone") or kind_of(settings))


def page(result: dict[str, Any]) -> str:
    """Write the results for people."""
    where = result["machine"]
    workers = f"{result['workers']} worker{'s' * (result['workers'] > 1)}"
    lines = [
        f"# benchmarks/serving/soak.py, {result['date']}",
        "",
        f"{where['cores']} cores of {where['processor']}, Python {where['python']}, torch {where['torch']}; load "
        f"average {where['load_average']} at the start. {result['done']:,} of {result['requests']:,} requests by "
        f"{result['clients']} clients to {workers} of a run of {result['model']} in {result['minutes']:.1f} minutes.",
        "",
        f"Outcomes: {', '.join(f'{count:,} {name}' for name, count in sorted(result['outcomes'].items()))}; "
        f"{result['corrections_stored']:,} corrections stored. Worker starts: {result['worker_starts']}.",
        "",
        "| process | resident after warm-up | at the end | largest deviation |",
        "|---|---:|---:|---:|",
    ]
    for name, one in result["memory"].items():
        warm = f"{one['median_mib']:,.0f} MiB" if one["median_mib"] else "–"
        deviation = f"{one['deviation']:.1%}" if one["deviation"] is not None else "no samples after it"
        lines.append(f"| {name} | {warm} | {one['last_mib']:,.0f} MiB | {deviation} |")
    lines += ["", "| aim | kept |", "|---|---|"]
    lines += [f"| {aim} | {'yes' if kept else 'no'} |" for aim, kept in result["aims"].items()]
    return "\n".join(lines) + "\n"


def counter(url: str, name: str) -> int:
    """Read a counter of the service."""
    from urllib.request import urlopen

    with urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith(f"genre_lightning_{name}_total "))))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4 * 3600)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two samples of memory")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    parser.add_argument("--name", default="serving_soak", help="of the two files in the folder")
    options = parser.parse_args()
    where = machine("cpu")
    stored = Run(options.run).predictions("test").predictions
    request, found, stop = requests_of(stored.texts, list(stored.genres)), Load(), threading.Event()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        arguments = ["-m", "genre_lightning", "serve", str(options.run), "--port", str(port), "--similar", "0",
                     "--workers", str(options.workers), "--db", str(Path(name) / "feedback.db")]  # fmt: skip
        with running(arguments, port, log) as service:
            watch = Watch(log, service.pid, found, options.requests // 2, options.every)
            _until(lambda: len(watch.workers()) == options.workers)
            watching = threading.Thread(target=watch.run, args=(stop,))
            watching.start()
            load(url, request, options.clients, options.requests, options.seconds, found)
            _until(lambda: not watch.killed or len(watch.workers()) == options.workers + 1)
            after = load(url, request, options.clients, 10 * options.clients, 120)
            stop.set()
            watching.join()
            starts, corrections = counter(url, "worker_starts"), counter(url, "feedback")
        status = service.returncode
    names = {watch.supervisor: "supervisor"}
    for place, process in enumerate(watch.seen, start=1):
        names[process] = f"worker {place}" + (", killed" if process == watch.killed else "")
    kinds = {names[process]: memory(samples, options.requests) for process, samples in watch.samples.items()}
    deviations = [one["deviation"] for one in kinds.values() if one["deviation"] is not None]
    late = [began - watch.killed_at for began in found.lost]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "model": model_of(Run(options.run)),
        "requests": options.requests,
        "done": found.done,
        "clients": options.clients,
        "workers": options.workers,
        "minutes": round(found.wall / 60, 2),
        "outcomes": dict(found.outcomes),
        "lost_began_seconds_after_the_kill": [round(one, 3) for one in late],
        "after_the_restart": dict(after.outcomes),
        "corrections_stored": corrections,
        "worker_starts": starts,
        "memory": kinds,
        "aims": {
            f"resident memory of each process within {FLAT:.0%} of its median after the warm-up": bool(deviations)
            and max(deviations) <= FLAT,
            "no answer other than 200": set(found.outcomes) - {"200"} <= _LOST,
            "a request is lost only once per client, at the kill": len(late) <= options.clients
            and all(one <= 1 for one in late),
            "the worker came back": starts == options.workers + 1 and set(after.outcomes) == {"200"},
            "the service ended with status 0": status == 0,
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(page(result))
    print(page(result), end="")


_LOST = {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "IncompleteRead"}
"""How a client sees that a worker has died."""


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS_TO_COME_BACK
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"no worker was ready within {_SECONDS_TO_COME_BACK} s")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
