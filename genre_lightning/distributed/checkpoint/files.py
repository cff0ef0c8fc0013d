"""Checkpoints as files: drafted beside their place, flushed, renamed, and read without running anything."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genre_lightning.distributed.checkpoint import manifests
from genre_lightning.errors import CheckpointError, ConfigError, SaveError, one_line
from genre_lightning.failures import machine_error
from genre_lightning.files import draft_beside, finish_draft

UNSHARDED = "facts.pt"
"""In a directory of shards, the file of everything that is not sharded."""


_MARGIN = 1 << 20
"""Bytes that the names and numbers beside the tensors may take."""


def write_checkpoint(content: dict[str, Any], path: Path, kept: Sequence[Path] = ()) -> str:
    """Write a checkpoint as one file, so that its place holds either the old one or the whole new one.

    Args:
        content: Tensors and plain values.
        path: Its place.
        kept: Names for the older checkpoints, from the newest to the oldest; the last of them is given up.

    Returns:
        The SHA-256 of the file.

    Raises:
        SaveError: It could not be written; what was there before is untouched.
    """
    try:
        with draft_beside(path) as part:
            check_space(path.parent, tensor_bytes(content) + _MARGIN)
            save_flushed(content, part)
            manifest = manifests.describe(part, content)
            manifests.commit(part, path, manifest, kept)
    except (OSError, RuntimeError, ConfigError) as error:
        raise not_written(path, error) from error
    return manifest.sha256


def save_flushed(content: Any, path: Path) -> None:
    """Save with `torch.save` to a file that is on disk when this returns."""
    with path.open("wb") as file:
        torch.save(content, file)
    finish_draft(path)


def not_written(path: Path, error: object) -> SaveError:
    """Return the error with the reason why a checkpoint could not be written."""
    # the death of a worker process strikes wherever the main thread is
    if isinstance(error, BaseException) and (known := machine_error(error)):
        return SaveError(f"the checkpoint {path} could not be written: {known}")
    return SaveError(
        f"the checkpoint {path} could not be written ({one_line(error)[:160]}): "
        "free space or fix the permissions there, then run the same command again"
    )


def tensor_bytes(content: Any) -> int:
    """Return the bytes of all tensors in a nest of mappings and sequences."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(map(tensor_bytes, content.values()))
    return sum(map(tensor_bytes, content)) if isinstance(content, list | tuple) else 0


def check_space(folder: Path, needed: int) -> None:
    """Refuse to start what the disk has no room for.

    Args:
        folder: Folder that the checkpoints are written to.
        needed: Bytes.

    Raises:
        OSError: The disk has less room than needed; the message names both numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        scale, unit = (1e9, "GB") if needed >= 1e9 else (1e6, "MB")
        raise OSError(f"it needs {needed / scale:,.1f} {unit} and the disk has {free / scale:,.1f} {unit} free")


def load_safely(path: Path, map_location: Any = "cpu", *, mapped: bool = False) -> dict[str, Any]:
    """Call `torch.load` for tensors and plain values.

    Args:
        path: The file.
        map_location: As `torch.load` takes it.
        mapped: Map the file's tensors in place of copying them; they must not outlive the file.

    Raises:
        CheckpointError: It holds more than those.
    """
    try:
        _require_unpacked(path)
        mapped = mapped and zipfile.is_zipfile(path)  # torch's older form cannot be mapped
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except Exception as error:  # a pickle that is none raises whatever its bytes happen to ask for
        raise refused(path, error) from None


def _require_unpacked(path: Path) -> None:
    """Refuse an archive whose parts are larger than itself: `torch.save` compresses nothing, and reading unpacks."""
    if not zipfile.is_zipfile(path):
        return  # torch's older form, which is not an archive
    with zipfile.ZipFile(path) as archive:
        expanded = sum(entry.file_size for entry in archive.infolist())
    if expanded > path.stat().st_size:
        raise ValueError(f"it expands to {expanded:,} bytes")


def refused(path: Path, error: object) -> CheckpointError:
    """Return the error for a file that asks for more than tensors and plain values."""
    return CheckpointError(
        f"{path} is refused ({one_line(error)[:120]}): a checkpoint holds tensors and plain values only"
    )
