"""A worker process: one loaded run, and the server that answers with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from genre_lightning.compat import import_lightning
from genre_lightning.errors import CheckpointError, GenreLightningError, one_line
from genre_lightning.failures import machine_error
from genre_lightning.hardware import usable_cpus
from genre_lightning.quiet import quiet_libraries
from genre_lightning.serving.counters import Counters
from genre_lightning.serving.logs import failure, log
from genre_lightning.serving.options import ServeOptions

_KEEP_ALIVE_SECONDS = 5
_MOST_CONNECTIONS = 1000
_LARGEST_HEADERS = 16 * 1024


def work(
    options: ServeOptions, run: Path, number: int, listener: socket.socket, pipe: Connection, counters: Counters
) -> None:
    """Load the run and serve until asked to stop, or until the supervisor is gone.

    The pipe carries ("ready", checkpoint), ("failed", line, exit status) and ("reload",) to the supervisor, and
    ("drain",) and ("reloaded", error or None, checkpoint) from it, which answers the oldest ("reload",).

    Args:
        options: Of the service.
        run: Directory of the run; no link.
        number: Of the worker.
        listener: Socket that all workers accept connections from.
        pipe: To the supervisor.
        counters: Of the worker.
    """
    # the supervisor acts on it, which gets it too if it is for the terminal's whole group
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while the run is loaded: no traceback
    quiet_libraries()
    # the supervisor is gone: its worker ends too
    with suppress(BrokenPipeError):
        served = _loaded(options, run, number, pipe)
        if served:
            asyncio.run(_serve(options, served, counters, listener, pipe))


def _loaded(options: ServeOptions, run: Path, number: int, pipe: Connection) -> Any:
    """Return the run; None if it cannot be loaded, after the supervisor has been told why."""
    try:
        return _load(options, run, number)
    except Exception as error:
        known = error if isinstance(error, GenreLightningError) else machine_error(error)
        if known is None:
            log("worker failed", worker=number, **failure(error))
        line = one_line(known) if known else f"the run cannot be loaded ({one_line(error)[:200]})"
        pipe.send(("failed", line, known.exit_status if known else 1))
        return None


def _load(options: ServeOptions, run: Path, number: int) -> Any:
    import_lightning()
    import torch

    from genre_lightning.serving.served import ServedRun

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cpus() // options.workers))
    device: str | None = options.devices[number % len(options.devices)]
    if device == "auto":
        device = f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else None
    served = ServedRun(run, device)
    _ = served.description, served.examples  # read once, before the first client
    # the first pass allocates and compiles; the first client does not wait for it
    [first] = served.tag(["A detective hunts a killer."])
    if isinstance(first, Exception):
        raise first
    return served


async def _serve(
    options: ServeOptions, served: Any, counters: Counters, listener: socket.socket, pipe: Connection
) -> None:
    import uvicorn

    from genre_lightning.serving.app import create_app
    from genre_lightning.serving.service import Service

    loop = asyncio.get_running_loop()
    reloads: deque[asyncio.Future[str]] = deque()

    async def reload() -> str:
        future: asyncio.Future[str] = loop.create_future()
        reloads.append(future)
        pipe.send(("reload",))
        return await future

    def stop() -> None:
        server.should_exit = True

    def broken() -> None:
        loop.call_soon_threadsafe(stop)

    service = Service(options, served, counters, reload, broken)
    config = uvicorn.Config(
        create_app(service),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(options.limits.seconds) + 1,
        h11_max_incomplete_event_size=_LARGEST_HEADERS,
    )
    server = uvicorn.Server(config)

    def drain() -> None:
        """Accept nothing more; answer what clients send on open connections, then end."""
        service.draining = True
        for one in server.servers:
            one.close()
        loop.call_later(_KEEP_ALIVE_SECONDS + 1, stop)

    def on_message() -> None:
        try:
            message = pipe.recv()
        except (EOFError, OSError):  # the supervisor is gone
            loop.remove_reader(pipe.fileno())
            stop()
            return
        if message[0] == "drain":
            drain()
        elif message[0] == "reloaded":
            _, line, checkpoint = message
            future = reloads.popleft()
            if not future.done() and line is None:
                future.set_result(checkpoint)
            elif not future.done():
                future.set_exception(CheckpointError(line))

    loop.add_reader(pipe.fileno(), on_message)
    service.start()
    pipe.send(("ready", served.checkpoint))
    try:
        await server.serve(sockets=[listener])
    finally:
        service.close()
        counters.clear_gauges()
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises again what has stopped it
            signal.signal(number, signal.SIG_IGN)
