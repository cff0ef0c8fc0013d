"""Files and folders written whole or not at all: beside their place, flushed to disk, then renamed; and JSON read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from genre_lightning.errors import CheckpointError, ConfigError, GenreLightningError, SaveError, one_line
from genre_lightning.escapes import cell
from genre_lightning.shapes import Shape, require_shape, without_nulls

if TYPE_CHECKING:
    import pyarrow as pa

_Record = TypeVar("_Record")

REMAKE = "run the command that made the run again, which writes it again"
"""The fix for a damaged file of a run, if the command is not known by name."""

_OF_RUST = re.compile(r"\(os error (\d+)\)")

_TEMPORARY = ".tmp-"

MAX_TEXT_BYTES = 64 << 20
"""Of a text, JSON or image file of a run directory: the largest have a few MiB."""

_MAX_EXPANSION = 200
"""Times that a Parquet file of a run directory may grow when it is unpacked: text packs ten-fold at most."""
_ALWAYS_READ = 256 << 20
"""Bytes that it may grow to whatever its size."""
_BATCH_ROWS = 256
"""Rows unpacked before the size is looked at."""


def file_digest(path: str | os.PathLike[str]) -> str:
    """Give the SHA-256 of a file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    The temporary file keeps the ending of `path`, since libraries choose a format by it. On an exception it is removed
    and `path` stays unchanged.

    Raises:
        ConfigError: `path` is there and is not a regular file.
    """
    target = Path(path)
    _require_regular(target, "the output")
    with _naming(target), draft_beside(target) as temporary:
        yield temporary
        finish_draft(temporary)
        temporary.replace(target)


@contextmanager
def draft_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a new empty file beside `path`, under a name that nobody can foresee; it is removed unless renamed.

    Only within one file system is a rename atomic. `remove_temporaries` knows what a killed process leaves.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def draft_folder_beside(path: str | os.PathLike[str]) -> Path:
    """Make a new empty folder beside `path`, under a name that nobody can foresee; see `draft_beside`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
    draft.chmod(0o777 & ~umask())
    return draft


def finish_draft(draft: Path) -> None:
    """Give a draft the rights of any other new file, and flush it to disk."""
    # mkstemp makes files private; a run directory is shared with whoever may read the rest of it
    draft.chmod(0o666 & ~umask())
    flush_to_disk(draft)


def flush_to_disk(path: Path) -> None:
    """Return when the disk has what was written to a file, or the names that were given in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder beside `path`; on a clean exit it takes the place of `path` with all that is in it.

    On an exception it is removed and `path` stays unchanged. A folder cannot be renamed over another one: a process
    that is killed between the two renames leaves the old one under another name, from which `restore_folder` puts it
    back.
    """
    target = Path(path)
    with _naming(target):
        restore_folder(target)
        draft = draft_folder_beside(target)
        try:
            yield draft
            aside = _aside(target)
            if target.exists():
                target.replace(aside)
            draft.replace(target)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            restore_folder(target)
            shutil.rmtree(draft, ignore_errors=True)


def restore_folder(path: str | os.PathLike[str]) -> None:
    """Finish or take back a replacement of a folder that was cut off between its two renames."""
    target = Path(path)
    aside = _aside(target)
    if aside.is_symlink() or not aside.is_dir():
        aside.unlink(missing_ok=True)  # of no replacement, and in its way
        return
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.replace(target)


def remove_temporaries(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes have left of unfinished writes under a folder, without following links."""
    for place, folders, files in os.walk(folder):
        for name in [name for name in folders if name.startswith(_TEMPORARY)]:
            folders.remove(name)
            left = Path(place, name)
            if left.is_symlink():
                left.unlink(missing_ok=True)
            else:
                shutil.rmtree(left, ignore_errors=True)
        for name in files:
            if name.startswith(_TEMPORARY):
                Path(place, name).unlink(missing_ok=True)


def try_writing(folder: Path) -> None:
    """Make an unnamed file in a folder, and leave nothing behind.

    Raises:
        OSError: No file can be made there.
    """
    # network file systems give it a name for a moment: a hidden one, for whoever looks whether the folder is empty
    with tempfile.TemporaryFile(dir=folder, prefix=_TEMPORARY):
        pass


def check_folder(path: str | os.PathLike[str], option: str) -> None:
    """Refuse a folder in which no file can be written, and leave nothing behind.

    Args:
        path: The folder, which need not exist.
        option: Option that names the folder, such as "--run_dir" or, for an argument without a name, "RUN".

    Raises:
        ConfigError: No file can be written there; the message names the fix.
    """
    place, name = Path(path), option.lstrip("-")
    another = f"another with {option}" if option.startswith("-") else "another"
    try:
        while not place.exists() and place.parent != place:
            place = place.parent
        if not place.is_dir():
            raise ConfigError(f"{name} {path} cannot be made: {place} is a file: name {another}")
        try_writing(place)
    except OSError as error:
        raise ConfigError(
            f"{name} {path} cannot be written ({error.strerror}): fix its permissions, or name {another}"
        ) from None


@contextmanager
def as_system_errors() -> Iterator[None]:
    """Raise the errors of Rust libraries that hold one of the operating system as that.

    tokenizers raises a bare Exception, "No space left on device (os error 28)", and safetensors an error of its own.
    """
    try:
        yield
    except (OSError, GenreLightningError):
        raise
    except Exception as error:
        if found := _OF_RUST.search(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Have an error of the system name the file that was to be written: the draft is gone, and a write names none."""
    try:
        with as_system_errors():
            yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or one_line(error), str(target)) from error


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def check_output(path: str | os.PathLike[str], option: str) -> None:
    """Refuse a place at which no file can be written, and leave nothing behind.

    Args:
        path: Path of a file; neither it nor its folder need exist.
        option: Option that names the file, such as "--out".

    Raises:
        ConfigError: No file can be written there; the message names the fix.
    """
    target = Path(path)
    try:
        _require_regular(target, option)
        place = next(folder for folder in target.absolute().parents if os.path.lexists(folder))
        if not place.is_dir():
            raise ConfigError(f"{option} {path} cannot be written: {place} is not a directory; name another place")
        try_writing(place)
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
        SaveError: The write failed; the message names the reason.
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


