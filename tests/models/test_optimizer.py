"""Parameter groups, learning rates and their schedule; and pooling."""

import math

import pytest
import torch
from torch import nn

from genre_lightning.errors import ConfigError
from genre_lightning.models.layers.pooling import pool, pool_packed
from genre_lightning.models.optimizer import (
    default_learning_rate,
    parameter_groups,
    parts_of_backbone,
    schedule_factor,
)


def test_groups():
    backbone = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    backbone[2].weight.requires_grad = False
    head = nn.Linear(4, 3)
    groups = parameter_groups(
        backbone.named_parameters(), head.named_parameters(), lr=1e-4, head_lr=1e-3, weight_decay=0.01
    )
    form = {
        group["name"]: (group["lr"], group["weight_decay"], [tuple(p.shape) for p in group["params"]])
        for group in groups
    }
    assert form == {
        "backbone_decay": (1e-4, 0.01, [(5, 4)]),
        "backbone_no_decay": (1e-4, 0.0, [(4,), (4,), (4,)]),
        "head_decay": (1e-3, 0.01, [(3, 4)]),
        "head_no_decay": (1e-3, 0.0, [(3,)]),
    }
    torch.optim.AdamW(groups)


def test_lower_blocks_learn_slower():
    block = lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))  # noqa: E731
    backbone = nn.ModuleDict(
        {"embeddings": nn.Embedding(5, 4), "layer": nn.ModuleList([block() for _ in range(3)]), "norm": nn.LayerNorm(4)}
    )
    groups = parameter_groups(
        backbone.named_parameters(),
        nn.Linear(4, 3).named_parameters(),
        lr=1e-3,
        head_lr=1e-2,
        weight_decay=0.01,
        part_of=parts_of_backbone(backbone, 1e-3, layer_decay=0.5),
    )
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert [rates[id(block[0].weight)] for block in backbone["layer"]] == [0.25e-3, 0.5e-3, 1e-3]
    assert rates[id(backbone["embeddings"].weight)] == 0.125e-3
    assert rates[id(backbone["norm"].weight)] == 1e-3
    assert {group["name"] for group in groups if group["lr"] == 0.25e-3} == {"backbone-2_decay", "backbone-2_no_decay"}
    torch.optim.AdamW(groups)


def test_rates_by_block_need_blocks():
    with pytest.raises(ConfigError, match=r"model\.layer_lr_decay"):
        parts_of_backbone(nn.Linear(2, 2), 1e-3, layer_decay=0.9)


def test_a_frozen_backbone_has_no_group():
    head = nn.Linear(4, 3)
    frozen = nn.Linear(4, 4).requires_grad_(False)
    groups = parameter_groups(frozen.named_parameters(), head.named_parameters(), lr=1.0, head_lr=1.0, weight_decay=0.0)
    assert [group["name"] for group in groups] == ["head_decay", "head_no_decay"]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 10), (0, 1), (1, 1)])
def test_schedule(schedule, warmup, total):
    factor = schedule_factor(schedule, warmup_steps=warmup, total_steps=total)
    factors = [factor(step) for step in range(total)]
    for step in range(total):
        if step < warmup:
            assert factors[step] == pytest.approx((step + 1) / warmup)
            continue
        done = (step - warmup) / (total - warmup)
        written = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]
        assert factors[step] == pytest.approx(written)
    assert all(value > 0 for value in factors)  # every step of the run learns
    if warmup < total and schedule != "constant":
        assert factor(total) == pytest.approx(0, abs=1e-12)
        assert factor(total + 5) == pytest.approx(0, abs=1e-12)
    assert max(factors) == pytest.approx(1)


def test_default_learning_rates_fall_with_size():
    plain = [default_learning_rate(n, adapters=False, from_scratch=False) for n in (22e6, 66e6, 110e6, 335e6)]
    assert plain == sorted(plain, reverse=True)
    assert plain[0] == 2e-4
    assert default_learning_rate(110e6, adapters=True, from_scratch=False) == 2e-4
    assert default_learning_rate(1e6, adapters=False, from_scratch=True) == 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling(dtype):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 5, 4, generator=generator).to(dtype)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    mean, first = pool(states, mask, "mean"), pool(states, mask, "cls")
    for row, length in enumerate((3, 5, 1)):
        torch.testing.assert_close(mean[row], states[row, :length].double().mean(dim=0).float(), rtol=1e-5, atol=1e-6)
        assert torch.equal(first[row], states[row, 0].float())
    assert mean.dtype == first.dtype == torch.float32


def test_pooling_ignores_what_padding_holds():
    states = torch.ones(1, 3, 2)
    states[0, 2] = 1e30
    assert torch.equal(pool(states, torch.tensor([[1, 1, 0]]), "mean"), torch.ones(1, 2))
    assert pool(states, torch.zeros(1, 3), "mean").isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_of_packed_texts_is_that_of_padded_ones(dtype):
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 5, 1]
    states = torch.randn(sum(lengths), 4, generator=generator, dtype=torch.float64).to(dtype)
    texts = states.split(lengths)
    packed, ends = states.clone().requires_grad_(), torch.tensor(lengths).cumsum(0)
    with torch.autocast("cpu", torch.bfloat16):
        mean, first = pool_packed(packed, ends - 1, "mean"), pool_packed(packed, ends - 1, "cls")
    for row, text in enumerate(texts):
        torch.testing.assert_close(mean[row], text.double().mean(dim=0).float(), rtol=1e-5, atol=1e-6)
        assert torch.equal(first[row], text[0].float())
    assert mean.dtype == first.dtype == torch.float32
    mean.sum().backward()
    shares = torch.cat([torch.full((n, 4), 1 / n) for n in lengths])
    torch.testing.assert_close(packed.grad.float(), shares.to(dtype).float(), rtol=1e-6, atol=0)
