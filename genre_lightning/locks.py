"""Locks between processes: dropped with their holder, on any file system, and never waited for without a bound."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from genre_lightning.errors import ConfigError

LEASE_SECONDS = 60.0
"""How long a lease must go without a sign of life from its holder before another process may take it."""

# Lustre mounted without flock; network and FUSE file systems without a lock service
_NO_FLOCK = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK})


class BusyError(ConfigError):
    """Another process holds the lock."""


class HeldLock:
    """A lock that is held until `release`, or until the end of a `with` block.

    Args:
        lock: Acquired, once.
    """

    def __init__(self, lock: BaseFileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let other processes in."""
        self._lock.release()

    def __enter__(self) -> HeldLock:
        """Keep the lock for the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes in."""
        self.release()


def locked(path: Path, patience_seconds: float, what: str, *, group_writable: bool = False) -> HeldLock:
    """Take a lock that keeps other processes out until it is released.

    The lock is the system's own, which disappears with its holder. A file system that has none gets a lease instead:
    a file beside the lock that the holder touches every few seconds and that any host may take once it is stale.

    Use it as a context manager (`with locked(...):`), or keep the result and call its `release()`.

    Args:
        path: Lock file; its directory must exist. The file stays after the release.
        patience_seconds: How long to wait for another process; 0 tries once. A wait for a lease takes at least as long
            as a dead holder's lease stands.
        what: What is locked and the fix, as the message to show if another process holds the lock:
            "another process is working in runs/a: wait for it, stop it, or name another --run_dir".
        group_writable: Let other members of the file's group take the lock too, whatever the umask.

    Raises:
        BusyError: Another process holds the lock for all of that time.
        ConfigError: No lock file can be made there.
    """
    mode = 0o664 if group_writable else -1
    try:
        try:
            return _acquired(FileLock(path, timeout=patience_seconds, mode=mode, fallback_to_soft=False))
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
        lease = path.with_name(f"{path.name}.lease")
        if patience_seconds and lease.exists():
            # only who watches a dead holder's lease for its whole time may take it
            patience_seconds = max(patience_seconds, 1.5 * LEASE_SECONDS)
        return _acquired(SoftFileLease(lease, lease_duration=LEASE_SECONDS, timeout=patience_seconds, mode=mode))
    except Timeout:
        raise BusyError(what) from None
    except OSError as error:
        raise ConfigError(
            f"no lock can be made at {path} ({error.strerror or error}): check its permissions and remove what is in "
            "its place, or name a folder on another file system"
        ) from None


def is_held(path: Path) -> bool:
    """Return whether another process holds a lock; also where this process may not write."""
    if not path.is_file():
        return False
    try:
        locked(path, 0, "").release()
    except BusyError:
        return True
    except ConfigError:
        return _is_held_by_reading(path)
    return False


def _is_held_by_reading(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _acquired(lock: BaseFileLock) -> HeldLock:
    lock.acquire()
    return HeldLock(lock)
