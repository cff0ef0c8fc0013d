"""How long torch's threads spin at a barrier before they sleep, on CPUs that other processes use too.

torch's threads (libgomp's) wait for one another at the end of every operation, and spin for some milliseconds before
they sleep. While another process occupies the CPU of a thread, the other threads spin: steps of two threads beside one
busy process fell to a third of their rate, and to three quarters with threads that sleep early. On idle CPUs sleeping
early costs a tenth (`benchmarks/waiting.py`), so it is chosen by what else runs at the start of a command. It changes
no result.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_SPINS = "1000"
"""Turns of the waiting loop before a thread sleeps: what libgomp takes itself if it has more threads than CPUs."""
_SHORTEST = 0.1
"""Seconds, of which the system counts hundredths."""
_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class CpuTimes:
    """What has passed on the CPUs that this process may use, in seconds.

    Attributes:
        clock: By the clock.
        free: In which no other process had a CPU, summed over the CPUs.
        cpus: How many there are.
    """

    clock: float
    free: float
    cpus: int

    @classmethod
    def now(cls) -> CpuTimes | None:
        """Read them; None on a system that does not show them."""
        if not hasattr(os, "sched_getaffinity"):
            return None
        cpus, tick = os.sched_getaffinity(0), 1 / os.sysconf("SC_CLK_TCK")
        try:
            rows = (line.split() for line in _STAT.read_text(encoding="ascii").splitlines() if line[:3] == "cpu")
            # idle, and idle while a disk is waited for
            ticks = {row[0][3:]: int(row[4]) + int(row[5]) for row in rows}
            idle = sum(ticks[str(cpu)] for cpu in cpus) * tick
        except (OSError, ValueError, LookupError):  # a container may hide the file, or show another one
            return None
        return cls(time.monotonic(), idle + time.process_time(), len(cpus))


_at_start: CpuTimes | None = None


def note_start() -> None:
    """Note the times at the start of a command, for `sleep_early_if_shared` to compare with."""
    global _at_start
    _at_start = CpuTimes.now()


def sleep_early_if_shared() -> None:
    """Set GOMP_SPINCOUNT if other processes have had CPUs that torch's threads would take; before torch is loaded.

    Nothing is changed if the environment sets it or OMP_WAIT_POLICY, or if too little time has passed to be measured.
    """
    decided = any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    if _at_start is None or decided or "torch" in sys.modules:
        return
    now = CpuTimes.now()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if now and are_shared(_at_start, now, int(threads) if threads.isdecimal() else now.cpus):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def are_shared(before: CpuTimes, now: CpuTimes, threads: int) -> bool:
    """Return whether half a CPU or more was missing for these threads, in the time between."""
    seconds = now.clock - before.clock
    return threads > 1 and seconds >= _SHORTEST and (now.free - before.free) / seconds <= threads - 0.5
