"""Checkpoints on disk: written beside their place, flushed, renamed, and verified by a manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from typing_extensions import override

from genre_lightning.distributed.checkpoint import manifests
from genre_lightning.distributed.checkpoint.files import (
    UNSHARDED,
    load_safely,
    not_written,
    save_flushed,
    write_checkpoint,
)
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.files import draft_beside


def update_checkpoint(path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Change a checkpoint's metadata, such as the decision.

    Args:
        path: A checkpoint, file or directory.
        change: Alters the content in place; of a directory it is given what is not sharded.

    Returns:
        The SHA-256 of the changed checkpoint.

    Raises:
        CheckpointError: Missing, damaged, or (a SaveError) the new one could not be written.
    """
    if not path.is_dir():
        content = read_checkpoint(path)
        change(content)
        return write_checkpoint(content, path)
    verify_checkpoint(path)
    content = load_safely(path / UNSHARDED)
    change(content)
    try:
        with draft_beside(path) as part:
            save_flushed(content, part)
            return manifests.replace_member(path, UNSHARDED, part).sha256
    except (OSError, ConfigError) as error:
        raise not_written(path, error) from error


def read_checkpoint(path: Path, map_location: Any = "cpu", *, mapped: bool = False) -> dict[str, Any]:
    """Return a verified checkpoint's content, its shards put together; nothing in it is ever run.

    Args:
        path: The checkpoint.
        map_location: As `torch.load` takes it.
        mapped: See `load_safely`; shards are copied all the same.

    Raises:
        CheckpointError: Missing, damaged, or holding more than tensors and plain values.
    """
    verify_checkpoint(path)
    if path.is_dir():
        from genre_lightning.distributed.checkpoint.shards import read_whole

        return read_whole(path)
    return load_safely(path, map_location, mapped=mapped)


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's door to `write_checkpoint` and `read_checkpoint`.

    Args:
        keep_last: How many of the checkpoints written to one place are kept: the newest there, the older ones beside
            it as previous.ckpt, previous-2.ckpt, …
        mapped: Map a checkpoint that is loaded: the ranks of a node read it from disk once and hold it in memory once.
            For devices with a memory of their own: on a CPU the optimizer would keep what it is given, and the file may
            go away.
    """

    def __init__(self, keep_last: int = 1, *, mapped: bool = False) -> None:
        super().__init__()
        self.keep_last = keep_last
        self.mapped = mapped

    def kept(self, path: Path) -> list[Path]:
        """Return the names for the checkpoints before the newest; a best one has none."""
        return previous_names(path.parent, self.keep_last) if path.name == "last.ckpt" else []

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path), self.kept(Path(path)))

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        if "://" in str(path):
            raise CheckpointError(f"{path} is an address: fetch the checkpoint and give its local path")
        return read_checkpoint(Path(path), map_location or "cpu", mapped=self.mapped)

    @override
    def remove_checkpoint(self, path: Any) -> None:
        manifests.remove_checkpoint(Path(path))


def previous_names(folder: Path, keep_last: int) -> list[Path]:
    """Return where the checkpoints before last.ckpt lie, from the newest to the oldest."""
    return [folder / ("previous.ckpt" if age == 1 else f"previous-{age}.ckpt") for age in range(1, keep_last)]
