"""Manifests: what a checkpoint is verified by, a file or a directory of shards, also while it is being replaced."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError, one_line
from genre_lightning.files import file_digest, flush_to_disk, read_json, write_text
from genre_lightning.node import digest_on_node
from genre_lightning.shapes import Shape, count, require_shape, text

_SHAPE: Shape = {
    "sha256": text,
    "bytes?": count,
    "global_step?": count,
    "epoch?": count,
    "config_sha256?": text,
    "files?": {"*": text},
}


@dataclass(frozen=True)
class Manifest:
    """What lies beside a checkpoint to verify it by."""

    sha256: str
    """Of the file; of a directory of shards, of the list of its files."""
    bytes: int = 0
    global_step: int | None = None
    """Optimizer steps done."""
    epoch: int | None = None
    config_sha256: str | None = None
    """Of the settings that the training depends on."""
    files: dict[str, str] | None = None
    """SHA-256 of each file of a directory of shards."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """Read a manifest; names that are not known are passed over.

        Raises:
            ValueError: Naming the first value that is not what it should be.
        """
        require_shape(values, _SHAPE)
        return cls(**{f.name: values[f.name] for f in fields(cls) if values.get(f.name) is not None})

    def to_json(self) -> dict[str, Any]:
        """Return the values of the file."""
        values = asdict(self)
        return values if self.files is not None else {name: values[name] for name in values if name != "files"}


def manifest_path(checkpoint: Path) -> Path:
    """Return where the manifest of a checkpoint lies."""
    return checkpoint.with_name(checkpoint.name + ".manifest.json")


def describe(path: Path, content: Mapping[str, Any], digests: Mapping[str, str] | None = None) -> Manifest:
    """Return the manifest of a checkpoint as it lies on disk.

    Args:
        path: A file, or a directory of files.
        content: Of the checkpoint, which knows its step, epoch and settings.
        digests: SHA-256 of each file of a directory, if they are known already.
    """
    known = {name: content.get(name) for name in ("global_step", "epoch", "config_sha256")}
    if not path.is_dir():
        return Manifest(file_digest(path), path.stat().st_size, **known)
    files = dict(sorted((digests or _tree_digests(path)).items()))
    size = sum((path / name).stat().st_size for name in files)
    return Manifest(_tree_digest(files), size, **known, files=files)


def _tree_digests(path: Path, digest: Callable[[Path], str] = file_digest) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): digest(file) for file in path.rglob("*") if file.is_file()}


def _tree_digest(files: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def commit(part: Path, path: Path, manifest: Manifest, kept: Sequence[Path] = ()) -> None:
    """Put a finished checkpoint in its place; the one that lies there is whole until then.

    A kill at any point leaves a whole checkpoint and a manifest that verifies it, under `path` or `kept[0]`.

    Args:
        part: The new checkpoint, flushed to disk, beside its place.
        path: Its place.
        manifest: Manifest of the new checkpoint.
        kept: Names for the older ones, from the newest to the oldest; the last of them is given up.

    Raises:
        OSError: Nothing was replaced.
    """
    for newer, older in zip(reversed(kept[:-1]), reversed(kept[1:]), strict=True):
        _move(newer, older)
    old = _vouched(path)
    # directories have no second name: the old one is moved away in the moment in which the new one comes
    moves = path.is_dir() or part.is_dir()
    if kept and old is not None:
        remove_checkpoint(kept[0])
        _write_manifest(kept[0], old)
        if not moves:
            with contextlib.suppress(OSError):  # file systems without hard links keep one checkpoint only
                os.link(path, kept[0])
    # while the old checkpoint may still be there, the manifest speaks for both
    if old is not None:
        _write_manifest(path, manifest, previous=old)
    aside = kept[0] if kept and old is not None else path.with_name(f".{path.name}.old")
    if moves:
        _delete(aside)
        if path.exists():
            path.replace(aside)
    part.replace(path)
    flush_to_disk(path.parent)
    _write_manifest(path, manifest)
    if moves and aside not in kept:
        _delete(aside)


def replace_member(path: Path, name: str, part: Path) -> Manifest:
    """Put a new file in the place of one of a directory's; returns the directory's new manifest.

    Args:
        path: A checkpoint that is a directory.
        name: Name of the member in the directory.
        part: The new file, flushed to disk, beside the directory.
    """
    old = verify_checkpoint(path)
    files = {**(old.files or {}), name: file_digest(part)}
    size = old.bytes + part.stat().st_size - (path / name).stat().st_size
    manifest = replace(old, files=files, sha256=_tree_digest(files), bytes=size)
    _write_manifest(path, manifest, previous=old)
    part.replace(path / name)
    flush_to_disk((path / name).parent)
    _write_manifest(path, manifest)
    return manifest


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint and its manifest, if it is there."""
    manifest_path(path).unlink(missing_ok=True)
    _delete(path)


