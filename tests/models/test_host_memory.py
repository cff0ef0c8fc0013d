"""Freed memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from genre_lightning.models.layers.cpu_memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for round in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.zeros(12_000_000)
    del tensor
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    """Pages that the last of many equal allocations of 48 MB asks the kernel for: the first ones shape the heap."""
    words = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_asked_for_once():
    assert page_faults("keep") < 5
    assert page_faults("plain") > 10  # of 4 kB or, where the kernel is set so, of 2 MB
