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
    ready: bool = False
    leaving: bool = False
    checkpoint: str = ""
    failure: tuple[str, int] | None = None


@dataclass
class _Reload:
    """Workers still to be replaced, who has asked for it, and the worker that is being started."""

    left: list[int]
    asked: list[_Worker] = field(default_factory=list)
    new: _Worker | None = None


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
        self._memory = self._context.RawArray("d", WIDTH * options.workers)
        self._workers: dict[int, _Worker] = {}
        self._leaving: list[_Worker] = []
        self._pauses: dict[int, tuple[float, float]] = {}
        """By number of a worker that died: when it is started again, and the pause before that."""
        self._reload: _Reload | None = None
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
                self._workers[number] = self._start(number)
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

    def _start(self, number: int) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=work,
            args=(self.options, number, self.listener, there, self._memory),
            name=f"worker-{number}",
            daemon=True,
        )
        process.start()
        there.close()
        Counters(self._memory, number).add("worker_starts")
        return _Worker(number, process, here)

    def _everyone(self) -> list[_Worker]:
        new = self._reload.new if self._reload else None
        return [*self._workers.values(), *self._leaving, *([new] if new else [])]

    def _step(self) -> None:
        everyone = self._everyone()
        events = wait([part for one in everyone for part in (one.pipe, one.process.sentinel)], _POLL_SECONDS)
        for one in everyone:
            if one.pipe in events:
                self._read(one)
        for one in everyone:
            if not one.process.is_alive():
                self._ended(one)
        now = time.monotonic()
        for number, (due, _) in list(self._pauses.items()):
            if number not in self._workers and now >= due:
                self._workers[number] = self._start(number)
        if self._wants_reload:
            self._wants_reload = False
            self._begin_reload(None)
        if not self._announced and len(self._workers) == self.options.workers and all(
            one.ready for one in self._workers.values()
        ):  # fmt: skip
            self._announced = True
            self.on_ready()

    def _read(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            return
        if message[0] == "ready":
            worker.ready, worker.checkpoint = True, message[1]
            self._pauses.pop(worker.number, None)
            log("worker ready", worker=worker.number, pid=worker.process.pid, checkpoint=message[1])
            if self._reload and self._reload.new is worker:
                self._replace(worker)
        elif message[0] == "failed":
            worker.failure = (message[1], message[2])
        elif message[0] == "reload":
            self._begin_reload(worker)

    def _ended(self, worker: _Worker) -> None:
        if worker.pipe.poll():
            self._read(worker)
        worker.pipe.close()
        if worker in self._leaving:
            self._leaving.remove(worker)
            return
        line, status = worker.failure or (f"worker {worker.number} ended ({worker.process.exitcode})", 1)
        if self._reload and self._reload.new is worker:
            self._end_reload(line)
            return
        del self._workers[worker.number]
        if not self._announced:
            error = ServiceError(line)
            error.exit_status = status
            raise error
        Counters(self._memory, worker.number).clear_gauges()
        _, pause = self._pauses.get(worker.number, (0.0, 0.0))
        log("worker ended", worker=worker.number, pid=worker.process.pid, reason=line, again_in_seconds=pause)
        self._pauses[worker.number] = (time.monotonic() + pause, min(max(1.0, 2 * pause), _LONGEST_PAUSE))

    def _begin_reload(self, asked: _Worker | None) -> None:
        if self._reload:
            self._reload.asked += [asked] if asked else []
            return
        log("reload")
        self._reload = _Reload(list(range(self.options.workers)), [asked] if asked else [])
        try:
            open_run(self.options.run.resolve())  # before a worker loads libraries for seconds
        except GenreLightningError as error:
            self._end_reload(one_line(error))
            return
        self._next_replacement()

    def _next_replacement(self) -> None:
        assert self._reload
        if self._reload.left:
            self._reload.new = self._start(self._reload.left[0])
        else:
            self._end_reload(None)

    def _replace(self, new: _Worker) -> None:
        """Put a worker that is ready in the place of the one with its number."""
        assert self._reload
        self._reload.new = None
        self._reload.left.pop(0)
        old = self._workers.get(new.number)
        self._workers[new.number] = new
        if old:
            # it may have asked for the reload: it answers that first, and ends some seconds later
            self._leaving.append(old)
            self._send(old, ("drain",))
        self._next_replacement()

    def _end_reload(self, line: str | None) -> None:
        assert self._reload
        log("reloaded" if line is None else "not reloaded", **({} if line is None else {"reason": line}))
        checkpoint = next((one.checkpoint for one in self._workers.values()), "")
        for one in self._reload.asked:
            self._send(one, ("reloaded", line, checkpoint))
        self._reload = None

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
    except OSError as error:
        if listener:
            listener.close()
        fixes = {
            errno.EADDRINUSE: "it is in use: stop the other program, or give another --port",
            errno.EACCES: "it is not allowed: give a --port from 1024 on",
        }
        fix = fixes.get(error.errno or 0, f"{one_line(error)}: give an address of this machine with --host")
        raise ConfigError(f"--port {port} of --host {host}: {fix}") from None
    listener.set_inheritable(True)
    return listener
