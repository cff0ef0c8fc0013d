"""The file that `predict` writes: in parts beside its place, then whole at once; a start goes on after its parts."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from genre_lightning.data.new_films import NewFilm
from genre_lightning.data.tables import kind_by_name
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.evaluation.evaluate import SHIPPED_POLICY
from genre_lightning.files import read_json, replacing, write_json

SEPARATOR = "|"
"""Stands between genres in a CSV."""


class TaggedFile:
    """Tagged films on their way into a .csv, .csv.gz or .parquet file.

    Parts lie in the hidden folder `.NAME.parts` beside the file until it is whole.

    Args:
        path: of the file.
        decision: how logits become genres.
        identity: what the parts depend on; parts of another identity are thrown away.
    """

    def __init__(self, path: Path, decision: Decision, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.decision = decision
        self.identity = json.loads(json.dumps(identity))
        self.folder = path.with_name(f".{path.name}.parts")

    @contextmanager
    def writing(self) -> Iterator[int]:
        """Opens the folder of parts for this process alone, and gives the number of parts that are finished.

        Raises:
            ConfigError: another process is at it, or the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=1)
            lock.acquire()
        except Timeout:
            raise ConfigError(f"another process is writing {self.path}: wait for it, or name another --out") from None
        except OSError as error:
            raise ConfigError(f"--out {self.path} cannot be written ({error.strerror}): name another place") from None
        try:
            yield self._finished_parts()
        finally:
            lock.release()

    def _finished_parts(self) -> int:
        note = self.folder / "identity.json"
        if not note.is_file() or read_json(note) != self.identity:
            for part in self.folder.glob("part-*"):
                part.unlink()
            write_json(note, self.identity)
        for remains in self.folder.glob(".tmp-*"):  # of a start that was killed in the midst of a write
            remains.unlink()
        parts = 0
        while self._part(parts).is_file():
            parts += 1
        return parts

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"

    def write_part(self, number: int, films: Sequence[NewFilm], logits: NDArray[np.float32]) -> None:
        """Writes a part, whole or not at all.

        Args:
            number: of the part, from 0.
            films: in the file's order.
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
        with replacing(self._part(number)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def assemble(self) -> dict[str, int]:
        """Puts the parts together in the file's place, and removes them.

        Returns:
            rows by their reason, those that were tagged under "tagged".
        """
        parts = [self._part(number) for number in range(self._finished_parts())]
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
        (self.folder / f"whole.{kind}").replace(self.path)
        shutil.rmtree(self.folder)
        return counts

    def _write_parquet(self, place: Path, parts: Sequence[Path], id_type: pa.DataType) -> None:
        schema = _schema(id_type, len(self.decision.genres)).with_metadata(
            {"vocabulary": json.dumps(self.decision.genres, ensure_ascii=False), "policy": SHIPPED_POLICY}
        )
        with pq.ParquetWriter(place, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part).cast(schema))

    def _write_csv(self, place: Path, parts: Sequence[Path], *, compressed: bool) -> None:
        with place.open("wb") as raw, _text_of(_compressing(raw, compressed)) as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["id", "title", "genres", "reason", *self.decision.genres])
            for part in parts:
                for row in pq.read_table(part).to_pylist():
                    figures = row["probabilities"] or [None] * len(self.decision.genres)
                    writer.writerow(
                        [
                            row["id"],
                            row["title"],
                            SEPARATOR.join(row["genres"] or ()),
                            row["reason"],
                            *("" if figure is None else f"{figure:.6g}" for figure in figures),
                        ]
                    )

    def discard(self) -> None:
        """Removes the parts, which nothing can be made of."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_out(path: Path) -> None:
    """Refuses a place or a format that cannot be written.

    Raises:
        ConfigError: with the cure.
    """
    if kind_by_name(path) not in ("csv", "csv.gz", "parquet"):
        raise ConfigError(f"--out is {path}: name a .csv, .csv.gz or .parquet file")
    if path.is_dir():
        raise ConfigError(f"--out {path} is a directory: name a file in it")
    if path.parent.exists() and not path.parent.is_dir():
        raise ConfigError(f"--out {path} cannot be written: {path.parent} is a file; name another place")


def _compressing(raw: BinaryIO, compressed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="wb")) if compressed else raw


def _text_of(file: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding="utf-8", newline="")


def _is_whole(text: str) -> bool:
    """Whether a number says all that the text does, within 64 bits."""
    return len(text) <= 18 and text.isascii() and text.isdigit() and str(int(text)) == text


def _schema(id_type: pa.DataType, genres: int) -> pa.Schema:
    vectors = pa.list_(pa.float32(), genres)
    return pa.schema(
        {"id": id_type, "title": pa.string(), "genres": pa.list_(pa.string()), "reason": pa.string(),
         "probabilities": vectors, "logits": vectors}
    )  # fmt: skip


def _vectors(values: NDArray[np.float32], missing: NDArray[np.bool_]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(missing))
