"""What one rank of a node finds out for all of them: digests of files, and what a model's hub has."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from genre_lightning.errors import ConfigError
from genre_lightning.files import file_digest
from genre_lightning.locks import HeldLock, locked

_STARTS = (
    ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    ("SLURM_STEP_ID", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"),
    ("GENRE_LIGHTNING_FIRST_RANK", "LOCAL_RANK"),
)
"""By launcher, the variables that name a start of the ranks; the first is the launcher's own."""

_PATIENCE_SECONDS = 1800.0
"""For the rank that reads: 138 GB of a 70B base take two minutes, and ten on a busy file system."""
_SETTLED_SECONDS = 2.0
"""A file that has just been written may change again within one tick of the file system's clock."""
_STALE_SECONDS = 24 * 3600.0
"""After which the notes of another start are removed."""


def start_of_ranks(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what names this start of the run's ranks; None if this process has none beside it."""
    own = next((names for names in _STARTS if names[0] in environment), None)
    if own is None or (own[-1] == "LOCAL_RANK" and own[-1] not in environment):
        return None  # rank 0 of a plain command is done with all this before it starts the others
    # a rank's parent is its launcher, which torchrun may not have given a name of its own
    family = [] if "SLURM_STEP_ID" in own else [str(os.getppid())]
    return "/".join([environment.get(name, "") for name in own if name != "LOCAL_RANK"] + family)


def once_on_node(what: str, find: Callable[[], str]) -> str:
    """Return a text that one rank of this node finds out and the others wait for.

    A process without other ranks finds it out by itself, and so does one that has waited for too long or cannot keep
    notes in the node's temporary folder.

    Args:
        what: Names it, within this start of the run.
        find: Finds it out; what it raises is not kept.
    """
    start = start_of_ranks()
    folder = _notes_of(start) if start else None
    if folder is None:
        return find()
    note = folder / hashlib.sha256(what.encode()).hexdigest()
    if (known := _read(note)) is not None:
        return known
    lock = _lock_of(note)
    try:
        if (known := _read(note)) is not None:
            return known
        found = find()
        with suppress(OSError):
            draft = note.with_name(f"{note.name}.{os.getpid()}")
            draft.write_text(found, encoding="utf-8")
            draft.replace(note)
        return found
    finally:
        if lock:
            lock.release()


def digest_on_node(path: Path) -> str:
    """Return the SHA-256 of a file, which one rank of this node reads for all.

    The note is of the file as it is now: one that is written or replaced later is read again.

    Raises:
        OSError: It cannot be read.
    """
    state = path.stat()
    if time.time() - state.st_mtime < _SETTLED_SECONDS:
        return file_digest(path)
    place = (path.resolve(), state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return once_on_node(f"digest {place}", lambda: file_digest(path))


def _notes_of(start: str) -> Path | None:
    """Return the folder of a start's notes, this user's alone; None if it cannot be had."""
    root = Path(tempfile.gettempdir()) / f"genre_lightning-{os.geteuid()}"
    folder = root / hashlib.sha256(start.encode()).hexdigest()[:24]
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        found = root.lstat()
        # another user may have made it first
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        if not folder.is_dir():
            _remove_stale(root)
            folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder


def _remove_stale(root: Path) -> None:
    for other in root.iterdir():
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def _read(note: Path) -> str | None:
    try:
        return note.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _lock_of(note: Path) -> HeldLock | None:
    """Return the lock of who finds out; None if another rank takes too long."""
    try:
        return locked(note.with_suffix(".lock"), _PATIENCE_SECONDS, "another rank of this node is at it")
    except ConfigError:
        return None
