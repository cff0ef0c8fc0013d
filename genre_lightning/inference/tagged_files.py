"""The file that `predict` writes: in parts beside its place, then whole at once; a start resumes after its parts."""

from __future__ import annotations

import csv
import gzip
import hmac
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genre_lightning.cache import default_cache_dir
from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.data.file_kinds import kind_by_name
from genre_lightning.data.new_films import NewFilm
from genre_lightning.errors import ConfigError
from genre_lightning.escapes import cell, join_names
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.files import check_output, naming_the_fix, replacing
from genre_lightning.folders import is_own_folder, new_folder
from genre_lightning.locks import locked
from genre_lightning.signing import read_key, signature

_PART = re.compile(r"part-(\d{6})-([0-9a-f]{32})\.parquet")
_NOTE = "identity.json"
_LARGEST_NOTE = 1 << 24
"""Bytes; a thousand genres take some ten thousand."""


class TaggedFile:
    """Tagged films on their way into a .csv, .csv.gz or .parquet file.

    Parts lie in the hidden folder `.NAME.parts` beside the file until it is whole. The folder and each part are signed
    with the user's key: what anybody else has put there is neither used nor followed.

    Args:
        path: Path of the file.
        decision: How logits become genres.
        identity: What the parts depend on; parts of another identity are thrown away.
        raw_cells: Leave texts in a CSV as they are, even those that a spreadsheet program takes for formulas.
    """

    def __init__(self, path: Path, decision: Decision, identity: Mapping[str, Any], *, raw_cells: bool = False) -> None:
        self.path = path
        self.decision = decision
        self.raw_cells = raw_cells
        self.folder = path.with_name(f".{path.name}.parts")
        self._identity = json.dumps(identity, sort_keys=True).encode()
        self._key = b""

    @contextmanager
    def writing(self) -> Iterator[int]:
        """Open the folder of parts for this process alone, and give the number of parts that are finished.

        Raises:
            ConfigError: Another process uses it, or this user's `predict` did not make it.
            SaveError: It cannot be made.
        """
        self._key = read_key(default_cache_dir())
        with naming_the_fix(self.path):
            if not os.path.lexists(self.folder):
                with new_folder(self.folder, private=True) as draft:
                    self._write_note(draft)
            self._require_own()
            busy = f"another process is writing {self.path}: wait for it, or name another --out"
            lock = locked(self.folder / ".lock", 1, busy)
        with lock:
            with naming_the_fix(self.path):
                finished = self._resume()
            yield finished

    def _write_note(self, folder: Path) -> None:
        content = {"identity": self._identity.decode(), "signature": signature(self._key, self._identity)}
        with replacing(folder / _NOTE) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    def _require_own(self) -> str:
        """Refuse a folder that this user's `predict` did not make; give the identity that it was made for."""
        try:
            if is_own_folder(self.folder):
                descriptor = os.open(self.folder / _NOTE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(descriptor, "rb") as file:
                    note = json.loads(file.read(_LARGEST_NOTE))
                expected = signature(self._key, note["identity"].encode())
                if hmac.compare_digest(expected, note["signature"]) and not (self.folder / ".lock").is_symlink():
                    return str(note["identity"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise ConfigError(
            f"{self.folder} was not left by an earlier start of this user's 'predict': look at it and remove it, or "
            "name another --out"
        )

    def _resume(self) -> int:
        """Remove what is of no use to this start, and count the parts that are."""
        if self._require_own() != self._identity.decode():
            self._write_note(self.folder)
        parts = self._finished_parts()
        # of another identity or of a start that was killed in a write, or that others have put there
        for place in [*self.folder.glob("part-*"), *self.folder.glob(".tmp-*")]:
            if place not in parts:
                place.unlink()
        return len(parts)

    def _finished_parts(self) -> list[Path]:
        """Return the parts from the first one on that this user's `predict` has written for this identity."""
        found = {}
        for place in self.folder.iterdir():
            match = _PART.fullmatch(place.name)
            if match and not place.is_symlink() and place.is_file():
                number = int(match[1])
                if hmac.compare_digest(self._sign(number, place.read_bytes()), match[2]):
                    found[number] = place
        parts: list[Path] = []
        while len(parts) in found:
            parts.append(found[len(parts)])
        return parts

    def _sign(self, number: int, content: bytes) -> str:
        return signature(self._key, self._identity, str(number).encode(), content)

    def write_part(self, number: int, films: Sequence[NewFilm], logits: NDArray[np.float32]) -> None:
        """Write a part, whole or not at all.

        Args:
            number: Index of the part, from 0.
            films: Films in the file's order.
            logits: float32 (films, genres); those of films with a reason are not looked at.
        """
        reasons = [film.reason for film in films]
        missing = np.array([reason is not None for reason in reasons])
        probabilities = self.decision.probabilities(np.where(missing[:, None], 0, logits))
        decided = self.decision.decide(probabilities, SHIPPED_POLICY) & ~missing[:, None]
        names = np.array(self.decision.genres, dtype=object)
        genres = [None if gone else names[row].tolist() for row, gone in zip(decided, missing, strict=True)]
        table = pa.table(
            {
                "id": pa.array([film.id for film in films], pa.string()),
                "title": pa.array([film.title for film in films], pa.string()),
                "genres": pa.array(genres, pa.list_(pa.string())),
                "reason": pa.array(reasons, pa.string()),
                "probabilities": _vectors(probabilities, missing),
                "logits": _vectors(logits, missing),
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getvalue()
        with replacing(self.folder / f"part-{number:06}-{self._sign(number, content)}.parquet") as temporary:
            temporary.write_bytes(content)

    def assemble(self) -> dict[str, int]:
        """Put the parts together in the file's place, and remove them.

        Returns:
            Rows by their reason, those that were tagged under "tagged".
        """
        parts = self._finished_parts()
        counts: dict[str, int] = {}
        whole_numbers = True
        for part in parts:
            for batch in pq.ParquetFile(part).iter_batches(columns=["id", "reason"]):
                whole_numbers &= all(value is None or _is_whole(value) for value in batch["id"].to_pylist())
                for reason in batch["reason"].to_pylist():
                    counts[reason or "tagged"] = counts.get(reason or "tagged", 0) + 1
        kind = kind_by_name(self.path)
        with replacing(self.folder / f"whole.{kind}") as temporary:
            if kind == "parquet":
                self._write_parquet(temporary, parts, pa.int64() if whole_numbers else pa.string())
            else:
                self._write_csv(temporary, parts, compressed=kind == "csv.gz")
        check_output(self.path, "--out")
        (self.folder / f"whole.{kind}").replace(self.path)
        shutil.rmtree(self.folder)
        return counts

    def _write_parquet(self, place: Path, parts: Sequence[Path], id_type: pa.DataType) -> None:
        schema = _schema(id_type).with_metadata(
            {"vocabulary": json.dumps(self.decision.genres, ensure_ascii=False), "policy": SHIPPED_POLICY}
        )
        with pq.ParquetWriter(place, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).cast(schema))

    def _write_csv(self, place: Path, parts: Sequence[Path], *, compressed: bool) -> None:
        plain = str if self.raw_cells else cell
        with place.open("wb") as raw, _text_of(_compressing(raw, compressed)) as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["id", "title", "genres", "reason", *map(plain, self.decision.genres)])
            for part in parts:
                for row in pq.read_table(part).to_pylist():
                    figures = row["probabilities"] or [None] * len(self.decision.genres)
                    writer.writerow(
                        [
                            plain(row["id"] or ""),
                            plain(row["title"]),
                            plain(join_names(row["genres"] or ())),
                            row["reason"],
                            *("" if figure is None else f"{figure:.6g}" for figure in figures),
                        ]
                    )

    def discard(self) -> None:
        """Remove the parts, of which nothing can be made."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _compressing(raw: BinaryIO, compressed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="wb")) if compressed else raw


def _text_of(file: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding="utf-8", newline="")


def _is_whole(text: str) -> bool:
    """Return whether a number says all that the text does, within 64 bits."""
    return len(text) <= 18 and text.isascii() and text.isdigit() and str(int(text)) == text


def _schema(id_type: pa.DataType) -> pa.Schema:
    vectors = pa.list_(pa.float32())  # some versions of Arrow cannot read lists of a fixed size of which some are null
    return pa.schema(
        {"id": id_type, "title": pa.string(), "genres": pa.list_(pa.string()), "reason": pa.string(),
         "probabilities": vectors, "logits": vectors}
    )  # fmt: skip


def _vectors(values: NDArray[np.float32], missing: NDArray[np.bool_]) -> pa.Array:
    """Give the rows as lists, null if they are missing."""
    rows, width = values.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(missing))
