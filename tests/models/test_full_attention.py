"""Decoders that read both ways and pool by the mean: equal in every layout, and to plain transformers."""

import itertools

import pytest
import torch
from small_llama import build, packed, padded, stir, texts, trained, with_labels
from torch.testing import assert_close
from transformers import LlamaModel


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize(("attention", "pooling"), [("full", "mean"), ("full", "last"), ("causal", "mean")])
def test_packed_equals_padded_in_logits_and_gradients(quantization, attention, pooling):
    model = stir(build(quantization=quantization, attention=attention, pooling=pooling, activation_checkpointing=True))
    rows = texts()
    results = []
    for batch in (padded(rows), packed(rows)):
        output = model.model_step(with_labels(batch, rows))
        gradients = torch.autograd.grad(output.loss_sum, list(trained(model).values()))
        results.append((output.logits, *gradients))
    assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    alone = torch.cat([model(packed([row])) for row in rows])
    assert_close(results[0][0], alone, rtol=1e-4, atol=1e-5)


def test_logits_are_those_of_plain_transformers_with_a_mask_of_its_own(tmp_path):
    config = build(quantization="none").backbone_config
    torch.manual_seed(0)
    LlamaModel(config).save_pretrained(tmp_path)
    model = build(backbone=str(tmp_path), quantization="none", attention="full", pooling="mean").eval()
    plain = LlamaModel.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    rows = texts()
    with torch.no_grad():
        means = []
        for row in rows:
            nothing_hidden = torch.zeros(1, 1, len(row), len(row))
            ids = torch.from_numpy(row)[None].long()
            means.append(plain(ids, attention_mask=nothing_hidden).last_hidden_state[0].mean(dim=0))
        assert_close(model(packed(rows)), model.head(torch.stack(means)), rtol=1e-4, atol=1e-5)


def test_each_choice_gives_other_logits():
    choices = itertools.product(("causal", "full"), ("last", "mean"))
    logits = [build(attention=attention, pooling=pooling)(packed(texts())) for attention, pooling in choices]
    for one, other in itertools.combinations(logits, 2):
        assert not torch.allclose(one, other, atol=1e-3)


def test_full_attention_costs_twice_the_products_of_causal_attention():
    causal, full = (build(attention=attention).training_cost() for attention in ("causal", "full"))
    assert full.per_token == causal.per_token
    assert full.per_token_squared == 2 * causal.per_token_squared
