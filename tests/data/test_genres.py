"""The genre vocabulary, and the weights of the loss against the written formula."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.data.genres import GenreVocabulary, pos_weight
from genre_lightning.errors import ConfigError, DataError

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


@pytest.mark.parametrize("cap", [None, 0.5, 2.0, 1000.0])
@pytest.mark.parametrize("mode", ["full", "sqrt", "none"])
def test_pos_weight_is_the_written_formula(mode, cap):
    labels = np.random.default_rng(0).random((200, 4)) < [0.9, 0.5, 0.1, 0.02]
    weight = pos_weight(labels, GENRES[:4], mode, cap)
    assert weight.dtype == np.float32
    for column in range(4):
        positives = sum(bool(row[column]) for row in labels)
        ratio = (200 - positives) / positives
        written = {"full": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[mode]
        if cap is not None and mode != "none":
            written = min(written, cap)
        assert weight[column] == pytest.approx(written, rel=1e-6)


@pytest.mark.parametrize("mode", ["full", "sqrt", "none"])
def test_a_genre_without_a_positive_is_refused(mode):
    labels = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    with pytest.raises(DataError, match=r"genre Drama: .*data\.max_films"):
        pos_weight(labels, ["Action", "Comedy", "Drama"], mode)
    with pytest.raises(DataError, match="genres Comedy, Drama"):
        pos_weight(labels[:1], ["Action", "Comedy", "Drama"], mode)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match=r"model\.pos_weight is 'half'.*full, sqrt, none"):
        pos_weight(np.ones((2, 1), dtype=bool), ["A"], "half")


def test_a_column_in_batches_is_encoded_as_the_films_are():
    films = [["War", "Drama"], [], ["Action"], ["Drama", "Comedy", "War"], ["Animation"]]
    batches = [pa.array(part, type=pa.list_(pa.string())) for part in (films[:2], [], films[2:3], films[3:])]
    vocabulary, labels = GenreVocabulary.from_batches(batches)
    assert vocabulary == GenreVocabulary.from_films(films)
    np.testing.assert_array_equal(labels, vocabulary.encode(films))


def test_a_column_without_a_genre():
    with pytest.raises(DataError, match="no genre at all"):
        GenreVocabulary.from_batches([pa.array([[], []], type=pa.list_(pa.string()))])
