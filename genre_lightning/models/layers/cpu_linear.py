"""Linear layers of inference in bfloat16 on a CPU, by an operation of oneDNN that adds the bias itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_lightning.compat import onednn_linear


class CpuLinear(nn.Linear):
    """A linear layer with the weights of another one; results are equal to the bit.

    torch's own copies the bias into the result before it multiplies, a tenth of the time for thousands of tokens.

    Args:
        layer: The other one, with a bias.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self._operation = onednn_linear()

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output; by torch where gradients are wanted, on a GPU, and in other dtypes."""
        with_gradients = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if self._operation is None or with_gradients or not input.is_cpu or self.weight.dtype != torch.bfloat16:
            return functional.linear(input, self.weight, self.bias)
        return self._operation(input.to(torch.bfloat16), self.weight, self.bias, "none", [], "")


def add_bias_by_onednn(module: nn.Module) -> None:
    """Put a `CpuLinear` in the place of each linear layer that is `nn.Linear` itself and has a bias."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.bias is not None:
                setattr(parent, name, CpuLinear(child).train(child.training))
