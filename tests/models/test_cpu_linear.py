"""Linear layers of inference on a CPU: torch's results to the bit, and torch itself where gradients are wanted."""

import copy

import pytest
import torch
from torch import nn

from genre_lightning.models.layers.cpu_linear import CpuLinear, add_bias_by_onednn


class Recorded:
    """An operation as onednn_linear returns it, computed by torch."""

    def __init__(self):
        self.calls = 0

    def __call__(self, input, weight, bias, *how):
        assert how == ("none", [], "")
        assert input.dtype == torch.bfloat16
        self.calls += 1
        return nn.functional.linear(input, weight, bias)


def layers():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Sequential(nn.Linear(40, 8, bias=False), nn.Linear(8, 16)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tokens", [(3,), (1, 32), (2, 700)])
def test_results_are_those_of_torch_to_the_bit(dtype, tokens):
    model = layers().to(dtype)
    changed = copy.deepcopy(model)
    add_bias_by_onednn(changed)
    assert [type(one) for one in changed.modules()].count(CpuLinear) == 2  # a layer without a bias gains nothing
    assert model.state_dict().keys() == changed.state_dict().keys()
    x = torch.randn(*tokens, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(changed(x), model(x))


def test_onednn_is_asked_without_gradients_in_bfloat16_alone():
    layer = CpuLinear(nn.Linear(24, 40).to(torch.bfloat16))
    layer._operation = asked = Recorded()
    x = torch.randn(5, 24).bfloat16()
    layer(x.requires_grad_()).sum().backward()
    assert asked.calls == 0
    assert x.grad is not None
    assert layer.weight.grad is not None
    with torch.inference_mode():
        layer(x)
    assert asked.calls == 1
    with torch.inference_mode():
        copy.deepcopy(layer).float()(x.float())
    assert asked.calls == 1
