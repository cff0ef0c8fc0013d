"""Folders that are built once: named by what is in them, written atomically, checked before use, safe to share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genre_lightning.errors import ConfigError, DataError
from genre_lightning.files import as_system_errors, file_digest, flush_to_disk, parse_json
from genre_lightning.locks import locked
from genre_lightning.node import digest_on_node

MANIFEST = "manifest.json"
_PATIENCE_SECONDS = 2 * 3600.0
"""For another process to build a folder: to read and tokenise millions of films takes most of an hour."""


def default_cache_dir() -> Path:
    """Return `$GENRE_LIGHTNING_CACHE`, else the user's cache directory.

    Raises:
        ConfigError: Neither is there.
    """
    if configured := os.environ.get("GENRE_LIGHTNING_CACHE"):
        return Path(configured).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "genre_lightning"
    try:
        return Path.home() / ".cache" / "genre_lightning"
    except RuntimeError:
        raise ConfigError("this user has no home directory: name a folder with GENRE_LIGHTNING_CACHE") from None


def key_of(settings: Any) -> str:
    """Return a short name for settings that JSON can hold: equal settings, equal name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:24]


def share_with_group(cache_dir: Path) -> None:
    """Let the group of a cache directory write to it; what is made in it from now on follows.

    Raises:
        ConfigError: The directory belongs to someone else, who has not shared it, or it holds other files, which are
            nobody else's business: a configuration may name any folder.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(cache_dir.stat().st_mode)
        if mode & _GROUP != _GROUP:
            if others := sorted(path.name for path in cache_dir.iterdir() if not _OF_CACHE.fullmatch(path.name)):
                raise ConfigError(
                    f"data.cache_dir {cache_dir} holds {others[0]}, which is not of a cache: name another folder to "
                    "share with its group"
                )
            cache_dir.chmod(mode | _GROUP)
    except OSError as error:
        raise ConfigError(
            f"data.cache_dir {cache_dir} cannot be shared with its group ({error.strerror or error}): ask its owner "
            "for 'chmod g+rwxs', or name another folder"
        ) from None


_OF_CACHE = re.compile(
    r"films|combined|corrected|digests|inputs|joins|posters|pseudo_labels|rows|tokens|tokenizers|weights|user-\d+\.key"
)
"""Names in the root of a cache."""

_GROUP = stat.S_IRWXG | stat.S_ISGID
"""Of a folder that its group shares: the files in it belong to that group too."""


def build_once(root: Path, key: str, build: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Return the folder `root/key`, built now if it is not there whole.

    A folder that is there is used without a lock, as folders appear whole by a rename; of the ranks of a node one reads
    and verifies it. Processes that ask for a missing
    one at once wait for the one that builds it. A folder whose files do not have the sizes and digests of its manifest
    is built again. In a directory that its group shares, the group may read and write all of it.

    Args:
        root: The cache.
        key: Names the content.
        build: Writes files into the empty folder that it is given; what it returns is kept beside them.

    Returns:
        The folder, and what `build` returned when it was built.

    Raises:
        DataError: The cache cannot be written.
        ConfigError: Another process has been building the folder for hours.
    """
    target = root / key
    try:
        while (kept := _kept_if_whole(target)) is None:
            seen = _stamp(target)
            shared = _make_root(root)
            busy = f"another process is still building {target}: wait for it or stop it, then run the command again"
            with locked(root / f"{key}.lock", _PATIENCE_SECONDS, busy, group_writable=shared):
                if _stamp(target) != seen:
                    continue  # another process has built it: verify it without the lock, which others wait for
                shutil.rmtree(target, ignore_errors=not target.exists())
                _remove_remains(root, key)
                return target, _build(target, build, shared)
        return target, kept
    except OSError as error:
        raise DataError(
            f"the cache {root} cannot be written ({error.strerror or error}): "
            "free space there, or name another folder with --data.cache_dir"
        ) from error


def _make_root(root: Path) -> bool:
    """Make the folder with the group's rights of the one above it; return whether the group shares it."""
    made = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    shared = root.parent.stat().st_mode & _GROUP == _GROUP
    if made and shared:
        root.chmod(stat.S_IMODE(root.stat().st_mode) | _GROUP)
    return shared


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Return what tells one build of a folder from the next; None without one."""
    try:
        state = (folder / MANIFEST).stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _remove_remains(root: Path, key: str) -> None:
    """Remove what killed builders of this and of other folders have left; a live builder holds its folder's lock."""
    for remains in root.glob(".*-*"):
        other = remains.name[1:].rpartition("-")[0]
        try:
            if other != key:
                locked(root / f"{other}.lock", 0, "being built").release()
            shutil.rmtree(remains)
        except (ConfigError, OSError):
            continue


def _build(target: Path, build: Callable[[Path], dict[str, Any]], shared: bool) -> dict[str, Any]:
    # beside the target: only within one file system is a rename atomic
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with as_system_errors():
            kept = build(scratch)
        files = {file.name: {"bytes": file.stat().st_size, "sha256": file_digest(file)} for file in scratch.iterdir()}
        manifest = {"facts": kept, "files": files}
        (scratch / MANIFEST).write_text(json.dumps({**manifest, "digest": key_of(manifest)}), encoding="utf-8")
        for file in scratch.iterdir():
            if shared:
                file.chmod(0o664)
            flush_to_disk(file)
        if shared:
            scratch.chmod(0o2775)
        scratch.rename(target)
        flush_to_disk(target.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return kept


def _kept_if_whole(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("digest") != key_of(manifest):
            return None
        for name, expected in manifest["files"].items():
            file = folder / name
            if file.stat().st_size != expected["bytes"] or digest_on_node(file) != expected["sha256"]:
                return None
        return manifest["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
