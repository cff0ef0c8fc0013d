"""Failures that the machine causes, in words that name the fix; libraries raise them as errors of many kinds."""

from __future__ import annotations

import errno
import re

from genre_lightning.errors import GenreLightningError, of_system, one_line


class MachineError(GenreLightningError):
    """The machine has not enough memory, or lacks what worker processes need."""

    exit_status = 1


_SHARED_MEMORY = ("shared memory", "/dev/shm", "shm_open", "torch_shm_manager", "bus error")
_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc",
    "can't start new thread", "failed to map segment from shared object",
)  # fmt: skip


def machine_error(error: BaseException) -> GenreLightningError | None:
    """Return what an error tells about the machine; None if it is of another kind."""
    message = one_line(error)
    text = message.lower()
    shown = f"{message[:160]}…" if len(message) > 160 else message or type(error).__name__
    if isinstance(error, RuntimeError | OSError) and any(sign in text for sign in _SHARED_MEMORY):
        return MachineError(
            f"the worker processes of data.num_workers cannot share memory ({shown}): set data.num_workers=0, or give "
            "the machine (of a container: --shm-size) a larger /dev/shm"
        )
    if isinstance(error, RuntimeError) and re.search("dataloader worker.*(exited unexpectedly|killed by)", text):
        return MachineError(
            f"a worker process of data.num_workers died, perhaps for want of memory ({shown}): set data.num_workers=0, "
            "then run the same command again"
        )
    if (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError | ImportError | OSError) and any(sign in text for sign in _MEMORY))
    ):
        return MachineError(
            f"out of memory ({shown}): give the process more, or lower data.micro_batch_tokens, then run the same "
            "command again"
        )
    return of_system(error) if isinstance(error, OSError) else None
