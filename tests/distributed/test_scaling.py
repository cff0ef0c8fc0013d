"""fp16 with a loss scaler: unscaled gradients, skipped steps, no wait for the device, one state for all strategies."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genre_lightning.distributed.scaling import ScaledPrecision
from genre_lightning.distributed.sharded import ShardedPrecision


@pytest.fixture
def step(monkeypatch):
    """A function that takes a step with a gradient, and returns what the clipping saw of it."""
    precision, weight = ScaledPrecision("cpu"), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    seen = []
    monkeypatch.setattr(precision, "_after_closure", lambda model, optimizer: seen.append(weight.grad.clone()))

    def asked(*arguments):
        raise AssertionError("the host asked whether to step")

    monkeypatch.setattr(precision.scaler, "_maybe_opt_step", asked)

    def take(gradient):
        def closure():
            optimizer.zero_grad()
            precision.scaler.scale((weight * torch.tensor(gradient)).sum()).backward()
            return torch.zeros(())

        precision.optimizer_step(optimizer, SimpleNamespace(automatic_optimization=True), closure)
        return seen[-1]

    take.weight, take.scaler = weight, precision.scaler
    return take


def test_gradients_are_unscaled_before_their_norm_is_taken(step):
    # with clipping or without: the norm that is logged is of these
    torch.testing.assert_close(step([3.0, 4.0]), torch.tensor([3.0, 4.0]))


def test_an_infinite_gradient_skips_the_step_and_halves_the_scale(step):
    step([1.0, 1.0])
    kept, scale = step.weight.detach().clone(), step.scaler.get_scale()
    step([float("inf"), 1.0])
    assert torch.equal(step.weight, kept)
    assert step.scaler.get_scale() == scale / 2
    step([1.0, 1.0])
    assert not torch.equal(step.weight, kept)


def sharded():
    return ShardedPrecision("16-mixed", "cpu")


def whole():
    return ScaledPrecision("cpu")


@pytest.mark.parametrize("saved", [whole, sharded])
@pytest.mark.parametrize("loaded", [whole, sharded])
def test_the_loss_scale_moves_between_strategies(saved, loaded):
    first, second, checkpoint = saved(), loaded(), {}
    first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 512.0, "_growth_tracker": 7})
    assert not first.state_dict()  # Lightning would keep it under the class's name
    first.on_save_checkpoint(checkpoint)
    second.on_load_checkpoint(checkpoint)
    assert second.scaler.get_scale() == 512.0
    assert second.scaler.state_dict()["_growth_tracker"] == 7


@pytest.mark.parametrize("name", ["MixedPrecision", "ShardedPrecision"])
@pytest.mark.parametrize("loaded", [whole, sharded])
def test_the_loss_scale_of_older_checkpoints_is_read(name, loaded):
    precision = loaded()
    precision.on_load_checkpoint({name: {**precision.scaler.state_dict(), "scale": 256.0}})
    assert precision.scaler.get_scale() == 256.0


def test_a_run_without_a_scaler_ignores_one_in_the_checkpoint():
    precision, checkpoint = ShardedPrecision("bf16-mixed", "cpu"), {}
    precision.on_load_checkpoint({"loss_scaler": whole().scaler.state_dict()})
    precision.on_save_checkpoint(checkpoint)
    assert not checkpoint
