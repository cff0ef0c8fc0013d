"""The genres of a data set: their order, and their encoding as multi-hot rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class GenreVocabulary:
    """The sorted names of the genres; position in `names` is the column of every label and probability array."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("the films name no genre at all: check data.columns.genres and data.genre_format")
        if list(self.names) != sorted(set(self.names)):
            raise DataError(f"the genres of a vocabulary are sorted and distinct, not {list(self.names)}")

    @classmethod
    def from_films(cls, genres_of_films: Iterable[Iterable[str]]) -> GenreVocabulary:
        """Return the vocabulary of all genres that any of the films has."""
        return cls(tuple(sorted({name for genres in genres_of_films for name in genres})))

    @classmethod
    def from_batches(
        cls, batches: Iterable[pa.ListArray], *, merge_case: bool = False, own: Sequence[str] = ()
    ) -> tuple[GenreVocabulary, NDArray[np.bool_]]:
        """Return the vocabulary of all genres in a column, read once, and the column's films encoded.

        Args:
            batches: The names of each film's genres.
            merge_case: Take names that differ in upper and lower case only for one, the most frequent of them.
            own: Names in whose spelling they are taken, whatever is frequent.

        Returns:
            The vocabulary, and bool (films, genres).
        """
        number: dict[str, int] = {}
        columns, counts = [], []
        for batch in batches:
            # Arrow's own to_numpy imports pandas
            encoded = batch.flatten().dictionary_encode()
            known = [number.setdefault(name, len(number)) for name in encoded.dictionary.to_pylist()]
            columns.append(np.asarray(known, dtype=np.int32)[np.from_dlpack(encoded.indices)])
            counts.append(np.from_dlpack(batch.value_lengths()))
        columns_of_films = np.concatenate(columns) if columns else np.zeros(0, dtype=np.int32)
        films = np.bincount(columns_of_films, minlength=len(number)).tolist()
        spelling = {name: name for name in number}
        if merge_case:
            for variants in case_variants(dict(zip(number, films, strict=True))):
                spelling.update(dict.fromkeys(variants, variants[0]))
            before = {name.casefold(): name for name in own}
            spelling = {name: before.get(name.casefold(), chosen) for name, chosen in spelling.items()}
        vocabulary = cls(tuple(sorted(set(spelling.values()))))
        at = {name: column for column, name in enumerate(vocabulary.names)}
        place = np.array([at[spelling[name]] for name in number], dtype=np.int64)
        rows = np.repeat(np.arange(sum(map(len, counts))), np.concatenate(counts))
        labels = np.zeros((sum(map(len, counts)), len(vocabulary)), dtype=bool)
        labels[rows, place[columns_of_films]] = True
        return vocabulary, labels

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, genres_of_films: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """Return the multi-hot rows.

        Args:
            genres_of_films: The names of each film's genres.

        Returns:
            bool array (films, genres).

        Raises:
            DataError: A genre that the vocabulary lacks.
        """
        column = {name: index for index, name in enumerate(self.names)}
        labels = np.zeros((len(genres_of_films), len(self.names)), dtype=bool)
        for row, genres in enumerate(genres_of_films):
            for name in genres:
                if name not in column:
                    raise DataError(
                        f"genre {name!r} is not one of the {len(self)} genres that the model knows: "
                        "use a file with the genres of the training file"
                    )
                labels[row, column[name]] = True
        return labels

    def decode(self, labels: NDArray[Any]) -> list[list[str]]:
        """Return the names behind multi-hot rows (films, genres), in the vocabulary's order."""
        return [[self.names[column] for column in np.flatnonzero(row)] for row in np.atleast_2d(labels)]

    def counts(self, labels: NDArray[np.bool_]) -> dict[str, int]:
        """Return how many films have each genre."""
        return dict(zip(self.names, labels.sum(axis=0).astype(int).tolist(), strict=True))


def case_variants(films: Mapping[str, int]) -> list[list[str]]:
    """Group the names that differ in upper and lower case only; the most frequent first, names alone left out.

    Args:
        films: Number of films of each name.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(films, key=lambda name: (-films[name], name)):
        groups.setdefault(name.casefold(), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
