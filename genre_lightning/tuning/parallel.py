"""Several workers of a study on one machine, each a process with a device of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

import torch
import yaml

from genre_lightning.distributed.precision import accelerator_of
from genre_lightning.distributed.signals import BEFORE_EXIT, FLAG
from genre_lightning.errors import ConfigError, PreemptedError
from genre_lightning.progress import say
from genre_lightning.tuning.study import StudyDirectory

TUNER = "GENRE_LIGHTNING_TUNER"
"""Process id of the tuner that started a worker, which ends with it."""
_POLL_SECONDS = 0.2
_LAST_LINES_SECONDS = 2.0


def check_parallel(folder: StudyDirectory, count: int) -> list[str]:
    """Return the device of each worker, as CUDA_VISIBLE_DEVICES takes it; empty for workers on the CPU.

    Args:
        folder: Of the study.
        count: Of the workers.

    Raises:
        ConfigError: There are fewer GPUs than workers.
    """
    accelerator = yaml.safe_load(folder.base.read_text(encoding="utf-8"))["trainer"]["accelerator"]
    if accelerator_of(accelerator) != "cuda":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if count > len(devices):
        raise ConfigError(
            f"--parallel {count}: a worker trains on one GPU, and this machine has {len(devices)}: give at most that"
        )
    return devices[:count]


def run_workers(folder: StudyDirectory, count: int, devices: Sequence[str], options: Sequence[str]) -> list[int]:
    """Start workers, and wait for all of them; a stop signal is passed on, and waits until they have saved.

    Args:
        folder: Of the study.
        count: Of the workers.
        devices: See `check_parallel`.
        options: Of `tune` for each worker.

    Returns:
        The exit status of each.

    Raises:
        PreemptedError: A signal has stopped them.
    """
    command = [sys.executable, "-m", "genre_lightning", "tune", "--study", str(folder.path), "--worker", *options]
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    workers: list[subprocess.Popen[str]] = []
    copiers: list[threading.Thread] = []
    BEFORE_EXIT.append(lambda: _signal(workers, signal.SIGKILL))
    # from here on a signal waits: the workers save their state
    FLAG.waiting = True
    try:
        for number in range(count):
            environment = {"OMP_NUM_THREADS": threads, **os.environ, TUNER: str(os.getpid())}
            if devices:
                environment["CUDA_VISIBLE_DEVICES"] = devices[number]
            # in a session of its own: Ctrl-C reaches this process, which passes it on once
            worker = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                start_new_session=True,
            )  # fmt: skip
            workers.append(worker)
            assert worker.stdout is not None
            copier = threading.Thread(target=_copy, args=(number, worker.stdout), daemon=True)
            copier.start()
            copiers.append(copier)
        return _wait(workers)
    finally:
        FLAG.waiting = False
        _signal(workers, signal.SIGKILL)
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


def _copy(number: int, lines: IO[str]) -> None:
    for line in lines:
        say(f"[{number}] {line.rstrip()}")
