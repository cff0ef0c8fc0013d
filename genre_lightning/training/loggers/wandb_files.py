"""Reads the run files of W&B: which rows of the curves they hold."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# W&B's file is a log in LevelDB's format (github.com/google/leveldb/blob/main/doc/log_format.md) behind 7 bytes of
# its own; a block is 32 KiB, and a record is cut at its end
_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32768
_CHUNK = struct.Struct("<IHB")  # checksum, length, kind: 1 whole, 2 first, 3 middle, 4 last
_LAST = (1, 4)
_LARGEST_RECORD = 64 << 20
"""Bytes; a row of curves has some hundred, and W&B's own limit is 25 MiB."""


def read_records(path: Path) -> Iterator[Any]:
    """Yield the records of a run file, as W&B's protobuf messages, up to where a killed process left off.

    Args:
        path: Path of a file `run-ID.wandb`.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # chosen by protobuf's version

    try:
        with open(path, "rb", opener=_without_waiting) as file, _mapped(file) as content:
            for parts in _whole_records(content):
                record = Record()
                record.ParseFromString(parts)
                yield record
    except (OSError, ValueError, DecodeError):  # a pipe or a device, an empty file, or a damaged record
        return


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _mapped(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _whole_records(content: mmap.mmap) -> Iterator[bytes]:
    if content[: len(_HEADER)] != _HEADER:
        return
    place, parts = len(_HEADER), b""
    while place + _CHUNK.size <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _CHUNK.size:
            place += left
            continue
        _, length, kind = _CHUNK.unpack_from(content, place)
        place += _CHUNK.size
        if kind == 0 or place + length > len(content) or len(parts) > _LARGEST_RECORD:
            return
        parts += content[place : place + length]
        place += length
        if kind in _LAST:
            yield parts
            parts = b""


def next_step(folder: Path, run_id: str) -> int:
    """Return the first step that no run file has a row of: one past the largest, and 0 if there is none.

    Args:
        folder: W&B's own within the run directory; every start of a run leaves a folder with a file in it, named by the
            second, and of two in one second the other with "-1" behind it.
        run_id: Id of the run.
    """
    steps = [
        record.history.step.num
        for path in sorted(folder.glob(f"*run-*-{run_id}*/run-{run_id}.wandb"))
        for record in read_records(path)
        if record.HasField("history")
    ]
    return max(steps, default=-1) + 1
