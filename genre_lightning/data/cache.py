"""Folders that are built once: named by what is in them, written atomically, checked before use, safe to share."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from genre_lightning.errors import DataError
from genre_lightning.files import file_digest, parse_json

MANIFEST = "manifest.json"


def default_cache_dir() -> Path:
    """`$GENRE_LIGHTNING_CACHE`, else the user's cache directory."""
    if configured := os.environ.get("GENRE_LIGHTNING_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "genre_lightning"


def key_of(settings: Any) -> str:
    """A short name for settings that JSON can hold: equal settings, equal name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]


def build_once(root: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The folder `root/key`, built now if it is not there whole.

    Processes that ask for the same folder at once wait for the one that builds it. A folder whose files do not have
    the sizes and digests of its manifest is built again.

    Args:
        root: the cache.
        key: names the content.
        build: writes files into the empty folder that it is given; what it returns is kept beside them.

    Returns:
        the folder, and what `build` returned when it was built.

    Raises:
        DataError: the cache cannot be written.
    """
    target = root / key
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            if (facts := _facts_if_whole(target)) is not None:
                return target, facts
            # a damaged folder, and what builders that were killed have left
            for remains in (target, *root.glob(f".{key}-*")):
                shutil.rmtree(remains, ignore_errors=not remains.exists())
            return target, _build(target, build)
    except OSError as error:
        raise DataError(
            f"the cache {root} cannot be written ({error.strerror or error}): "
            "free space there, or name another folder with --data.cache_dir"
        ) from error


def _build(target: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    # beside the target: only within one file system is a rename atomic
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        facts = build(scratch)
        files = {file.name: {"bytes": file.stat().st_size, "sha256": file_digest(file)} for file in scratch.iterdir()}
        manifest = {"facts": facts, "files": files}
        (scratch / MANIFEST).write_text(json.dumps({**manifest, "digest": key_of(manifest)}), encoding="utf-8")
        for file in scratch.iterdir():
            _flush(file)
        scratch.rename(target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return facts


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _facts_if_whole(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("digest") != key_of(manifest):
            return None
        for name, expected in manifest["files"].items():
            file = folder / name
            if file.stat().st_size != expected["bytes"] or file_digest(file) != expected["sha256"]:
                return None
        return manifest["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
