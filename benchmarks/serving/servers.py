"""Servers that the benchmarks start and stop."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(arguments: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program that listens at a port, from its first answer until the block ends.

    Args:
        arguments: Of Python.
        port: Of this machine.
        log: File for what it writes.
    """
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=file)
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise SystemExit(f"{arguments} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    # the socket of a service accepts connections before a worker answers them
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
