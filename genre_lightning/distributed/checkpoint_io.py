"""Checkpoints on disk: written beside their place, flushed, renamed, and vouched for by a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
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
    # beside the target: only within one file system is a rename atomic
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        # a kill at any point leaves a whole checkpoint and a manifest that vouches for it: while the old checkpoint
        # may still be there, the manifest speaks for both
        if previous := _previous(path):
            _replace_manifest(path, {**manifest, "previous": previous})
        scratch.replace(path)
        _flush_folder(path)
        _replace_manifest(path, manifest)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} could not be written ({one_line(error)[:160]}): "
            "free space or mend the permissions there, then run the same command again"
        ) from error
    finally:
        for part in (scratch, _draft(path)):
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    return digest


def keep_copy(path: Path, copy: Path) -> None:
    """Keeps a checkpoint under another name too, without copying its bytes, before its own place gets a new one.

    The copy's old content is given up only when the link to the new one stands beside it.
    """
    manifest = _previous(path)
    if manifest is None:
        return
    link = copy.with_name(f".{copy.name}.part")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        _replace_manifest(copy, {**manifest, "previous": _previous(copy)} if _previous(copy) else manifest)
        link.replace(copy)
        link.unlink(missing_ok=True)  # renaming one link of a file over another of the same does nothing
        _replace_manifest(copy, manifest)
    except OSError:
        # file systems without hard links keep one checkpoint only, as they did before
        link.unlink(missing_ok=True)


def newest_good(candidates: list[Path], *, set_aside: bool = True) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from.

    Args:
        candidates: from the newest to the oldest by their role; missing ones are passed over.
        set_aside: rename damaged ones; one process of a run does.

    Returns:
        the first whose manifest vouches for it, or None; and what was said of each damaged one before it, which is now
        kept aside under a name ending in ".damaged".
    """
    complaints = []
    for path in candidates:
        if not path.exists():
            continue
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            aside = path.with_name(path.name + ".damaged")
            if set_aside:
                path.replace(aside)
                manifest_path(path).unlink(missing_ok=True)
            complaints.append(f"{one_line(error)}; it is kept aside as {aside.name}")
            continue
        return path, complaints
    return None, complaints


def _previous(path: Path) -> dict[str, Any] | None:
    """What vouches for the checkpoint that is about to be replaced."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        # an earlier save was cut off, so only the file tells which of the two it is
        return verify_checkpoint(path) if "previous" in manifest else {**manifest, "sha256": str(manifest["sha256"])}
    except (KeyError, OSError, ValueError, TypeError, CheckpointError):
        return None


def _draft(path: Path) -> Path:
    return path.with_name(f".{manifest_path(path).name}.part")


def _replace_manifest(path: Path, manifest: dict[str, Any]) -> None:
    draft = _draft(path)
    with draft.open("w", encoding="utf-8") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(manifest_path(path))
    _flush_folder(path)


def _flush_folder(path: Path) -> None:
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
        previous = manifest.pop("previous", None)
        entries = {str(entry["sha256"]): entry for entry in (manifest, previous) if entry is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"nothing vouches for {path} (no readable manifest beside it): use another checkpoint"
        ) from None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found not in entries:
        raise CheckpointError(f"{path} is damaged (its SHA-256 is not its manifest's): use another checkpoint")
    return entries[found]


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A verified checkpoint's content; nothing in it is ever run.

    Raises:
        CheckpointError: missing, damaged, or holding more than tensors and plain values.
    """
    verify_checkpoint(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a pickle that is none raises whatever its bytes happen to ask for
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
