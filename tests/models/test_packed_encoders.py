"""Encoders over texts that lie one behind another: the same logits and gradients as padded, for each family."""

import itertools
import math

import numpy as np
import pytest
import torch
from specs import data_spec
from torch.testing import assert_close
from transformers import AutoConfig

from genre_lightning.data.collate import Padding, pack_rows, pad_rows
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.layers import cpu_attention, packing
from genre_lightning.models.layers.cpu_attention import attention_in_groups, group_texts
from genre_lightning.models.layers.cpu_dropout import Dropout, keep_mask, keep_scale, masked

PAD = 1
"""The pad token; RoBERTa's positions start after it."""

SHAPE = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "embedding_size": 32, "max_position_embeddings": 40, "pad_token_id": PAD,
}  # fmt: skip


def texts():
    rng = np.random.default_rng(3)
    return [rng.integers(5, 60, size=length).astype(np.int32) for length in (17, 9, 9, 2, 1)]


def packed(rows):
    return {name: torch.from_numpy(values) for name, values in pack_rows(rows).items()}


def padded(rows):
    return dict(zip(("input_ids", "attention_mask"), map(torch.from_numpy, pad_rows(rows, Padding(PAD))), strict=True))


def build(model_type="distilbert", dropout=0.0):
    config = AutoConfig.for_model(model_type, **SHAPE)
    model = DistilBertClassifier(backbone="small", dropout=dropout)
    model.backbone_config = config
    model.bind(data_spec("abc", 60, 32, PAD))
    model.configure_model()
    return model.train()


def logits_and_gradients(model, batch):
    model.zero_grad()
    logits = model(batch)
    (logits * torch.arange(logits.numel()).view_as(logits)).sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("in_groups", [True, False])
