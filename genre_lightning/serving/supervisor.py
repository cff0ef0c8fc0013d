"""The process that starts workers, starts them again when they die, replaces them on a reload, and stops them."""

from __future__ import annotations

import errno
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from genre_lightning.distributed.signals import BEFORE_EXIT, leave_ending_to_main
from genre_lightning.errors import ConfigError, GenreLightningError, one_line
from genre_lightning.runs import open_run
from genre_lightning.serving.counters import WIDTH, Counters
from genre_lightning.serving.logs import log
from genre_lightning.serving.options import ServeOptions
from genre_lightning.serving.worker import work

_POLL_SECONDS = 0.2
_LONGEST_PAUSE = 30.0
"""Seconds between two starts of a worker that fails again and again."""
_BACKLOG = 512


class ServiceError(GenreLightningError):
    """A worker could not be started."""

    exit_status = 1


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    counters: Counters
    checkpoint: str = ""
    failure: tuple[str, int] | None = None

    @property
    def is_ready(self) -> bool:
        return bool(self.checkpoint)


@dataclass
class _Reload:
    """Workers that are replaced one after the other.

    Attributes:
        run: What the new ones serve.
        asked: Workers that wait for the outcome, each once for every request.
        left: Numbers still to be replaced.
        done: Numbers that have been.
        new: The worker that is being started.
        failure: Why `run` could not be served, if this is the way back to the former run.
    """

    run: Path
    asked: list[_Worker]
    left: list[int]
    done: list[int] = field(default_factory=list)
    new: _Worker | None = None
    failure: str | None = None


