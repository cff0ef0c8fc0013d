"""The folder of an export: there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from genre_lightning.distributed.checkpoint.files import check_space
from genre_lightning.errors import ConfigError, SaveError, one_line
from genre_lightning.files import as_system_errors
from genre_lightning.folders import new_folder


@contextmanager
def whole_folder(target: Path, needed: int) -> Iterator[Path]:
    """Give an empty folder beside the target, which takes the target's name on a clean exit, flushed to disk.

    Args:
        target: Not there yet, or empty.
        needed: Bytes that will be written, roughly.

    Raises:
        ConfigError: No room or no permission, or another process writes there; nothing is left behind.
        SaveError: A write failed; nothing is left behind.
    """
    try:
        with as_system_errors(), new_folder(target) as draft:
            try:
                check_space(draft, needed)
            except OSError as error:
                raise ConfigError(_unwritable(target, error)) from error
            yield draft
    except (OSError, SafetensorError) as error:
        raise SaveError(_unwritable(target, error)) from error


def _unwritable(target: Path, error: Exception) -> str:
    reason = one_line(getattr(error, "strerror", None) or error)[:160]
    return f"{target} cannot be written ({reason}): free space there, or name another directory"
