"""Compiled blocks: the logits and gradients of plain ones, by one graph for all numbers of tokens."""

import shutil

import numpy as np
import pytest
import torch
from test_packed_encoders import build, logits_and_gradients, packed
from torch._dynamo.utils import counters
from torch.testing import assert_close

from genre_lightning.models.backbones import compile_blocks
from genre_lightning.models.layers import packing

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU by g++"),
    # torch hides it by a filter of its own, which warnings that are errors come before
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    # torch reads its own attribute of an older name while it traces
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LENGTHS = ([5, 9, 21], [8, 20, 3, 7], [30, 21])


def batches():
    random = np.random.default_rng(0)
    return [packed([random.integers(5, 60, length).astype(np.int32) for length in lengths]) for lengths in LENGTHS]


def test_compiled_blocks_are_the_plain_ones(monkeypatch):
    inputs = packing.encoder_inputs  # as on a GPU: without the groups of the CPU's own attention
    monkeypatch.setattr(
        "genre_lightning.models.distilbert.encoder_inputs", lambda *given: {**inputs(*given), "groups": None}
    )
    model = build()
    plain = [logits_and_gradients(model, batch) for batch in batches()]
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(model.backbone)
    for batch, expected in zip(batches(), plain, strict=True):
        assert_close(logits_and_gradients(model, batch), expected, rtol=1e-4, atol=1e-5)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
