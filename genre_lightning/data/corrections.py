"""What people say about films as training rows: never on the validation or test side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from genre_lightning.files import damaged, parse_json, read_text, write_text
from genre_lightning.shapes import Shape, number, require_shape, text

_SHAPE: Shape = {"text": text, "title": text, "genres": [text], "weight": number, "fields": {"*": text}}
_FORMAT = 1


@dataclass(frozen=True)
class Correction:
    """The genres of a film by people's votes.

    Attributes:
        text: Overview of the film.
        genres: That the votes give it.
        weight: In the loss of a step, where a film of a file has 1.
        title: Of the film, or "".
        fields: What the text template is filled with, by the name of the column.
    """

    text: str
    genres: tuple[str, ...]
    weight: float
    title: str
    fields: dict[str, str]


def write_corrections(corrections: Sequence[Correction], path: Path) -> None:
    """Write corrections as lines of JSON, whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in corrections))


def read_corrections(path: Path) -> list[Correction]:
    """Read what `write_corrections` wrote.

    Raises:
        CheckpointError: The file is damaged.
    """
    found = []
    try:
        for line in read_text(path, "train in another --run_dir").splitlines():
            values = parse_json(line)
            require_shape(values, _SHAPE)
            found.append(Correction(**{**values, "genres": tuple(values["genres"])}))
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
    """

    films: FilmTable
    weights: NDArray[np.float32]
    trains: NDArray[np.bool_]
    held_out: int


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
    key = key_of([_FORMAT, films.digest, [asdict(one) for one in usable.values()], source.template.template])

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
    return Corrected(result, weights, trains, len(said) - len(usable))


def _as_films(corrections: Sequence[Correction], schema: pa.Schema, source: FilmSource, ids: NDArray[Any]) -> pa.Table:
    """Make films of texts that no file has; their ids are below all others, or named after their digests."""
    count = len(corrections)
    fields = source.template.columns(source.columns)
    texts = []
    for one in corrections:
        cells = {**one.fields, source.columns.title: one.title, source.columns.overview: one.text}
        cells |= {"title": one.title, "overview": one.text}
        texts.append(source.template.fill({name: cells.get(column, "") for name, column in fields.items()}))
    if ids.dtype == object:
        digests = as_bytes(text_digests(one.text for one in corrections))
        new_ids: list[Any] = [f"feedback-{digest.hex()}" for digest in digests]
    else:
        first = min(int(ids.min()) if len(ids) else 0, 0) - 1
        new_ids = [first - number for number in range(count)]
    columns: dict[str, Any] = {
        "id": new_ids,
        "title": [one.title for one in corrections],
        "overview": [one.text for one in corrections],
        "text": texts,
        "genres": [list(one.genres) for one in corrections],
        ORIGIN: [0] * count,
    }
    arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