def _move(source: Path, target: Path) -> None:
    """Rename a checkpoint; a name without its checkpoint has no manifest."""
    remove_checkpoint(target)
    if source.exists() and manifest_path(source).is_file():
        shutil.copyfile(manifest_path(source), manifest_path(target))
        source.replace(target)
    remove_checkpoint(source)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def verify_checkpoint(path: Path) -> Manifest:
    """Return the manifest of a checkpoint, after all its bytes have been compared with it, by one rank of each node.

    Raises:
        CheckpointError: Missing, half-written or damaged.
    """
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}: put it back, or train in another --run_dir")
    entries = _entries(path)
    if not path.is_dir():
        found = digest_on_node(path)
        for entry in entries:
            if entry.sha256 == found:
                return entry
        raise CheckpointError(f"{path} is damaged (its SHA-256 is not its manifest's): use another checkpoint")
    files = _tree_digests(path, digest_on_node)
    for entry in entries:
        if entry.files == files:
            return entry
    raise CheckpointError(f"{path} is damaged ({_difference(entries[0], files)}): use another checkpoint")


def _entries(path: Path) -> list[Manifest]:
    """Return what a manifest describes: the new checkpoint and, while it is being replaced, the old one."""
    try:
        values = read_json(manifest_path(path))
        previous = values.pop("previous", None)
        return [Manifest.from_json(entry) for entry in (values, previous) if entry is not None]
    except (CheckpointError, ValueError):
        raise CheckpointError(
            f"{path} cannot be verified (no readable manifest beside it): use another checkpoint"
        ) from None


def manifest_of(path: Path) -> Manifest:
    """Return the manifest beside a checkpoint, without comparing the checkpoint's bytes with it.

    Raises:
        CheckpointError: There is none that can be read.
    """
    return _entries(path)[0]


def step_of(path: Path) -> int | None:
    """Return the optimizer steps before a checkpoint; None if its manifest is not there or damaged."""
    try:
        return manifest_of(path).global_step
    except CheckpointError:
        return None


def _difference(manifest: Manifest, files: Mapping[str, str]) -> str:
    wanted = manifest.files or {}
    for name in sorted(set(wanted) | set(files)):
        if name not in files:
            return f"its file {name} is missing"
        if name not in wanted:
            return f"its file {name} is not in its manifest"
        if wanted[name] != files[name]:
            return f"the SHA-256 of its file {name} is not its manifest's"
    return "its manifest is of a single file"


def newest_good(
    candidates: Sequence[Path], *, set_aside: bool = True
) -> tuple[Path | None, Manifest | None, list[str]]:
    """Return the checkpoint to resume from.

    Args:
        candidates: Checkpoints from the newest to the oldest by their role; missing ones are passed over.
        set_aside: Rename damaged ones; one process of a run does.

    Returns:
        The first that its manifest verifies, with that manifest, or None; and what was reported of each damaged one
        before it, which is now kept aside under a name ending in ".damaged".
    """
    complaints: list[str] = []
    for path in candidates:
        if not path.exists():
            continue
        try:
            return path, verify_checkpoint(path), complaints
        except CheckpointError as error:
            aside = _free_name(path)
            if set_aside:
                path.replace(aside)
                manifest_path(path).unlink(missing_ok=True)
            complaints.append(f"{one_line(error)}; it is kept aside as {aside.name}")
    return None, None, complaints


def _free_name(path: Path) -> Path:
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return aside


def _vouched(path: Path) -> Manifest | None:
    """Return the manifest of the checkpoint that is about to be replaced; None if nothing does."""
    try:
        entries = _entries(path)
        # a replacement that was cut off leaves two, and only the bytes tell which of them is there
        return (verify_checkpoint(path) if len(entries) > 1 else entries[0]) if path.exists() else None
    except (OSError, CheckpointError):
        return None


def _write_manifest(path: Path, manifest: Manifest, previous: Manifest | None = None) -> None:
    values = manifest.to_json()
    if previous is not None:
        values["previous"] = previous.to_json()
    write_text(manifest_path(path), json.dumps(values))
    flush_to_disk(path.parent)
