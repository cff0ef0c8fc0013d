"""Packed rows: every token once, each text with its own positions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genre_lightning.data.collate import Padding, TokenisedFilms, pack_rows
from genre_lightning.data.steps import MicroBatch


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_each_token_is_found_again(lengths):
    rows = [np.arange(n, dtype=np.int32) + 1000 * place for place, n in enumerate(lengths)]
    batch = pack_rows(rows)
    assert batch["input_ids"].shape == (1, sum(lengths))
    assert all(values.dtype == np.int64 for values in batch.values())
    ids = batch["input_ids"][0]
    assert (ids == np.concatenate(rows)).all()
    assert (batch["position_ids"][0] == ids % 1000).all()
    assert ids[batch["last_tokens"]].tolist() == [int(row[-1]) for row in rows]
    # texts side by side, and back
    beside = ids[batch["slots"]]
    assert beside.shape == (len(rows), max(lengths))
    for text, row in zip(beside, rows, strict=True):
        assert (text[: len(row)] == row).all()
    assert (beside.reshape(-1)[batch["places"]] == ids).all()


class Store(list):
    lengths = np.array([3, 1, 5], dtype=np.int32)


@pytest.mark.parametrize("films", [[2, 0], []])
def test_a_packed_batch_has_rows_for_texts_and_none_for_padding(films):
    store = Store(np.arange(n, dtype=np.int32) for n in Store.lengths)
    labels = np.eye(3, 4, dtype=bool)
    batches = [
        TokenisedFilms(store, np.arange(3), labels, Padding(0, filler=(7,)), layout)[
            MicroBatch(np.array(films, int), 2)
        ]
        for layout in ("padded", "packed")
    ]
    for name in ("labels", "weights", "index", "step_films"):
        assert torch.equal(batches[0][name], batches[1][name]), name
    assert "attention_mask" not in batches[1]
    assert batches[1]["input_ids"].numel() == (sum(Store.lengths[films]) if films else 1)