@pytest.mark.parametrize("model_type", packing._ENCODERS)
def test_packed_equals_padded(model_type, in_groups, monkeypatch):
    if not in_groups:  # as on an accelerator

        def inputs(*arguments):
            return {**packing.encoder_inputs(*arguments), "groups": None}

        monkeypatch.setattr("genre_lightning.models.distilbert.encoder_inputs", inputs)
    model = build(model_type)
    assert model.layout == "packed"
    logits, gradients = logits_and_gradients(model, padded(texts()))
    again, of_packed = logits_and_gradients(model, packed(texts()))
    assert_close(again, logits, rtol=1e-4, atol=1e-5)
    assert of_packed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert_close(of_packed[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-6, msg=name)


def test_texts_do_not_see_each_other():
    model, rows = build().eval(), texts()
    others = [row[::-1].copy() for row in rows[:2]] + rows[2:]
    assert_close(model(packed(others))[2:], model(packed(rows))[2:], rtol=1e-5, atol=1e-6)


def test_a_cpu_sees_few_numbers_of_tokens():
    lengths = [(17, 9, 9, 2, 1), (30,), (30, 4), (31, 1)]
    rows = [packed([np.full(n, 7, dtype=np.int32) for n in of_batch]) for of_batch in lengths]
    inputs = [packing.encoder_inputs(batch, build().backbone_config) for batch in rows]
    assert [one["input_ids"].shape for one in inputs] == [(1, 64), (1, 32), (1, 64), (1, 32)]
    for batch, one in zip(rows, inputs, strict=True):
        real = batch["input_ids"].shape[1]
        assert torch.equal(one["input_ids"][:, :real], batch["input_ids"])
        assert one["position_ids"].shape == one["input_ids"].shape == (1, len(one["places"]))


def test_an_encoder_that_cannot_keep_texts_apart_is_padded():
    model = DistilBertClassifier(backbone="small")
    model.backbone_config = AutoConfig.for_model("mpnet")
    assert model.layout == "padded"
    assert DistilBertClassifier(backbone="small", packing=False).layout == "padded"
    assert DistilBertClassifier(backbone="./nowhere").layout == "padded"  # what is wrong is reported with all else


LENGTHS = [9, 8, 8, 2, 1]
"""The first three make a group; padded to 16, 8 and 8."""


def states(count):
    """Of the texts' tokens, and of three behind them that are of no text."""
    return [torch.randn(sum(LENGTHS) + 3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(count)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_attention_is_its_formula_text_by_text(p, causal):
    groups = group_texts(LENGTHS, 2, causal=causal)
    assert groups.shapes == ((3, 2, 16), (1, 2, 8), (1, 2, 8))
    query, key, value = states(3)
    key, value = key[:, :1], value[:, :1]  # both heads of the query share one
    torch.manual_seed(5)
    got = attention_in_groups(query, key, value, groups, dropout=p, scaling=0.5)
    torch.manual_seed(5)
    drawn = groups.split_weights(keep_mask((3 * 2 * 16**2 + 2 * (2 * 8**2),), p))
    keeps = [*drawn[0].view(3, 2, 16, 16), drawn[1], drawn[2]]
    parts = []
    for start, length, keep in zip(itertools.accumulate([0, *LENGTHS]), LENGTHS, keeps, strict=False):
        q, k, v = (x[start : start + length].transpose(0, 1) for x in (query, key, value))
        scores = q @ k.mT * 0.5
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        weight = torch.softmax(scores, -1) * (keep[:, :length, :length] != 0) * keep_scale(p)
        parts.append((weight @ v).transpose(0, 1))
    assert_close(got, torch.cat([*parts, torch.zeros(3, 2, 4, dtype=torch.float64)]))


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_gradient_of_attention_with_dropout(causal):
    def attend(*inputs):
        torch.manual_seed(5)
        return attention_in_groups(*inputs, group_texts(LENGTHS, 2, causal=causal), dropout=0.3, scaling=0.5)

    assert torch.autograd.gradcheck(attend, states(3))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_bfloat16_is_that_in_float32_but_for_its_rounding(causal):
    """Without dropout, only training in bfloat16 takes matmuls that have a backward pass of their own."""
    groups = group_texts(LENGTHS, 2, causal=causal)
    made = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(7)
        query, key, value = (x.detach().bfloat16().to(dtype).requires_grad_() for x in states(3))
        one = attention_in_groups(query, key, value, groups, dropout=0.0, scaling=0.5)
        one.backward(torch.randn(one.shape, dtype=torch.float64).bfloat16().to(dtype))
        made.append([one.float(), *(x.grad.float() for x in (query, key, value))])
    assert "_GroupAttention" in one.grad_fn.next_functions[0][0].name()
    for exact, rounded in zip(*made, strict=True):
        assert_close(rounded, exact, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("block_scores", [1, 300, 10**6])  # blocks of one head of a text, of several, and of a group
@pytest.mark.parametrize("causal", [False, True])
def test_inference_in_bfloat16_is_that_in_float32_but_for_its_rounding(causal, block_scores, monkeypatch):
    monkeypatch.setattr(cpu_attention, "_BLOCK_SCORES", block_scores)
    torch.manual_seed(7)
    rounded = [x.detach().bfloat16() for x in states(3)]
    groups = group_texts(LENGTHS, 2, causal=causal)
    exact, got = (
        attention_in_groups(*(x.to(dtype) for x in rounded), groups, dropout=0.0, scaling=0.5).float()
        for dtype in (torch.float64, torch.bfloat16)
    )
    assert not torch.equal(got, exact)
    assert_close(got, exact, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_its_share_and_the_mean(p):
    torch.manual_seed(0)
    layer = Dropout(p)
    x = torch.ones(1000, 1000, requires_grad=True)
    y = layer(x)
    share = float((y == 0).float().mean())
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / 1e6) ** 0.5)
    assert float(y.detach().max()) == pytest.approx(1 / (1 - p), rel=1e-4)
    y.sum().backward()
    assert torch.equal(x.grad, y)
    # neighbours come of the same drawn word
    kept = (y > 0).float()
    for distance in (1, 2, 3, 4):
        both = float((kept[:, distance:] * kept[:, :-distance]).mean())
        assert both == pytest.approx((1 - p) ** 2, abs=2e-3)
    assert torch.equal(layer.eval()(x), x)


def test_where_nothing_goes_all_stays():
    assert (keep_mask((200_000,), 0.0) == -1).all()
    assert (keep_mask((200_000,), 2**-18) == -1).all()  # less than the draws can tell from 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_mask_keeps_bits_as_they_are_or_gives_zero(dtype):
    kept = torch.tensor([-1, 0, -1, 0, -1], dtype=torch.int16)
    states = torch.tensor([1.5, math.inf, -0.25, 2.0, 0.1], dtype=dtype)
    assert torch.equal(masked(states, kept), torch.tensor([1.5, 0.0, -0.25, 0.0, 0.1], dtype=dtype))
    turned = masked(states[:4].view(2, 2).T, kept[:4].view(2, 2))
    assert torch.equal(turned, torch.tensor([[1.5, 0.0], [math.inf, 0.0]], dtype=dtype))


def test_dropout_follows_the_seed():
    layer, x = Dropout(0.2), torch.ones(333)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
