"""How the C library keeps memory that tensors on a CPU have given back."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt, from malloc.h."""


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors; return whether its C library can.

    glibc asks the kernel for each large tensor and gives it back when it is freed, so that every step pays for zeroed
    pages again: an eighth to a tenth of a training step on two cores. The process then holds its peak until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
