"""Files of films as rows of cells, whatever their format, in bounded memory and only as one whole file."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import truediv
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from genre_lightning.data.csv_rows import MAX_ROW_CHARACTERS, CsvRows, TooLargeError
from genre_lightning.data.file_kinds import file_kind
from genre_lightning.data.json_rows import JsonRows
from genre_lightning.errors import DataError, one_line
from genre_lightning.progress import ReadShare

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_BYTES = 64 * 2**20
_MAX_EXPANSION = 200
"""Times that a column of a Parquet file may grow when it is unpacked: text packs ten-fold at most."""


@dataclass(frozen=True)
class FileState:
    """What changes when a file is written to.

    Attributes:
        path: Path of the file.
        stamp: Device, inode, size in bytes and time of the last change in nanoseconds.
    """

    path: Path
    stamp: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Look at a file."""
        return cls(path, _stamp(path.stat()))

    def check_unchanged(self) -> None:
        """Refuse a file that has changed since.

        Raises:
            DataError: It has, or it is gone.
        """
        try:
            same = _stamp(self.path.stat()) == self.stamp
        except OSError:
            same = False
        if not same:
            raise DataError(
                f"{self.path} has changed while it was read: wait until it is written whole, then run the command again"
            )


def _stamp(state: os.stat_result) -> tuple[int, int, int, int]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def read_rows(
    path: Path,
    needed: Sequence[str],
    share: ReadShare | None = None,
    *,
    optional: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Iterator[dict[str, Any]]:
    """Yield each row of a movies file as its cells by column; a `MisfitRow` if its cells do not fit the header.

    Args:
        path: A .csv, .tsv or .jsonl file, each with or without .gz, or a .parquet file.
        needed: Columns that it must have, each once.
        share: Called with the fraction that has been read.
        optional: Columns that are read if the file has them; None for all others.
        encoding: Text encoding of a file that is not Parquet.

    Raises:
        DataError: The file is missing, empty, not readable in its format, lacks a column, changes while it is read, or
            holds a cell or row that is larger than any film's.
    """
    share = share or ReadShare()
    kind = file_kind(path)
    try:
        state = FileState.of(path)
        if kind == "parquet":
            yield from _parquet_rows(path, needed, optional, share)
        else:
            yield from _text_rows(path, kind, needed, optional, encoding, share)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None
    except DataError:
        state.check_unchanged()  # what was found in half a file is not what is wrong with it
        raise
    state.check_unchanged()


def header_of(path: Path, needed: Sequence[str], encoding: str = "utf-8") -> list[str]:
    """Return the names of a file's columns.

    Args:
        path: A file that `read_rows` reads.
        needed: Columns that it should have, by which the separator of a CSV is found.
        encoding: Text encoding of a file that is not Parquet.

    Raises:
        DataError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = file_kind(path)
    try:
        if kind == "parquet":
            return list(pq.ParquetFile(path).schema_arrow.names)
        with path.open("rb") as raw, _as_text(raw, kind, encoding) as text:
            return list(JsonRows(text).header if kind.startswith("jsonl") else CsvRows(text, needed).header)
    except (OSError, ValueError, EOFError, csv.Error, zlib.error, pa.ArrowException) as error:
        next(read_rows(path, [], encoding=encoding), None)  # says what is wrong with it
        raise DataError(f"{path} cannot be read ({one_line(error)[:160]}): export it again") from None


def _text_rows(
    path: Path, kind: str, needed: Sequence[str], optional: Sequence[str] | None, encoding: str, share: ReadShare
) -> Iterator[dict[str, Any]]:
    size = max(path.stat().st_size, 1)
    try:
        with path.open("rb") as raw, _as_text(raw, kind, encoding) as text:
            # of the file as it lies on disk, compressed or not
            share.measure = lambda: raw.tell() / size
            is_json = kind.startswith("jsonl")
            rows = JsonRows(text, share.count_rows) if is_json else CsvRows(text, needed, share.count_rows)
            check_header(path, rows.header, needed, optional)
            yield from map(_plain_row, rows) if is_json else rows
            share.measure = lambda: 1.0
    except UnicodeError as error:
        reason = getattr(error, "reason", error)  # a file without a byte-order mark has none
        raise DataError(
            f"{path} is not {encoding.upper()} text ({reason}): name its encoding with --data.encoding, such as "
            f"{_likely_encoding(path)}, or convert it to UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file ({error}): download or compress it again") from None
    except (csv.Error, TooLargeError) as error:
        raise DataError(f"{path} is not a well-formed table ({error}): export it again") from None


def _as_text(raw: BinaryIO, kind: str, encoding: str) -> TextIO:
    content = gzip.GzipFile(fileobj=raw) if kind.endswith(".gz") else raw
    return io.TextIOWrapper(content, encoding=encoding, newline="")


def _likely_encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2)
    if head in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-16-le" if head.endswith(b"\0") else "windows-1252"


def _parquet_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] | None, share: ReadShare
) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        header = file.schema_arrow.names
        check_header(path, header, needed, optional)
        columns = [name for name in header if optional is None or name in needed or name in optional]
        done, rows = 0, max(file.metadata.num_rows, 1)
        for batch in file.iter_batches(batch_size=_batch_rows(path, file, columns), columns=columns):
            done += batch.num_rows
            share.measure = partial(truediv, done, rows)
            if share.count_rows:
                share.count_rows(batch.num_rows)
            _check_cells(path, batch)
            plain = [_plain_cells(column) for column in batch.columns]
            yield from (dict(zip(columns, cells, strict=True)) for cells in zip(*plain, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} holds a string that is not UTF-8 ({error.reason}): export it again from decoded text"
        ) from None
    except (pa.ArrowException, OSError) as error:
        reason = one_line(str(error).splitlines()[0])
        raise DataError(f"{path} is not a readable Parquet file ({reason}): export or download it again") from None


def _batch_rows(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> int:
    """Return how many rows are read at a time, so that an average batch stays within `_BATCH_BYTES`."""
    most = 1.0
    for group in range(file.metadata.num_row_groups):
        group_bytes = 0
        for place in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(place)
            if chunk.path_in_schema.split(".")[0] not in columns:
                continue
            group_bytes += chunk.total_uncompressed_size
            grown = chunk.total_uncompressed_size / max(chunk.total_compressed_size, 1)
            if chunk.total_uncompressed_size > _BATCH_BYTES and grown > _MAX_EXPANSION:
                raise DataError(
                    f"{path} has a column {chunk.path_in_schema!r} that grows {grown:,.0f}-fold to "
                    f"{chunk.total_uncompressed_size:,} bytes when it is unpacked, which no films' texts do: "
                    "export it again"
                )
        most = max(most, group_bytes / max(file.metadata.row_group(group).num_rows, 1))
    return max(1, min(4096, int(_BATCH_BYTES / most)))


def _check_cells(path: Path, batch: pa.RecordBatch) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            if longest > MAX_ROW_CHARACTERS:
                raise DataError(
                    f"{path} has a cell of {longest:,} bytes in column {name!r}, and films have at most "
                    f"{MAX_ROW_CHARACTERS:,}: shorten or drop it"
                )


def _plain_cells(column: pa.Array) -> list[Any]:
    """Return the cells of a Parquet column as a CSV would give them: text for bytes, nothing for NaN."""
    import pyarrow as pa

    cells = column.to_pylist()
    if pa.types.is_map(column.type):
        return [cell if cell is None else dict(cell) for cell in cells]
    return [_plain(cell) if isinstance(cell, bytes | float) else cell for cell in cells]


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a JSON object likewise; a `MisfitRow` stays one."""
    for name, cell in row.items():
        if isinstance(cell, float):
            row[name] = _plain(cell)
    return row


def _plain(cell: bytes | float) -> Any:
    if isinstance(cell, bytes):
        return cell.decode("utf-8")
    if not math.isfinite(cell):
        return None
    return int(cell) if cell.is_integer() else cell  # integers of pandas that may be missing are floats


def check_header(path: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str] | None = ()) -> None:
    """Refuse a header without a needed column, or with two of one that is read.

    Raises:
        DataError: The header is unfit; the message names it, or what the file seems to be.
    """
    missing = [name for name in dict.fromkeys(needed) if name not in header]
    if missing:
        if any("\0" in name for name in header):
            raise DataError(
                f"{path} is binary data, or text in UTF-16: export it as CSV, or name --data.encoding utf-16-le"
            )
        if not header and ".jsonl" in path.name.lower():
            raise DataError(
                f"{path} has no line that is a JSON object: write each film as an object on a line of its own"
            )
        shown = ", ".join(header[:30]) or "nothing"
        if any(name.strip()[:1] in ("[", "{") or len(name) > 60 or re.fullmatch(r"[0-9]+", name) for name in header):
            raise DataError(
                f"{path} seems to have no header, as its first line is a film: {one_line(shown)[:160]}: put a line "
                "with the names of the columns before it, such as id,title,overview,genres"
            )
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}; its header is: {one_line(shown)[:400]}: "
            "name the right columns with --data.columns.id, .overview, .genres, .title, or give a movies file"
            + (" whose columns are separated by commas, semicolons, tabs or |" if len(header) == 1 else "")
            + (
                "; genres in columns of 0 and 1 are read with --data.genre_format one_hot"
                if "genres" in missing
                else ""
            )
        )
    for name in dict.fromkeys([*needed, *(optional or ())]):
        if header.count(name) > 1:
            places = [str(place) for place, other in enumerate(header, start=1) if other == name]
            raise DataError(
                f"{path} has {len(places)} columns {name!r} (columns {' and '.join(places)}): rename one of them"
            )
