"""Starts of a tool's ranks, and the signal that cuts one off at a moment that the ranks' journal names."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD_SECONDS = 4.0
"""How long rank 0 stays at the moment after a SIGTERM, as in a long step: Trainer waits 3 s before it acts on one."""
_GRACE_SECONDS = 15.0
"""From the death of one rank until the others are killed, as a launcher does."""


class Zygote:
    """A tool's interpreter with its libraries loaded, from which ranks are forked.

    Args:
        python: The interpreter.
        modules: What it imports first.
    """

    def __init__(self, python: Path, modules: Sequence[str]) -> None:
        command = [str(python), str(Path(__file__).with_name("zygote.py")), *modules]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **job: Any) -> dict[str, Any]:
        """Send a line, and return the answer.

        Raises:
            RuntimeError: The interpreter has ended, such as for a library that it lacks.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args[0]} ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the interpreter."""
        self._process.communicate()


class Rank:
    """A forked process."""

    def __init__(self, zygote: Zygote, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._zygote = zygote
        self.pid = int(zygote.ask(command=list(command), environment=dict(environment), log=str(log))["pid"])
        self.status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        if self.status is None:
            self.status = self._zygote.ask(poll=self.pid)["status"]
        return self.status

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


@dataclass(frozen=True)
class Ended:
    """How a start ended.

    Attributes:
        statuses: Exit status of each rank, negative for a signal.
        journal: Lines of all ranks.
        began: Time of the start, in seconds since the epoch.
        last_line: Last line that the ranks wrote.
        hung: Whether ranks were killed because they did not end.
    """

    statuses: list[int]
    journal: list[dict[str, Any]]
    began: float
    last_line: str
    hung: bool


def start(
    zygote: Zygote,
    command: Sequence[str],
    ranks: int,
    journal: Path,
    *,
    cut: str = "",
    send: str = "",
    seconds: float = 120,
) -> Ended:
    """Run a command as a launcher does, and cut it off if asked to.

    Args:
        zygote: Of the tool.
        command: Script and arguments of every rank.
        ranks: Number of processes.
        journal: File that `scripts/watch.py` writes; a log of the same name is beside it.
        cut: "moment:step", at which all ranks get the signal; nothing for a start that is left alone.
        send: Name of the signal.
        seconds: After which all are killed.

    Raises:
        RuntimeError: The moment did not come.
    """
    log = journal.with_suffix(".log")
    environment = {"RESUME_JOURNAL": str(journal), "RESUME_CUT": cut}
    port, began = _free_port(), time.time()
    processes = [Rank(zygote, command, environment | _place(rank, ranks, port), log) for rank in range(ranks)]
    deadline = time.monotonic() + seconds
    try:
        if cut:
            _await_moment(journal, processes, deadline, log)
            for process in processes:
                process.send(signal.Signals[send])
            if send != "SIGKILL":
                _wait(processes, time.monotonic() + HELD_SECONDS)
            journal.with_suffix(".struck").touch()
        while True:
            if any(process.poll() not in (None, 0) for process in processes):
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            if _wait(processes, deadline) or time.monotonic() >= deadline:
                break
    finally:
        hung = any(process.poll() is None for process in processes)
        for process in processes:
            process.send(signal.SIGKILL)
        while not _wait(processes, time.monotonic() + seconds):
            pass
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    statuses = [process.status or 0 for process in processes]
    return Ended(statuses, read_journal(journal), began, lines[-1] if lines else "", hung)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a journal; a kill may have left half of the last one."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return the environment that torchrun gives a rank; none for a single process."""
    if ranks == 1:
        return {}
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks), "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "resume", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0",
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(processes: Sequence[Rank], deadline: float) -> bool:
    """Wait until a further rank has ended, at most until the deadline; whether all have."""
    before = sum(process.poll() is not None for process in processes)
    while time.monotonic() < deadline:
        ended = sum(process.poll() is not None for process in processes)
        if ended == len(processes):
            return True
        if ended > before:
            return False
        time.sleep(0.05)
    return all(process.poll() is not None for process in processes)


def _await_moment(journal: Path, processes: Sequence[Rank], deadline: float, log: Path) -> None:
    while not any(line["event"] == "moment" for line in read_journal(journal)):
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise RuntimeError(f"the moment did not come: {log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.05)
