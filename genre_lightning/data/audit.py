"""Contents of data_audit.json: rows, splits, unknown labels, corrections, inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.data import DataOptions
from genre_lightning.data.corrections import Corrected
from genre_lightning.data.features.fit import Leak, known_share
from genre_lightning.data.films import FilmTable
from genre_lightning.data.genres import GenreVocabulary, case_variants
from genre_lightning.data.splits import Split
from genre_lightning.types import FittedInput


def audit_of(
    options: DataOptions, films: FilmTable, vocabulary: GenreVocabulary, splits: dict[str, Split]
) -> dict[str, Any]:
    """Return the audit's entries on the file's rows and of the splits."""
    distinct = {split.sha256: split for split in splits.values()}  # the paper's protocol has one twice
    return {
        **films.audit.as_dict(),
        "notes": _notes(films, vocabulary, distinct),
        "file": options.file_names,
        "films_used": sum(len(split.films) for split in distinct.values()),
        "validation_is_test": options.is_paper_protocol,
        "splits": {
            name: {
                "films": len(split.films),
                "ids_sha256": split.sha256,
                "genres": vocabulary.counts(split.labels),
                **({} if split.known is None else {"known": vocabulary.counts(split.known)}),
            }
            for name, split in splits.items()
        },
    }


def notes_of_unknown(vocabulary: GenreVocabulary, splits: dict[str, Split]) -> list[str]:
    """Count the films that are unknown for a genre, a line for each genre that has some."""
    distinct = {split.sha256: split for split in splits.values() if split.known is not None}.values()
    notes = []
    for column, name in enumerate(vocabulary.names):
        known = sum(int(split.known[:, column].sum()) for split in distinct if split.known is not None)
        films = sum(len(split.films) for split in distinct)
        positive = sum(int(split.labels[:, column].sum()) for split in distinct)
        if known < films:
            notes.append(f"{name} is known of {known:,} films ({positive:,} have it) and unknown of {films - known:,}")
    return notes


def notes_of_corrections(changed: Corrected) -> list[str]:
    """Count the films with feedback and those with pseudo-labels."""
    by_people, by_model = int(changed.trains.sum()) - len(changed.known), len(changed.known)
    notes = []
    if by_people or not by_model:
        notes.append(
            f"feedback on {by_people:,} films is trained on; on {changed.held_out:,} films of the validation and test "
            "sides it is left out"
        )
    if by_model:
        notes.append(f"pseudo-labels of {by_model:,} films are trained on, and on no other side")
    return notes


def pseudo_labels_of(
    vocabulary: GenreVocabulary,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    known: NDArray[np.bool_] | None,
    films: list[int],
) -> dict[str, Any]:
    """Count the pseudo-labels of each genre: positive ones and known ones."""
    places = np.flatnonzero(np.isin(rows, films))
    mask = np.ones_like(labels) if known is None else known
    return {
        "films": len(places),
        "genres": vocabulary.counts(labels[places]),
        "known": vocabulary.counts(mask[places]),
    }


def inputs_of(
    films: FilmTable, inputs: Sequence[FittedInput], leaks: Sequence[Leak], *, excluded: bool
) -> dict[str, Any]:
    """Return the audit's entries on joined files and of the inputs of the head."""
    return {
        "joins": list(films.joins),
        "inputs": {
            one.name: {"kind": one.kind, **films.inputs[one.name], "fitted": known_share(one, films.inputs[one.name])}
            for one in inputs
        },
        "leaks": [{**asdict(leak), "excluded": excluded} for leak in leaks],
    }


def _notes(films: FilmTable, vocabulary: GenreVocabulary, splits: dict[str, Split]) -> list[str]:
    """Return what a reader should know of the file beside the counts, a line each."""
    by_split = [vocabulary.counts(split.labels) for split in splits.values()]
    counts = {name: sum(of_split[name] for of_split in by_split) for name in vocabulary.names}
    return [
        *films.notes,
        *(
            f"genres that differ in case only: {', '.join(f'{name} ({counts[name]:,} films)' for name in names)}; "
            "merge them with --data.merge_genre_case true"
            for names in case_variants(counts)
        ),
    ]