def json_value(value: object) -> object:
    """Return a value as strict JSON holds it: NaN and infinities become None, NumPy's values plain ones."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float):  # NumPy's float64 is one too
        return float(value) if math.isfinite(value) else None
    if plain := getattr(value, "tolist", None):  # without importing NumPy, which takes a third of the start of a --help
        return json_value(plain())
    return value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write strict JSON, indented: NaN and infinities become null."""
    write_text(path, json.dumps(json_value(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that a file holds.

    Raises:
        ValueError: It is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_bytes(path: str | os.PathLike[str], fix: str = REMAKE) -> bytes:
    """Read a small file of a run directory.

    Args:
        path: Path of the file.
        fix: Fix to report for a file that is missing or too large.

    Raises:
        CheckpointError: The file is missing, may not be read, or has more than `MAX_TEXT_BYTES`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: {fix}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): fix its permissions") from None
    if len(content) > MAX_TEXT_BYTES:
        raise damaged(path, f"it has more than {MAX_TEXT_BYTES:,} bytes", fix)
    return content


def read_text(path: str | os.PathLike[str], fix: str = REMAKE) -> str:
    """Read a file of UTF-8 text.

    Args:
        path: Path of the file.
        fix: Fix to report for a file that is missing, too large or not UTF-8.

    Raises:
        CheckpointError: It is, or may not be read.
    """
    try:
        return read_bytes(path, fix).decode("utf-8")
    except ValueError as error:
        raise damaged(path, error, fix) from None


def read_json(path: str | os.PathLike[str], shape: Shape = None, fix: str = REMAKE) -> dict[str, Any]:
    """Read a JSON object.

    Objects and lists of the shape that may be missing and are null are left out.

    Args:
        path: Path of the file.
        shape: Shape that the object must have; see `require_shape`.
        fix: Fix to report for a file that is missing or damaged.

    Raises:
        CheckpointError: The file is missing, damaged, holds something other than an object, or may not be read.
    """
    text = read_text(path, fix)
    try:
        value = parse_json(text)
        require_shape(value, {} if shape is None else shape)
    except ValueError as error:
        raise damaged(path, error, fix) from None
    return dict(without_nulls(value, shape))


def read_record(
    path: str | os.PathLike[str], from_json: Callable[[dict[str, Any]], _Record], fix: str = REMAKE
) -> _Record:
    """Read a JSON object as what `from_json` makes of it.

    Args:
        path: Path of the file.
        from_json: Raises ValueError, naming the value, for an object that is not what it should be.
        fix: Fix to report for a file that is missing or damaged.

    Raises:
        CheckpointError: See `read_json`.
    """
    values = read_json(path, fix=fix)
    try:
        return from_json(values)
    except ValueError as error:
        raise damaged(path, error, fix) from None


def damaged(path: str | os.PathLike[str], reason: object, fix: str = REMAKE) -> CheckpointError:
    """Return the error for a stored file that does not hold what it should."""
    return CheckpointError(f"{path} is damaged ({one_line(reason)[:200]}): {fix}")


def read_parquet(path: str | os.PathLike[str], columns: Sequence[str] = (), fix: str = REMAKE) -> pa.Table:
    """Read a Parquet file of a run directory.

    Args:
        path: Path of the file.
        columns: Columns to read, which it must have; all of them if none is named.
        fix: Fix to report for a file that is missing or damaged.

    Raises:
        CheckpointError: The file is missing or damaged, lacks a column, or expands to far more than films take.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        most = max(_ALWAYS_READ, _MAX_EXPANSION * Path(path).stat().st_size)
        # of this file alone: `read_table` takes a folder such as lr=0.1 on the way to it for a column
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if missing := set(columns) - set(schema.names):
                raise ValueError(f"it has no column {sorted(missing)[0]}")
            read = pa.schema([schema.field(name) for name in columns], schema.metadata) if columns else schema
            batches, expanded = [], 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns) or None):
                expanded += batch.nbytes
                if expanded > most:
                    raise ValueError(f"it expands to more than {most:,} bytes")
                batches.append(batch.replace_schema_metadata(schema.metadata))
        return pa.Table.from_batches(batches, read).combine_chunks()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: {fix}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, one_line(error), fix) from None


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows under the keys of the first one.

    Undefined metrics (NaN, None) are empty cells; texts are kept from being formulas, as `escapes.cell` does it.
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
