"""The splits of a run, kept with it: which side each film is on, by its id and by the digest of its text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genre_lightning.data.arrow import binaries, texts
from genre_lightning.data.splits import SPLIT_NAMES
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.files import damaged, parse_json, read_parquet, replacing
from genre_lightning.shapes import count, require_shape

DIGEST_BYTES = 16
_FIX = "copy it from where the run was trained, or train in another --run_dir"


@dataclass(frozen=True, eq=False)
class KeptSplits:
    """The side of each film of a run.

    Attributes:
        ids: Distinct ids of the films.
        digests: Digests of their normalised texts; see `splits.text_digests`.
        sides: "train", "validation" or "test" for each; in the paper's protocol no film is on "validation", as that
            is the test split.
        file: Name of the movies file, for messages.
        born: For each film, the run of a chain of continued runs in which it was first seen; 0 is the first run.
        used: Whether the run itself has the film: one that it has not used keeps its side all the same.
        genres: For each genre that came later than the first run, the run in which it came.
        generation: Position of the run in its chain; 0 is a run that continues from none.
        numbered: Whether the ids are numbers of rows, as the file has none: they say nothing of another file's films.
            It is False for a run of a version that did not keep it.
    """

    ids: Sequence[str]
    digests: Sequence[bytes]
    sides: Sequence[str]
    file: str = ""
    born: Sequence[int] = ()
    used: Sequence[bool] = ()
    genres: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0
    numbered: bool = False

    @classmethod
    def of_parts(
        cls,
        ids: NDArray,
        digests: NDArray[np.uint64],
        parts: Sequence[NDArray[np.int64]],
        file: str,
        *,
        numbered: bool = False,
    ) -> KeptSplits:
        """Keep splits that were drawn.

        Args:
            ids: Ids of all films.
            digests: uint64 (films, 2), of their texts.
            parts: Positions of the films of train, validation and test, or of train and test.
            file: Name of the movies file.
            numbered: Whether the ids are numbers of rows.
        """
        sides = np.empty(len(ids), dtype=object)
        for side, part in zip(_names(len(parts)), parts, strict=True):
            sides[part] = side
        return cls(list(map(str, ids.tolist())), as_bytes(digests), sides.tolist(), file, numbered=numbered)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> KeptSplits:
        """Read splits.parquet of a run.

        Raises:
            CheckpointError: It is damaged, or may not be read.
        """
        table = read_parquet(path, fix=_FIX)
        try:
            ids, digests, sides = (table[name].to_pylist() for name in ("id", "text_digest", "split"))
            if len(set(ids)) != len(ids) or not all(isinstance(value, str) for value in ids):
                raise ValueError("its ids are not distinct texts")
            if not set(sides) <= set(SPLIT_NAMES) or not {"train", "test"} <= set(sides):
                raise ValueError("its sides are not train, validation and test")
            if any(not isinstance(value, bytes) or len(value) != DIGEST_BYTES for value in digests):
                raise ValueError("its text digests are not of 16 bytes")
            metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            file, chain = metadata.get("file", ""), {}
            if "generation" in metadata:
                born, used = (table[name].to_pylist() for name in ("born", "used"))
                genres = parse_json(metadata["genres"])
                require_shape(genres, {"*": count})
                chain = {"born": born, "used": used, "genres": genres, "generation": int(metadata["generation"])}
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise damaged(path, one_line(error), _FIX) from None
        return cls(ids, digests, sides, file, **chain, numbered="numbered" in metadata)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write splits.parquet, whole or not at all."""
        columns = {
            "id": texts(self.ids),
            "text_digest": binaries(self.digests, DIGEST_BYTES),
            "split": texts(self.sides),
        }
        metadata = {"file": self.file} | ({"numbered": "true"} if self.numbered else {})
        if self.generation:
            columns |= {"born": pa.array(self.born, pa.int32()), "used": pa.array(self.used, pa.bool_())}
            metadata |= {"generation": str(self.generation), "genres": json.dumps(dict(self.genres))}
        table = pa.table(columns).replace_schema_metadata(metadata)
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def parts(self, ids: NDArray, digests: NDArray[np.uint64], path: Path) -> list[NDArray[np.int64]]:
        """Give each film of a file the side that it had when the run was trained.

        Args:
            ids: Ids of the file's films.
            digests: Digests of their texts.
            path: Path of the file, for messages.

        Returns:
            int64, ascending: positions of the films of train, validation and test, or of train and test.

        Raises:
            ConfigError: The file does not hold the very films that the run was trained with.
        """
        films = zip(self.ids, zip(self.digests, self.sides, strict=True), self.in_use, strict=True)
        known = {name: film for name, film, used in films if used}
        found = list(zip(map(str, ids.tolist()), as_bytes(digests), strict=True))
        new = sum(name not in known for name, _ in found)
        changed = sum(name in known and known[name][0] != digest for name, digest in found)
        missing = len(known.keys() - {name for name, _ in found})
        if new or changed or missing:
            raise ConfigError(
                f"{path} holds other films than those that the run was trained with ({new:,} new, {missing:,} missing, "
                f"{changed:,} with another text): give its own file, name another --run_dir, or evaluate other films "
                "with 'genre-lightning evaluate RUN --data.csv FILE'"
            )
        sides = np.array([known[name][1] for name, _ in found], dtype=object)
        return [np.flatnonzero(sides == side) for side in self.names]

    @property
    def names(self) -> tuple[str, ...]:
        """The sides that there are: train, validation and test, or train and test."""
        return _names(len(set(self.sides)))

    @property
    def in_use(self) -> Sequence[bool]:
        """Of each film, whether the run itself has it."""
        return self.used or [True] * len(self.ids)

    @property
    def births(self) -> Sequence[int]:
        """Of each film, the run of the chain in which it was first seen."""
        return self.born or [0] * len(self.ids)

    def on_side(
        self, ids: NDArray, digests: NDArray[np.uint64], side: str
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Find the films of another file that are on a side of this run.

        Args:
            ids: Ids of the file's films.
            digests: Digests of their texts.
            side: "train", "validation" or "test".

        Returns:
            bool (films,) each: those with the text of such a film, and those with the id of one: none if the run's ids
            are numbers of rows.
        """
        texts = {digest for digest, one in zip(self.digests, self.sides, strict=True) if one == side}
        names = (
            set() if self.numbered else {name for name, one in zip(self.ids, self.sides, strict=True) if one == side}
        )
        by_text = np.array([digest in texts for digest in as_bytes(digests)], dtype=bool)
        by_id = np.array([str(name) in names for name in ids.tolist()], dtype=bool)
        return by_text, by_id


def read_if_there(path: Path) -> KeptSplits | None:
    """Read splits.parquet of a run; None for a run of a version that did not keep them."""
    return KeptSplits.read(path) if path.is_file() else None


def _names(parts: int) -> tuple[str, ...]:
    return SPLIT_NAMES if parts == len(SPLIT_NAMES) else (SPLIT_NAMES[0], SPLIT_NAMES[-1])


def as_bytes(digests: NDArray[np.uint64]) -> list[bytes]:
    """Return digests of texts, uint64 (texts, 2), as they are kept."""
    return [row.tobytes() for row in np.ascontiguousarray(digests)]
