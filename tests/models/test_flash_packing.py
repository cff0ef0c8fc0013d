"""Packed texts through the flash kernel's interface, with a plain reference in the kernel's place."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import small_llama
import torch
from test_packed_encoders import build as build_encoder
from test_packed_encoders import padded, texts
from torch.nn import functional
from torch.testing import assert_close

from genre_lightning.data.collate import pack_rows
from genre_lightning.models.layers import packing

CALLS = []


def reference(query, key, value, ends, longest, *, causal, dropout, scaling):
    """Each text by itself; whatever lies outside all texts is not a number, as the kernel leaves it."""
    bounds = ends.tolist()
    CALLS.append((bounds, longest, causal))
    assert longest >= max(np.diff(bounds))
    mixed = torch.full_like(query, float("nan"))
    for start, end in itertools.pairwise(bounds):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (query, key, value))
        found = functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scaling, dropout_p=dropout, enable_gqa=True
        )
        mixed[start:end] = found[0].transpose(0, 1)
    return mixed


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    CALLS.clear()
    monkeypatch.setattr(packing, "flash_attention", reference)
    monkeypatch.setattr(packing, "_flash_takes", lambda states: True)
    monkeypatch.setattr(packing, "_TOKENS_MULTIPLES", {"cpu": 16, "cuda": 16})

    def ends(batch):
        last = batch.get("last_tokens")
        return None if last is None else functional.pad(last + 1, (1, 0)).int()

    monkeypatch.setattr(packing, "text_ends", ends)
    monkeypatch.setattr("genre_lightning.models.llama_qlora.text_ends", ends)
    inputs = packing.encoder_inputs
    monkeypatch.setattr(
        "genre_lightning.models.distilbert.encoder_inputs", lambda *given: {**inputs(*given), "groups": None}
    )


def gradients(model, batch):
    model.zero_grad()
    logits = model(batch)
    (logits * torch.arange(logits.numel()).view_as(logits)).sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("model_type", ["distilbert", "roberta"])
def test_encoder_by_flash_equals_padded(model_type):
    model = build_encoder(model_type)
    rows = texts()  # 38 tokens, and a tail of 10
    packed = {name: torch.from_numpy(values) for name, values in pack_rows(rows).items()}
    logits, expected = gradients(model, padded(rows))
    found, of_packed = gradients(model, packed)
    assert CALLS[0] == ([0, 17, 26, 35, 37, 38, 48], 17, False)
    assert_close(found, logits, rtol=1e-4, atol=1e-5)
    for name, gradient in expected.items():
        assert_close(of_packed[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-6, msg=name)


def test_decoder_by_flash_equals_padded():
    model = small_llama.stir(small_llama.build(quantization="none")).eval()
    rows = small_llama.texts()
    with torch.no_grad():
        found, expected = model(small_llama.packed(rows)), model(small_llama.padded(rows))
    assert CALLS
    assert {causal for *_, causal in CALLS} == {True}
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "capability", "width", "why"),
    [
        ("16-mixed", (9, 0), 64, ""),
        ("bf16-mixed", (8, 0), 128, ""),
        ("32-true", (9, 0), 64, "half precision only"),
        ("16-mixed", (7, 5), 64, "T4 is older than an A100"),
        ("16-mixed", (9, 0), 20, "no heads of width 20"),
    ],
)
def test_why_packed_texts_are_padded_is_said(monkeypatch, precision, capability, width, why):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "T4")
    config = SimpleNamespace(hidden_size=4 * width, num_attention_heads=4)
    said = packing.why_not_flash(torch.device("cuda"), precision, config)
    assert (why in said) if why else not said


def test_dropout_by_flash_is_that_of_padded_texts():
    rows, heads, width, dropout = texts(), 2, 16, 0.3
    batch = {name: torch.from_numpy(values) for name, values in pack_rows(rows).items()}
    lengths = packing.packed_lengths(batch["last_tokens"])
    tokens, longest = int(lengths.sum()), batch["slots"].shape[1]
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 1, heads, tokens, width, generator=generator)
    layout = {name: batch[name] for name in ("slots", "places")}
    layout["slot_mask"] = torch.arange(longest) < lengths[:, None]
    module = torch.nn.Module().train()
    module.is_causal = False

    def draws(number, **options):
        options = {"scaling": width**-0.5, "dropout": dropout, **layout, **options}
        torch.manual_seed(1)
        return torch.stack([packing.text_attention(module, *states, None, **options)[0] for _ in range(number)])

    exact = draws(1, dropout=0.0)[0]
    by_flash, of_padded = draws(300, ends=packing.text_ends(batch)), draws(300)
    assert len(CALLS) == 300
    for drawn in (by_flash, of_padded):
        error = drawn.std(dim=0) / 300**0.5
        assert ((drawn.mean(dim=0) - exact).abs() < 6 * error + 1e-6).all()
    assert_close(by_flash.var(dim=0).mean(), of_padded.var(dim=0).mean(), rtol=0.05, atol=0)
