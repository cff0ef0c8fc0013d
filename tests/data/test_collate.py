"""Batches: padding, rows that only keep a collective company, and types."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.data.collate import Padding, TokenisedFilms, pad_rows
from genre_lightning.data.steps import MicroBatch

ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=6)


class Store:
    def __init__(self, rows):
        self.rows = [np.array(row, dtype=np.int32) for row in rows]
        self.lengths = np.array([len(row) for row in rows], dtype=np.int32)

    def __getitem__(self, index):
        return self.rows[index]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(ROWS, st.booleans(), st.integers(0, 5))
def test_padding(rows, left, token):
    tokens, mask = pad_rows([np.array(row, dtype=np.int32) for row in rows], Padding(token, left))
    width = max(map(len, rows))
    for row, ids, real in zip(rows, tokens.tolist(), mask.tolist(), strict=True):
        blank = width - len(row)
        assert ids == ([token] * blank + row if left else row + [token] * blank)
        assert real == ([0] * blank + [1] * len(row) if left else [1] * len(row) + [0] * blank)
    assert tokens.dtype == mask.dtype == np.int64


FORMS = {
    "input_ids": torch.int64,
    "attention_mask": torch.int64,
    "weights": torch.float32,
    "index": torch.int64,
    "step_films": torch.float32,
    "labels": torch.float32,
}


@pytest.fixture
def films():
    store = Store([[1, 2, 3], [4], [5, 6], [7, 8, 9, 9]])
    labels = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    return TokenisedFilms(store, np.array([3, 1, 0]), labels, Padding(0, filler=(101, 102)))


def test_a_batch(films):
    batch = films[MicroBatch(np.array([0, 2]), 5)]
    assert {name: value.dtype for name, value in batch.items()} == FORMS
    assert batch["input_ids"].tolist() == [[7, 8, 9, 9], [1, 2, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[1, 0], [1, 1]]
    assert batch["weights"].tolist() == [1, 1]
    assert batch["index"].tolist() == [0, 2]
    assert batch["step_films"].shape == ()
    assert batch["step_films"] == 5
    assert len(films) == 3
    assert films.lengths.tolist() == [4, 1, 3]


def test_a_batch_without_films(films):
    batch = films[MicroBatch(np.array([], dtype=np.int64), 5)]
    assert {name: value.dtype for name, value in batch.items()} == FORMS
    assert batch["input_ids"].tolist() == [[101, 102]]
    assert batch["attention_mask"].tolist() == [[1, 1]]
    assert batch["labels"].tolist() == [[0, 0]]
    assert batch["weights"].tolist() == [0]
    assert batch["index"].tolist() == [-1]
    assert batch["step_films"] == 5


def test_films_whose_genres_are_not_known(films):
    batch = TokenisedFilms(films.store, films.films, None, films.padding)[MicroBatch(np.array([1]), 1)]
    assert set(batch) == set(FORMS) - {"labels"}
    assert batch["input_ids"].tolist() == [[4]]
