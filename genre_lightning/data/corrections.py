"""Feedback on films as training rows: never on the validation or test side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of
from genre_lightning.config.columns import FilmSource
from genre_lightning.data.combine import ORIGIN
from genre_lightning.data.films import FilmTable, open_table
from genre_lightning.data.kept_splits import as_bytes
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import one_line
from genre_lightning.escapes import json_line
from genre_lightning.files import damaged, parse_json, read_text, write_text
from genre_lightning.shapes import Shape, number, require_shape, text

_SHAPE: Shape = {
    "text": text,
    "title": text,
    "genres": [text],
    "weight": number,
    "fields": {"*": text},
    "known?": [text],
}
_FORMAT = 1


@dataclass(frozen=True)
class Correction:
    """The genres of a film by people's votes.

    Attributes:
        text: Overview of the film.
        genres: That the votes give it.
        weight: Weight in the loss of a step; a film of a file has 1.
        title: Of the film, or "".
        fields: What the text template is filled with, by the name of the column.
        known: Genres that the film is known to have or not to have; None for all. A pseudo-label knows some alone.
    """

    text: str
    genres: tuple[str, ...]
    weight: float
    title: str
    fields: dict[str, str]
    known: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: value for name, value in asdict(self).items() if name != "known" or value is not None}


def write_corrections(corrections: Sequence[Correction], path: Path) -> None:
    """Write corrections as lines of JSON, whole or not at all."""
    write_text(path, "".join(json_line(one.to_json()) + "\n" for one in corrections))


def read_corrections(path: Path) -> list[Correction]:
    """Read what `write_corrections` wrote.

    Raises:
        CheckpointError: The file is damaged.
    """
    found = []
    try:
        # not splitlines: a text in a file of an earlier version may hold other line separators
        for line in filter(None, read_text(path, "train in another --run_dir").split("\n")):
            values = parse_json(line)
            require_shape(values, _SHAPE)
            lists = {name: tuple(values[name]) for name in ("genres", "known") if name in values}
            found.append(Correction(**{**values, **lists}))
    except (ValueError, TypeError) as error:
        raise damaged(path, one_line(error), "copy it from where the run was trained") from None
    return found


@dataclass(frozen=True, eq=False)
class Corrected:
    """Films with the genres that people gave them.

    Attributes:
        films: With corrected genres, and the texts of feedback that no file has at the end.
        weights: float32 (films,), of each film in the loss of a step.
        trains: bool (films,): films with feedback, which are on no side but train.
        held_out: Texts of feedback that are left out, as they are on the validation or test side.
        known: Of the films with pseudo-labels, by their positions: the genres that are known.
    """

    films: FilmTable
    weights: NDArray[np.float32]
    trains: NDArray[np.bool_]
    held_out: int
    known: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def masked(
        self, known: NDArray[np.bool_] | None, rows: NDArray[np.int64], genres: Sequence[str]
    ) -> NDArray[np.bool_] | None:
        """Mark what pseudo-labels do not know as unknown.

        Args:
            known: bool (films in use, genres), without them; None if all labels are known.
            rows: Positions of the films in use.
            genres: Names of the columns.
        """
        if not self.known:
            return known
        mask = np.ones((len(rows), len(genres)), dtype=bool) if known is None else known
        for place in np.flatnonzero(np.isin(rows, list(self.known))).tolist():
            mask[place] = np.isin(genres, self.known[int(rows[place])])
        return mask


def corrected(
    films: FilmTable,
    digests: NDArray[np.uint64],
    held_out: NDArray[np.bool_],
    held_out_texts: set[bytes],
    corrections: Sequence[Correction],
    source: FilmSource,
    cache_dir: Path,
) -> Corrected:
    """Put corrections into the films that may be trained on.

    Args:
        films: Of the files.
        digests: Of their texts.
        held_out: bool (films,): those on the validation or test side of an earlier run.
        held_out_texts: Digests of the texts on these sides, whether a file has them or not.
        corrections: One for each text.
        source: How texts are filled.
        cache_dir: Root of the cache.
    """
    said = dict(zip(as_bytes(text_digests(one.text for one in corrections)), corrections, strict=True))
    names = as_bytes(digests)
    locked = held_out_texts | {name for name, out in zip(names, held_out.tolist(), strict=True) if out}
    usable = {name: one for name, one in said.items() if name not in locked}
    present = set(names)
    extra = [one for name, one in usable.items() if name not in present]
    key = key_of([_FORMAT, films.digest, [one.to_json() for one in usable.values()], source.template.template])

    def build(folder: Path) -> dict[str, Any]:
        table = films.table
        genres = [
            list(usable[name].genres) if name in usable else row
            for name, row in zip(names, table["genres"].to_pylist(), strict=True)
        ]
        column = table.schema.field("genres")
        place = table.schema.get_field_index("genres")
        table = table.set_column(place, column, pa.array(genres, column.type))
        with pa.OSFile(str(folder / "films.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
            if extra:
                writer.write_table(_as_films(extra, table.schema, source, films.ids))
        return {}

    folder, _ = build_once(cache_dir / "corrected", key, build)
    trains = np.array([name in usable for name in names] + [True] * len(extra), dtype=bool)
    of_films = [usable[name].weight if name in usable else 1.0 for name in names]
    weights = np.array(of_films + [one.weight for one in extra], dtype=np.float32)
    path = folder / "films.arrow"
    result = replace(films, table=open_table(path), digest=key, path=path)
    every = [*(usable.get(name) for name in names), *extra]
    known = {place: one.known for place, one in enumerate(every) if one is not None and one.known is not None}
    return Corrected(result, weights, trains, len(said) - len(usable), known)


def _as_films(corrections: Sequence[Correction], schema: pa.Schema, source: FilmSource, ids: NDArray[Any]) -> pa.Table:
    """Make films of texts that no file has; their ids are made of their digests."""
    count = len(corrections)
    fields = source.template.columns(source.columns)
    texts = []
    for one in corrections:
        cells = {**one.fields, source.columns.title: one.title, source.columns.overview: one.text}
        cells |= {"title": one.title, "overview": one.text}
        texts.append(source.template.fill({name: cells.get(column, "") for name, column in fields.items()}))
    digests = as_bytes(text_digests(one.text for one in corrections))
    new_ids: list[Any] = [f"feedback-{digest.hex()}" for digest in digests]
    if ids.dtype != object:  # below zero: the same in every run of a chain, whose sides are kept by them
        new_ids = [-1 - int.from_bytes(digest[:7], "little") for digest in digests]
    columns: dict[str, Any] = {
        "id": new_ids,
        "title": [one.title for one in corrections],
        "overview": [one.text for one in corrections],
        "text": texts,
        "genres": [list(one.genres) for one in corrections],
        ORIGIN: [0] * count,
    }
    arrays = [pa.array(columns.get(column.name, [None] * count), column.type) for column in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
