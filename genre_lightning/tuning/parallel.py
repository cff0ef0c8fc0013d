"""Several processes of a study on one machine: its workers, each with devices of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from genre_lightning.config.trust import trusted_packages
from genre_lightning.distributed.precision import accelerator_of
from genre_lightning.distributed.signals import BEFORE_EXIT, FLAG
from genre_lightning.distributed.strategies import devices_here
from genre_lightning.errors import ConfigError, GenreLightningError, PreemptedError
from genre_lightning.hardware import usable_cpus
from genre_lightning.progress import say
from genre_lightning.tuning.study import StudyDirectory

TUNER = "GENRE_LIGHTNING_TUNER"
"""Process id of the tuner that started a worker, or of the worker that started a trial's ranks, which end with it."""
_POLL_SECONDS = 0.2
_LAST_LINES_SECONDS = 2.0


class WorkersError(GenreLightningError):
    """Workers have failed, and left work undone.

    Args:
        statuses: Exit status of each worker.
    """

    exit_status = 1

    def __init__(self, statuses: Sequence[int]) -> None:
        super().__init__(
            f"workers ended with status {', '.join(map(str, statuses))}: fix what they report, then run the same "
            "command again"
        )


def worker_devices(accelerator: str, workers: int, each: int) -> list[str]:
    """Return the devices of each worker, as CUDA_VISIBLE_DEVICES takes them; empty for workers on the CPU.

    Args:
        accelerator: As Lightning takes it.
        workers: At once on this machine.
        each: Devices of a worker, a rank on each.

    Raises:
        ConfigError: This machine has fewer devices.
    """
    kind = accelerator_of(accelerator)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if kind == "cuda" else None
    most, there = devices_here(kind)
    if visible:
        most, there = len(visible.split(",")), f"CUDA_VISIBLE_DEVICES={visible}"
    if workers * each > most and workers * each > 1:
        options = [f"--parallel {workers}"] * (workers > 1) + [f"--devices_per_trial {each}"] * (each > 1)
        raise ConfigError(
            f"{' with '.join(options)} needs {workers * each} devices, and this machine has {there}: give at most "
            f"{most} in all"
        )
    if kind != "cuda":
        return []
    devices = visible.split(",") if visible else [str(number) for number in range(most)]
    return [",".join(devices[number * each : (number + 1) * each]) for number in range(workers)]


def run_workers(
    folder: StudyDirectory, count: int, devices: Sequence[str], options: Sequence[str], each: int = 1
) -> list[int]:
    """Start workers, and wait for all of them; a stop signal is passed on, and waits until they have saved.

    Args:
        folder: Of the study.
        count: Of the workers.
        devices: See `worker_devices`.
        options: Of `tune` for each worker.
        each: Devices of a worker.

    Returns:
        The exit status of each.

    Raises:
        PreemptedError: A signal has stopped them.
    """
    words = ["tune", "--study", str(folder.path), "--worker", "--devices_per_trial", str(each), *options]
    visible = [{"CUDA_VISIBLE_DEVICES": own} for own in devices] or [{} for _ in range(count)]
    return run_commands([(words, own) for own in visible], count * each, lambda number, line: say(f"[{number}] {line}"))


def run_commands(
    commands: Sequence[tuple[Sequence[str], Mapping[str, str]]], ranks: int, show: Callable[[int, str], None]
) -> list[int]:
    """Run commands of genre-lightning at once, each in a process that ends with this one.

    Args:
        commands: Arguments of each, and what is added to its environment.
        ranks: Of all of them, which share this machine's cores.
        show: Takes the number of a process and each line that it prints.

    Returns:
        The exit status of each.

    Raises:
        PreemptedError: A signal has stopped them; it was passed on, and they have saved.
    """
    trust = [word for package in trusted_packages() for word in ("--trust", package)]
    threads = str(max(1, usable_cpus() // ranks))
    processes: list[subprocess.Popen[str]] = []
    copiers: list[threading.Thread] = []

    def kill() -> None:
        _signal(processes, signal.SIGKILL)

    BEFORE_EXIT.append(kill)
    # from here on a signal waits: the processes save their state
    FLAG.waiting = True
    try:
        for number, (words, added) in enumerate(commands):
            # in a session of its own: Ctrl-C reaches this process, which passes it on once
            process = subprocess.Popen(
                [sys.executable, "-m", "genre_lightning", *words, *trust],
                env={"OMP_NUM_THREADS": threads, **os.environ, **added, TUNER: str(os.getpid())},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            processes.append(process)
            assert process.stdout is not None
            copier = threading.Thread(target=_copy, args=(number, process.stdout, show), daemon=True)
            copier.start()
            copiers.append(copier)
        return _wait(processes)
    finally:
        FLAG.waiting = False
        kill()
        BEFORE_EXIT.remove(kill)
        for copier in copiers:  # the last lines; a process that a worker has left may hold the pipe
            copier.join(_LAST_LINES_SECONDS)


def _wait(workers: Sequence[subprocess.Popen[str]]) -> list[int]:
    passed_on = False
    while True:
        running = False
        for worker in workers:
            try:
                worker.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                running = True
        if FLAG.raised() and not passed_on:
            _signal(workers, signal.SIGTERM)
            passed_on = True
        if not running:
            break
    statuses = [worker.returncode for worker in workers]
    if passed_on or PreemptedError.exit_status in statuses:
        raise PreemptedError(
            f"stopped by {FLAG.signal or 'a signal to a worker'}: run the same command again to resume"
        )
    return statuses


def _signal(workers: Sequence[subprocess.Popen[str]], number: signal.Signals) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def _copy(number: int, lines: IO[str], show: Callable[[int, str], None]) -> None:
    with lines:
        for line in lines:
            show(number, line.rstrip())
