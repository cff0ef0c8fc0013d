"""Files written whole or not at all: a temporary file beside the target, flushed to disk, then renamed over it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError, ConfigError, SaveError
from genre_lightning.escapes import cell
from genre_lightning.metrics import json_value

MAX_JSON_BYTES = 64 << 20
"""Of a JSON file of a run directory: the largest have a few MiB."""


def file_digest(path: str | os.PathLike[str]) -> str:
    """Give the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    The temporary file keeps the ending of `path`, since libraries choose a format by it. On an exception it is removed
    and `path` stays as it was.

    Raises:
        ConfigError: `path` is there and is not a regular file.
    """
    target = Path(path)
    _require_regular(target, "the output")
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a run directory is shared with whoever may read the rest of it
        temporary.chmod(0o666 & ~umask())
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str], option: str) -> None:
    """Refuse a place at which no file can be written, and leave nothing behind.

    Args:
        path: of a file, which need not exist, nor its folder.
        option: that names it, such as "--out".

    Raises:
        ConfigError: with the fix.
    """
    target = Path(path)
    try:
        _require_regular(target, option)
        place = next(folder for folder in target.absolute().parents if os.path.lexists(folder))
        if not place.is_dir():
            raise ConfigError(f"{option} {path} cannot be written: {place} is not a directory; name another place")
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{option} {path} cannot be written ({reason}): name another place") from None


def _require_regular(target: Path, option: str) -> None:
    """Refuse to replace what is not a regular file: a device node, a pipe, a link, which may lead anywhere."""
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"))
        kind = next((name for check, name in kinds if check(mode)), "a device")
        raise ConfigError(f"{option} {target} is {kind}: name a regular file, or one that does not exist yet")


@contextmanager
def naming_the_fix(place: str | os.PathLike[str]) -> Iterator[None]:
    """Report a write that fails, such as one to a full disk, in one line with its fix.

    Raises:
        SaveError: with the reason.
    """
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"{place} could not be written ({error.strerror or error}): free space there or fix its permissions, then "
            "run the same command again"
        ) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text with its line ends as they are."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write strict JSON, indented: NaN and infinities become null."""
    write_text(path, json.dumps(json_value(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something other than an object.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"it has more than {MAX_JSON_BYTES:,} bytes")
        value = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: the run has not finished; run its command again to finish it"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): delete it and run the command again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object: delete it and run the command again")
    return value


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows under the keys of the first one.

    Undefined figures (NaN, None) are empty cells; texts are kept from being formulas, as `escapes.cell` does it.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _csv_value(value) for key, value in row.items()})
    write_text(path, buffer.getvalue())


def _csv_value(value: object) -> object:
    plain = json_value(value)
    if isinstance(plain, str):
        return cell(plain)
    return "" if plain is None else plain


def umask() -> int:
    """Read the process's umask, which POSIX lets a process only exchange."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
