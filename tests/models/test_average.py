"""The moving average of the weights: its formula, its place in the optimizer's state, and what a checkpoint holds."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from genre_lightning.models.average import AVERAGE, exchange, exchange_in_checkpoint, follow, forget


def trained(steps, decay=0.5):
    """A layer after some steps, its optimizer, and its weights after each step."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    weights = []
    follow(optimizer, decay, lambda: len(weights))
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        weights.append(layer.weight.detach().clone())
    return layer, optimizer, weights


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.999])
def test_the_written_formula(decay):
    layer, optimizer, weights = trained(6, decay)
    expected = weights[0]
    for step, weight in enumerate(weights[1:], 1):
        keep = min(decay, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * weight
    assert_close(optimizer.state[layer.weight][AVERAGE], expected)


def test_exchanging_twice_changes_no_bit():
    layer, optimizer, weights = trained(3)
    average = optimizer.state[layer.weight][AVERAGE].clone()
    exchange(optimizer)
    assert torch.equal(layer.weight, average)
    assert torch.equal(optimizer.state[layer.weight][AVERAGE], weights[-1])
    exchange(optimizer)
    assert torch.equal(layer.weight, weights[-1])
    forget(optimizer)
    exchange(optimizer)
    assert torch.equal(layer.weight, weights[-1])


def test_a_checkpoint_holds_the_average_as_weights_and_leaves_the_training_alone():
    layer, optimizer, weights = trained(3)
    average = optimizer.state[layer.weight][AVERAGE].clone()
    checkpoint = {"state_dict": layer.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    exchange_in_checkpoint(checkpoint, optimizer, layer)
    assert torch.equal(checkpoint["state_dict"]["weight"], average)
    assert torch.equal(layer.weight, weights[-1])
    assert torch.equal(optimizer.state[layer.weight][AVERAGE], average)
    other, again, _ = trained(1)
    other.load_state_dict(checkpoint["state_dict"])
    again.load_state_dict(checkpoint["optimizer_states"][0])
    exchange(again)
    assert torch.equal(other.weight, weights[-1])
    assert torch.equal(again.state[other.weight][AVERAGE], average)


def test_without_a_step_there_is_nothing_to_exchange():
    layer, optimizer, _ = trained(0)
    before = layer.weight.detach().clone()
    exchange(optimizer)
    checkpoint = {"state_dict": layer.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    exchange_in_checkpoint(checkpoint, optimizer, layer)
    assert torch.equal(layer.weight, before)
