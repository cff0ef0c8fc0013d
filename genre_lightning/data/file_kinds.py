"""The format of a movies file: what its name stands for, unless its first bytes speak against it."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Literal, get_args

from genre_lightning.errors import DataError

FileKind = Literal["csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet"]

_HEAD_BYTES = 1024


def kind_by_name(path: Path) -> FileKind | None:
    """Return the format that a file's ending stands for, whether or not there is such a file; None for others."""
    kinds: tuple[FileKind, ...] = get_args(FileKind)
    return next((kind for kind in kinds if path.name.lower().endswith(f".{kind}")), None)


def file_kind(path: Path) -> FileKind:
    """Return the format of a movies file by its name, its content not speaking against it.

    Raises:
        DataError: There is no such file, or it is a directory, has another ending or another content.
    """
    if not path.exists():
        raise DataError(
            f"no such file: {path}: give the path of a movies file with --data.csv "
            "(movies_metadata.csv of The Movies Dataset), or write a sample with 'genre-lightning data sample FILE'"
        )
    if not path.is_file():
        raise DataError(f"{path} is not a file: give a .csv, .csv.gz or .parquet file with --data.csv")
    kind = kind_by_name(path)
    if kind is None:
        raise DataError(
            f"{path} ends neither in .csv, .tsv, .jsonl (each with or without .gz) nor in .parquet: rename it to its "
            "format, unpack it, or convert it"
        )
    _check_content(path, kind)
    return kind


# the first bytes of a file, the kinds that begin so, and what else it is
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "", "a zip archive (or an .xlsx workbook): unpack it and give the .csv in it"),
    (b"\x1f\x8b", "csv.gz tsv.gz jsonl.gz", "gzip data: rename it to .{kind}.gz"),
    (b"PAR1", "parquet", "a Parquet file: rename it to .parquet"),
    (b"BZh", "", "bzip2 data: unpack it with bunzip2 and give the .csv in it"),
    (b"\xfd7zXZ", "", "xz data: unpack it with unxz and give the .csv in it"),
    (b"\x28\xb5\x2f\xfd", "", "zstd data: unpack it with unzstd and give the .csv in it"),
    (b"SQLite format 3", "", "an SQLite database: export its table as CSV"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "", "an old Excel workbook: export its sheet as CSV"),
    (b"ARROW1", "", "an Arrow (Feather) file: export it as Parquet"),
    (b"%PDF", "", "a PDF document, not a table: export its table as CSV"),
    (b"version https://git-lfs", "", "a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'"),
)
_TAR = (257, b"ustar")  # place in the first header block, and what is there
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|!--|\?xml)", re.IGNORECASE)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*\"|\[\s*\{)")


def _check_content(path: Path, kind: FileKind) -> None:
    """Refuse a file whose first bytes are of another format."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None
    if not head:
        raise DataError(f"{path} is empty: write it again, or give another file")
    _check_head(path, kind, head)
    if kind.endswith(".gz"):
        if not head.startswith(b"\x1f\x8b"):
            raise DataError(f"{path} is not gzip data: rename it to .{kind.removesuffix('.gz')}")
        _check_head(path, kind.removesuffix(".gz"), _unpacked_head(path))


def _check_head(path: Path, kind: str, head: bytes) -> None:
    for beginning, kinds, found in _SIGNATURES:
        if head.startswith(beginning) and kind not in kinds.split():
            raise DataError(f"{path} is {found.format(kind=kind)}")
    if head[_TAR[0] :].startswith(_TAR[1]):
        raise DataError(f"{path} is a tar archive: unpack it and give the .csv in it")
    if _MARKUP.match(head):
        raise DataError(f"{path} is an HTML page or XML, not a table: download the file itself")
    if kind.startswith(("csv", "tsv")) and _JSON.match(head):
        raise DataError(f"{path} is JSON, not CSV: rename it to .jsonl if each line is an object, or convert it")


def _unpacked_head(path: Path) -> bytes:
    """Return the first bytes in a gzip file; none of a damaged one, which its reader describes."""
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""
