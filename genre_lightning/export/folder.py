"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from genre_lightning.distributed.checkpoint_io import check_space
from genre_lightning.errors import ConfigError, one_line


def check_target(target: Path) -> None:
    """Refuses a place that holds something.

    Raises:
        ConfigError: with the cure.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not empty: name another directory")


@contextmanager
def whole_folder(target: Path, needed: int) -> Iterator[Path]:
    """Gives an empty folder beside the target, which takes the target's name on a clean exit, flushed to disk.

    Args:
        target: not there yet, or empty.
        needed: bytes that will be written, roughly.

    Raises:
        ConfigError: no room or no permission; nothing is left behind.
    """
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        check_space(draft, needed)
        yield draft
        _finish(draft)
        if target.exists():
            target.rmdir()
        draft.rename(target)
    except (OSError, SafetensorError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)[:160]
        raise ConfigError(
            f"{target} cannot be written ({reason}): free space there, or name another directory"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _finish(folder: Path) -> None:
    # some libraries write files that only their owner can read
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
