"""Starts of `genre-lightning` that cost no imports: ranks forked by a server that has the libraries loaded."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

WORKER = Path(__file__).with_name("worker.py")
sys.path.insert(0, str(WORKER.parent))

PRELOADED = (
    "genre_lightning.training.fit",
    "genre_lightning.training.reevaluate",
    "genre_lightning.distributed.sharded",
    "datasets.arrow_writer",
    "transformers.models.distilbert.modeling_distilbert",
    "torch._dynamo",  # transformers and the optimizers ask it whether they are compiled
)
OF_QLORA = ("genre_lightning.models.llama_qlora", "peft", "bitsandbytes", "transformers.models.llama.modeling_llama")
_AGENT_GRACE_SECONDS = 15
"""From the death of one rank until those that have not ended are killed; torchrun has a longer one of this."""


@dataclass(frozen=True)
class Ended:
    """How a start ended.

    Attributes:
        statuses: Exit status of each rank, negative for a signal.
        said: What the ranks wrote.
        forced: Ranks that did not end by themselves after another had died.
    """

    statuses: list[int]
    said: str
    forced: list[int]

    @property
    def status(self) -> int:
        """Of the whole: the first failure of a rank that ended by itself, else 75 if a rank was preempted, else 0."""
        failures = [(rank in self.forced, status) for rank, status in enumerate(self.statuses) if status not in (0, 75)]
        return min(failures, key=lambda one: one[0])[1] if failures else max(self.statuses)


class HungError(AssertionError):
    """A start did not end in its time."""


def _rank(words: Sequence[str], environment: Mapping[str, str], log: str, family: Connection, seconds: float) -> None:
    """Run a rank's process, fresh from the fork server."""
    os.setsid()
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    faulthandler.enable(file=2)  # a crash in a library's code names its line
    faulthandler.dump_traceback_later(seconds, file=2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(WORKER), *words]
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = int(environment.get("RANK", 0))  # which an import in this process would have read
    import worker

    processes: list[int] = family.recv()
    family.close()
    sys.exit(worker.run(words, processes))


def start_ranks(
    words: Sequence[str], ranks: int, log: Path, environment: Mapping[str, str], *, seconds: float
) -> Ended:
    """Start the command as torchrun does, a process for each rank, and end all ranks when one dies.

    Args:
        words: Arguments of the command line.
        ranks: 1 starts a plain process.
        log: File that gets what the ranks write.
        environment: Environment variables of the ranks, besides this process's own.
        seconds: Time after which the start counts as hung.

    Raises:
        HungError: The ranks hang; their stacks are in the log.
    """
    context = multiprocessing.get_context("forkserver")
    begins = log.stat().st_size if log.is_file() else 0
    before = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | dict(environment)
    store = None
    if ranks > 1:
        from torch.distributed import TCPStore

        # the system chooses the port, and it is held until the last rank has ended
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    last_words = [log.with_suffix(f".rank{rank}.json") for rank in range(ranks)]
    for path in last_words:
        path.unlink(missing_ok=True)
    processes: list[BaseProcess] = []
    families: list[Connection] = []
    for rank in range(ranks):
        place = {} if store is None else _torchrun_environment(rank, ranks, store.port, last_words[rank])
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(words, before | place, str(log), receiver, 0.8 * seconds))
        process.start()
        receiver.close()
        processes.append(process)
        families.append(sender)
    for family in families:
        family.send([process.pid for process in processes])
        family.close()
    forced = _wait_as_torchrun(processes, time.monotonic() + seconds)
    said = log.read_bytes()[begins:].decode(errors="replace") if log.is_file() else ""
    if forced is None:
        raise HungError(f"still running after {seconds} s: {[p.exitcode for p in processes]}; {said[-3000:]}")
    statuses = [int(process.exitcode or 0) for process in processes]
    if forced:  # what the others died of is for torchrun to tell
        words_left = [json.loads(path.read_text())["message"]["message"] for path in last_words if path.is_file()]
        said += "\n".join([f"the ranks ended with {statuses}, killed as they hung: {forced}", *words_left])
    return Ended(statuses, said, forced)


def preload(*more: str) -> None:
    """Name what the server loads when it is first needed."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOADED, *more])


preload()


def _torchrun_environment(rank: int, ranks: int, port: int, last_words: Path) -> dict[str, str]:
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "ROLE_RANK": str(rank),
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_WORLD_SIZE": "1",
        "ROLE_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_ERROR_FILE": str(last_words),
    }  # fmt: skip


def _wait_as_torchrun(processes: Sequence[BaseProcess], deadline: float) -> list[int] | None:
    """Wait for all to end; return the ranks that had to be killed, or None if the deadline passed."""
    forced: list[int] = []
    dying = False
    while running := [process for process in processes if process.exitcode is None]:
        wait([process.sentinel for process in running], timeout=max(0.0, deadline - time.monotonic()))
        late = time.monotonic() >= deadline
        for rank, process in enumerate(processes):
            if late and process.exitcode is None and rank not in forced:
                forced.append(rank)
                process.kill()
        if late and not dying:
            for process in processes:
                process.join()
            return None
        if not dying and any(process.exitcode not in (None, 0) for process in processes):
            dying, deadline = True, time.monotonic() + _AGENT_GRACE_SECONDS
            for process in processes:
                if process.exitcode is None:
                    process.terminate()
    return forced


def start_by_lightning(
    words: Sequence[str], log: Path, environment: Mapping[str, str], *, seconds: float, by: Sequence[str] = ()
) -> Ended:
    """Start the command as a user does from a shell; Lightning starts the ranks past the first.

    Args:
        words: Arguments of the command line.
        log: File that gets what the ranks write.
        environment: Environment variables of the command, besides this process's own.
        seconds: Time after which the start counts as hung.
        by: Words of another launcher that start the worker, in place of Python.

    Raises:
        HungError: It did not end in its time.
    """
    before = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | dict(environment)
    begins = log.stat().st_size if log.is_file() else 0
    with log.open("ab") as file:
        command = [*(by or [sys.executable]), str(WORKER), *words]
        process = subprocess.Popen(command, env=before, stdout=file, stderr=file, start_new_session=True)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise HungError(f"still running after {seconds} s; {log.read_text(errors='replace')[-3000:]}") from None
    return Ended([status], log.read_bytes()[begins:].decode(errors="replace"), [])
