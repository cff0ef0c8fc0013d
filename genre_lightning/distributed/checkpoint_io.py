"""Checkpoints on disk: written beside their place, flushed, renamed, and vouched for by a manifest."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor
from typing_extensions import override

from genre_lightning.distributed import manifests
from genre_lightning.distributed.manifests import verify_checkpoint
from genre_lightning.errors import CheckpointError, ConfigError, SaveError, one_line
from genre_lightning.failures import machine_error
from genre_lightning.files import draft_beside, finish_draft

FACTS = "facts.pt"
"""In a directory of shards, the file of everything that is not sharded."""

_MANIFEST_FACTS = ("global_step", "epoch", "config_sha256")
_MARGIN = 1 << 20
"""Bytes that the names and numbers beside the tensors may take."""


def write_checkpoint(content: dict[str, Any], path: Path, kept: Sequence[Path] = ()) -> str:
    """Writes a checkpoint as one file, so that its place holds either the old one or the whole new one.

    Args:
        content: tensors and plain values.
        path: its place.
        kept: names for the older checkpoints, from the newest to the oldest; the last of them is given up.

    Returns:
        the SHA-256 of the file.

    Raises:
        SaveError: it could not be written; what was there before is untouched.
    """
    try:
        with draft_beside(path) as part:
            check_space(path.parent, tensor_bytes(content) + _MARGIN)
            save_flushed(content, part)
            manifest = manifests.describe(part, manifest_facts(content))
            manifests.commit(part, path, manifest, kept)
    except (OSError, RuntimeError, ConfigError) as error:
        raise not_written(path, error) from error
    return str(manifest["sha256"])


def manifest_facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """What of a checkpoint's content stands in its manifest."""
    return {name: content.get(name) for name in _MANIFEST_FACTS}


def save_flushed(content: Any, path: Path) -> None:
    """`torch.save` to a file that is on disk when this returns."""
    with path.open("wb") as file:
        torch.save(content, file)
    finish_draft(path)


def not_written(path: Path, error: object) -> SaveError:
    """The error that says why a checkpoint could not be written."""
    # the death of a worker process strikes wherever the main thread is
    if isinstance(error, BaseException) and (known := machine_error(error)):
        return SaveError(f"the checkpoint {path} could not be written: {known}")
    return SaveError(
        f"the checkpoint {path} could not be written ({one_line(error)[:160]}): "
        "free space or mend the permissions there, then run the same command again"
    )


def tensor_bytes(content: Any) -> int:
    """Bytes of all tensors in a nest of mappings and sequences."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(map(tensor_bytes, content.values()))
    return sum(map(tensor_bytes, content)) if isinstance(content, list | tuple) else 0


def check_space(folder: Path, needed: int) -> None:
    """Refuses to start what the disk has no room for.

    Args:
        folder: where it goes.
        needed: bytes.

    Raises:
        OSError: with both numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"it needs {needed / 1e9:,.2f} GB and the disk has {free / 1e9:,.2f} GB free")


def update_checkpoint(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Changes what a checkpoint says beside its tensors, such as the decision.

    Args:
        path: a checkpoint, file or directory.
        change: alters the content in place; of a directory it is given what lies in its file of facts.

    Returns:
        the SHA-256 of the changed checkpoint.

    Raises:
        CheckpointError: missing, damaged, or (a SaveError) the new one could not be written.
    """
    if not path.is_dir():
        content = read_checkpoint(path)
        change(content)
        return write_checkpoint(content, path)
    verify_checkpoint(path)
    facts = load_safely(path / FACTS)
    change(facts)
    try:
        with draft_beside(path) as part:
            save_flushed(facts, part)
            return str(manifests.replace_member(path, FACTS, part)["sha256"])
    except (OSError, ConfigError) as error:
        raise not_written(path, error) from error


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A verified checkpoint's content, its shards put together; nothing in it is ever run.

    Raises:
        CheckpointError: missing, damaged, or holding more than tensors and plain values.
    """
    verify_checkpoint(path)
    if path.is_dir():
        from genre_lightning.distributed.shards import read_whole

        return read_whole(path)
    return load_safely(path, map_location)


def load_safely(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """`torch.load` of tensors and plain values.

    Raises:
        CheckpointError: it holds more than those.
    """
    try:
        _require_unpacked(path)
        return torch.load(path, map_location=map_location, weights_only=True)
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
    """The error for a file that asks for more than tensors and plain values."""
    return CheckpointError(
        f"{path} is refused ({one_line(error)[:120]}): a checkpoint holds tensors and plain values only"
    )


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's door to `write_checkpoint` and `read_checkpoint`.

    Args:
        keep_last: how many of the checkpoints written to one place are kept: the newest there, the older ones beside
            it as previous.ckpt, previous-2.ckpt, …
    """

    def __init__(self, keep_last: int = 1) -> None:
        super().__init__()
        self.keep_last = keep_last

    def kept(self, path: Path) -> list[Path]:
        """Names for the checkpoints before the newest; a best one has none."""
        return previous_names(path.parent, self.keep_last) if path.name == "last.ckpt" else []

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path), self.kept(Path(path)))

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        if "://" in str(path):
            raise CheckpointError(f"{path} is an address: fetch the checkpoint and give its local path")
        return read_checkpoint(Path(path), map_location or "cpu")

    @override
    def remove_checkpoint(self, path: Any) -> None:
        manifests.remove_checkpoint(Path(path))


def previous_names(folder: Path, keep_last: int) -> list[Path]:
    """Where the checkpoints before last.ckpt lie, from the newest to the oldest."""
    return [folder / ("previous.ckpt" if age == 1 else f"previous-{age}.ckpt") for age in range(1, keep_last)]
