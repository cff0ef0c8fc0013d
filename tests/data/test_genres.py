"""The genre vocabulary, and the weights of the loss against the written formula."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.data.genres import GenreVocabulary
from genre_lightning.errors import DataError

GENRES = ["Action", "Comedy", "Drama", "Film-Noir", "War"]
FILMS = st.lists(st.lists(st.sampled_from(GENRES), unique=True, max_size=5), min_size=1, max_size=30)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(FILMS.filter(lambda films: any(films)))
def test_encode_and_decode(films):
    vocabulary = GenreVocabulary.from_films(films)
    assert list(vocabulary.names) == sorted({name for film in films for name in film})
    labels = vocabulary.encode(films)
    assert labels.dtype == bool
    assert labels.shape == (len(films), len(vocabulary))
    assert vocabulary.decode(labels) == [sorted(film) for film in films]
    counts = vocabulary.counts(labels)
    assert counts == {name: sum(name in film for film in films) for name in vocabulary.names}
    assert all(type(count) is int for count in counts.values())


def test_decode_takes_one_row_and_none():
    vocabulary = GenreVocabulary(("A", "B"))
    assert vocabulary.decode(np.array([0, 1])) == [["B"]]
    assert vocabulary.decode(np.zeros((0, 2))) == []


def test_what_a_vocabulary_refuses():
    with pytest.raises(DataError, match="no genre at all"):
        GenreVocabulary.from_films([[], []])
    with pytest.raises(DataError, match="sorted"):
        GenreVocabulary(("B", "A"))
    with pytest.raises(DataError, match="sorted"):
        GenreVocabulary(("A", "A"))
    with pytest.raises(DataError, match="'Horror'"):
        GenreVocabulary(("A", "B")).encode([["A"], ["Horror"]])


def test_a_column_in_batches_is_encoded_as_the_films_are():
    films = [["War", "Drama"], [], ["Action"], ["Drama", "Comedy", "War"], ["Animation"]]
    batches = [pa.array(part, type=pa.list_(pa.string())) for part in (films[:2], [], films[2:3], films[3:])]
    vocabulary, labels = GenreVocabulary.from_batches(batches)
    assert vocabulary == GenreVocabulary.from_films(films)
    np.testing.assert_array_equal(labels, vocabulary.encode(films))


def test_a_column_without_a_genre():
    with pytest.raises(DataError, match="no genre at all"):
        GenreVocabulary.from_batches([pa.array([[], []], type=pa.list_(pa.string()))])
