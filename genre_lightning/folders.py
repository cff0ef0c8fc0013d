"""Folders written whole or not at all, in places that only this process uses."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genre_lightning.errors import ConfigError
from genre_lightning.files import flush_to_disk, try_writing, umask

_NAME_CHARACTERS = 50
"""Of the target's name in a draft's name: at most 200 bytes of the 255 that file systems take."""
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)


def check_new_folder(path: str | os.PathLike[str], option: str) -> None:
    """Refuse a place that holds something, is a link, or has no place for a folder.

    Args:
        path: Path of a folder that is empty or does not exist yet.
        option: Option that names the folder.

    Raises:
        ConfigError: The place cannot be used; the message names the fix.
    """
    target = Path(path)
    try:
        if target.is_symlink():
            raise ConfigError(f"{option} {target} is a link: name a directory that does not exist yet")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{option} {target} exists and is not empty: name another directory")
        place = next(folder for folder in target.absolute().parents if os.path.lexists(folder))
        if not place.is_dir():
            raise ConfigError(f"{option} {target} cannot be made: {place} is not a directory; name another place")
        try_writing(place)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{option} {target} cannot be written ({reason}): name another directory") from None


@contextmanager
def new_folder(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `path`, which takes the name on a clean exit, flushed to disk.

    The draft has a name that nobody can foresee, and is locked while it is written: what a killed process has left of
    the same target is removed, and a second process at the same target is refused. On an exception the draft is
    removed.

    Args:
        path: Not there yet, or an empty folder.
        private: Let nobody else look into it.

    Raises:
        ConfigError: The place is taken, by now or by a process that is writing there.
        OSError: A write failed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_drafts(target)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name[:_NAME_CHARACTERS]}.", suffix=".draft", dir=target.parent))
    lock = _lock(draft)
    try:
        yield draft
        _finish(draft, private=private)
        try:
            draft.rename(target)  # over an empty folder, but over nothing else
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise ConfigError(
                    f"another process has written {target} in the meantime: use that, or name another directory"
                ) from None
            raise
        flush_to_disk(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_left_drafts(target: Path) -> None:
    """Remove the drafts of killed processes.

    Raises:
        ConfigError: A process is writing one.
    """
    pattern = re.compile(rf"\.{re.escape(target.name[:_NAME_CHARACTERS])}\.[a-z0-9_]{{8}}\.draft")
    for place in list(target.parent.iterdir()):
        if not pattern.fullmatch(place.name) or not is_own_folder(place):
            continue
        try:
            lock = _lock(place)
        except BlockingIOError:
            raise ConfigError(f"another process is writing {target}: wait for it, or name another directory") from None
        if lock is not None:
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)


def is_own_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder of this user's, not a link to one, in which nobody else can write."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _lock(folder: str | os.PathLike[str]) -> int | None:
    """Lock a folder until the descriptor is closed, by its end the process; None on a file system without such locks.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _BUSY:
            raise BlockingIOError(error.errno, error.strerror) from None
        return None
    return descriptor


def _finish(folder: Path, *, private: bool) -> None:
    allowed = 0o700 if private else 0o777 & ~umask()
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(place, name)
            path.chmod(allowed & 0o666)  # some libraries write files that only their owner can read
            flush_to_disk(path)
        flush_to_disk(Path(place))
    folder.chmod(allowed)