class Supervisor:
    """Workers of a service.

    Args:
        options: Of the service.
        listener: Socket that the workers accept connections from.
        on_ready: Called once when all workers answer.
    """

    def __init__(self, options: ServeOptions, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        self.options, self.listener, self.on_ready = options, listener, on_ready
        self._context = get_context("spawn")  # a fork would copy the threads' locks
        # a worker and the one that replaces it count apart
        self._memory = self._context.RawArray("d", 2 * WIDTH * options.workers)
        # a link is followed at the start and by a reload alone: workers that die meanwhile come back with the same run
        self._run = options.run.resolve()
        self._workers: dict[int, _Worker] = {}
        self._leaving: list[_Worker] = []
        self._pauses: dict[int, tuple[float, float]] = {}
        """By number of a worker that died: when it is started again, and the pause before that."""
        self._reload: _Reload | None = None
        self._asked_next: list[_Worker] = []
        """Workers that have asked during a reload: the run may be another one since it began."""
        self._wants_stop = self._wants_reload = self._announced = False

    def run(self) -> int:
        """Serve until a signal asks to stop; return the exit status.

        Raises:
            ServiceError: A worker fails at its first start.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        leave_ending_to_main()
        BEFORE_EXIT.append(self._kill)
        try:
            for number in range(self.options.workers):
                self._workers[number] = self._start(number, self._run)
            while not self._wants_stop:
                self._step()
            return 0
        finally:
            self._end()
            BEFORE_EXIT.remove(self._kill)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._wants_stop = True

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self._wants_reload = True

    def _start(self, number: int, run: Path) -> _Worker:
        here, there = self._context.Pipe()
        former = self._workers.get(number)
        slot = number + (self.options.workers if former and former.counters.slot == number else 0)
        counters = Counters(self._memory, slot)
        process = self._context.Process(
            target=work,
            args=(self.options, run, number, self.listener, there, counters),
            name=f"worker-{number}",
            daemon=True,
        )
        # for a terminal's whole group; the worker ignores it as soon as it runs
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        there.close()
        counters.add("worker_starts")
        return _Worker(number, process, here, counters)

    def _everyone(self) -> list[_Worker]:
        new = self._reload.new if self._reload else None
        return [*self._workers.values(), *self._leaving, *([new] if new else [])]

    def _step(self) -> None:
        everyone = self._everyone()
        events = wait([part for one in everyone for part in (one.pipe, one.process.sentinel)], _POLL_SECONDS)
        if self._wants_stop:  # Ctrl-C ends workers that are still loading, too
            return
        for one in everyone:
            if one.pipe in events:
                self._read(one)
        for one in everyone:
            if not one.process.is_alive():
                self._ended(one)
        now = time.monotonic()
        for number, (due, _) in list(self._pauses.items()):
            if number not in self._workers and now >= due:
                reload = self._reload
                run = reload.run if reload and number in reload.done else self._run
                self._workers[number] = self._start(number, run)
        if self._reload is None and (self._wants_reload or self._asked_next):
            self._begin_reload()
        if not self._announced and len(self._workers) == self.options.workers and all(
            one.is_ready for one in self._workers.values()
        ):  # fmt: skip
            self._announced = True
            self.on_ready()

    def _read(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return
        if message[0] == "ready":
            worker.checkpoint = message[1]
            self._pauses.pop(worker.number, None)
            log("worker ready", worker=worker.number, pid=worker.process.pid, checkpoint=message[1])
            if self._reload and self._reload.new is worker:
                self._replace(worker)
        elif message[0] == "failed":
            worker.failure = (message[1], message[2])
        elif message[0] == "reload":
            self._asked_next.append(worker)

    def _ended(self, worker: _Worker) -> None:
        if worker.pipe.poll():
            self._read(worker)
        worker.pipe.close()
        worker.counters.clear_gauges()
        if worker in self._leaving:
            self._leaving.remove(worker)
            return
        line, status = worker.failure or (f"worker {worker.number} ended ({worker.process.exitcode})", 1)
        if self._reload and self._reload.new is worker:
            self._go_back(line)
            return
        del self._workers[worker.number]
        if not self._announced:
            error = ServiceError(line)
            error.exit_status = status
            raise error
        _, pause = self._pauses.get(worker.number, (0.0, 0.0))
        log("worker ended", worker=worker.number, pid=worker.process.pid, reason=line, again_in_seconds=pause)
        self._pauses[worker.number] = (time.monotonic() + pause, min(max(1.0, 2 * pause), _LONGEST_PAUSE))

    def _begin_reload(self) -> None:
        log("reload")
        self._reload = _Reload(self.options.run.resolve(), self._asked_next, list(range(self.options.workers)))
        self._wants_reload, self._asked_next = False, []
        try:
            open_run(self._reload.run)  # before a worker loads libraries for seconds
        except GenreLightningError as error:
            self._end_reload(f"the former run stays: {one_line(error)}")
            return
        self._next_replacement()

    def _next_replacement(self) -> None:
        assert self._reload
        if self._reload.left:
            self._reload.new = self._start(self._reload.left[0], self._reload.run)
        else:
            self._end_reload(self._reload.failure and f"the former run stays: {self._reload.failure}")

    def _replace(self, new: _Worker) -> None:
        """Put a worker that is ready in the place of the one with its number."""
        assert self._reload
        self._reload.new = None
        self._reload.done.append(self._reload.left.pop(0))
        old = self._workers.get(new.number)
        self._workers[new.number] = new
        if old:
            self._leaving.append(old)
            self._drain(old)
        self._next_replacement()

    def _go_back(self, line: str) -> None:
        """Replace the workers that serve a run which another one could not load by workers of the former run."""
        assert self._reload
        if self._reload.failure:
            stay = f"workers {', '.join(map(str, self._reload.left))} serve the new one ({line})"
            self._end_reload(f"{self._reload.failure}; {stay}: start the service again")
            return
        self._reload = _Reload(self._run, self._reload.asked, self._reload.done, failure=line)
        self._next_replacement()

    def _end_reload(self, failure: str | None) -> None:
        assert self._reload
        ended, self._reload = self._reload, None
        log("reloaded" if failure is None else "not reloaded", **({} if failure is None else {"reason": failure}))
        if failure is None:
            self._run = ended.run
        checkpoint = next((one.checkpoint for one in self._workers.values()), "")
        for one in ended.asked:
            self._send(one, ("reloaded", failure, checkpoint))
        for one in self._leaving:
            if one in ended.asked:
                self._drain(one)

    def _drain(self, leaving: _Worker) -> None:
        """Have a replaced worker end after its requests; one that was asked for a reload answers that first."""
        if not (leaving in self._asked_next or (self._reload and leaving in self._reload.asked)):
            self._send(leaving, ("drain",))

    def _send(self, worker: _Worker, message: tuple[object, ...]) -> None:
        try:
            worker.pipe.send(message)
        except OSError:
            log("worker unreachable", worker=worker.number)

    def _end(self) -> None:
        """Stop all workers; each finishes the requests that it has."""
        self.listener.close()
        everyone = self._everyone()
        for one in everyone:
            one.process.terminate()
        end = time.monotonic() + self.options.limits.seconds + 5
        for one in everyone:
            one.process.join(max(0.0, end - time.monotonic()))
        self._kill()

    def _kill(self) -> None:
        for one in self._everyone():
            if one.process.is_alive():
                one.process.kill()


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of a service.

    Raises:
        ConfigError: The port is in use or not allowed, or the machine has no such address.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:  # a label of a name is empty or too long
        if listener:
            listener.close()
        fixes = {
            errno.EADDRINUSE: "it is in use: stop the other program, or give another --port",
            errno.EACCES: "it is not allowed: give a --port from 1024 on",
        }
        other = f"{one_line(error)}: give an address of this machine with --host"
        fix = fixes.get(getattr(error, "errno", None) or 0, other)
        raise ConfigError(f"--port {port} of --host {host}: {fix}") from None
    listener.set_inheritable(True)
    return listener
