"""A key of this user's, by which a later start of a command knows the files that an earlier one has left."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tempfile
from pathlib import Path

from genre_lightning.errors import ConfigError

_KEY_BYTES = 32


def read_key(folder: Path) -> bytes:
    """Read the user's key, made at the first call.

    Args:
        folder: Folder of the key; others may share the folder, but not the key.

    Raises:
        ConfigError: It cannot be made, or it is not this user's alone.
    """
    path = folder / f"user-{os.geteuid()}.key"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _make_key(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            key = file.read(_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read or written ({error.strerror}): fix that, or name another folder with "
            "GENRE_LIGHTNING_CACHE"
        ) from None
    if not (stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077):
        raise ConfigError(f"{path} can be read or written by others: delete it, and a new one is made")
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{path} is damaged: delete it, and a new one is made")
    return key


def _make_key(path: Path) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        # unlike a rename, a link does not replace the key that another process makes at the same moment
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()


def signature(key: bytes, *contents: bytes) -> str:
    """Sign contents, in 32 hexadecimal digits; nobody can without the key."""
    lengths = b"".join(len(content).to_bytes(8) for content in contents)
    return hmac.digest(key, lengths + b"".join(contents), "sha256").hex()[:32]
