"""Checkpoints on disk: written beside their place, flushed, renamed, and vouched for by a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from typing_extensions import override

from genre_lightning.errors import CheckpointError, one_line


def manifest_path(checkpoint: Path) -> Path:
    """Where the manifest of a checkpoint lies."""
    return checkpoint.with_name(checkpoint.name + ".manifest.json")


def write_checkpoint(content: dict[str, Any], path: Path) -> str:
    """Writes a checkpoint so that its place holds either the old one or the whole new one.

    Returns:
        the SHA-256 of the file.

    Raises:
        CheckpointError: it could not be written; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target: only within one file system is a rename atomic
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        with scratch.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        manifest = {
            "sha256": digest,
            "bytes": scratch.stat().st_size,
            "global_step": content.get("global_step"),
            "epoch": content.get("epoch"),
        }
        # the old manifest goes first: a kill between the two renames leaves a checkpoint that nothing vouches for,
        # never one that a wrong manifest vouches for
        _replace_text(manifest_path(path), json.dumps(manifest), scratch, path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} could not be written ({one_line(error)[:160]}): "
            "free space or mend the permissions there, then run the same command again"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
    return digest


def _replace_text(manifest: Path, text: str, scratch: Path, path: Path) -> None:
    draft = manifest.with_name(f".{manifest.name}.{os.getpid()}.part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    manifest.unlink(missing_ok=True)
    scratch.replace(path)
    draft.replace(manifest)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after its file has been compared with it.

    Raises:
        CheckpointError: missing, half-written or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train first with 'genre-lightning fit'")
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        expected = str(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"nothing vouches for {path} (no readable manifest beside it): use another checkpoint") from None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise CheckpointError(f"{path} is damaged (its SHA-256 is not its manifest's): use another checkpoint")
    return manifest


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A verified checkpoint's content; nothing in it is ever run.

    Raises:
        CheckpointError: missing, damaged, or holding more than tensors and plain values.
    """
    verify_checkpoint(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} is refused ({one_line(error)[:120]}): a checkpoint holds tensors and plain values only"
        ) from None


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's door to `write_checkpoint` and `read_checkpoint`."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location or "cpu")

    @override
    def remove_checkpoint(self, path: Any) -> None:
        manifest_path(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)
