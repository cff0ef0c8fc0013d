"""Word embeddings whose gradient has the same memory in every step on a CPU."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGE = 2**20
"""Numbers of a weight from which on it pays: smaller gradients find room among what the step before has freed."""


def keep_embedding_gradients(model: nn.Module) -> None:
    """Make an `Embedding` of every large plain embedding of a model that trains."""
    for module in model.modules():
        if type(module) is not nn.Embedding:
            continue
        plain = module.max_norm is None and not (module.scale_grad_by_freq or module.sparse)
        weight = module.weight
        if plain and weight.requires_grad and weight.dtype == torch.float32 and weight.numel() >= _LARGE:
            module.__class__ = Embedding


class Embedding(nn.Embedding):
    """An embedding that on a CPU keeps the memory of its weight's gradient, and has the gradient that torch gives.

    The gradient is as large as the weight, and zero but for the words of the step. Allocated again in each step, after
    the step's states have cut up what was freed, it lands on pages that the kernel must zero first: 5% of a step.
    If there are several ranks nothing is kept, as gradients are moved into memory of DDP's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the states of the words, (..., width), of ids (...)."""
        kept = self.training and self.weight.device.type == "cpu" and not distributed.is_initialized()
        if not kept or not torch.is_grad_enabled():
            return super().forward(input)
        memory = self.__dict__.setdefault("_memory", _GradientMemory())
        return _Looked.apply(self.weight, input, self.padding_idx, memory)


class _GradientMemory:
    """Lends the same memory again and again, once the last borrower has let go of it.

    It is lent as a view of a NumPy array, which lives as long as any tensor that shares the memory: torch itself does
    not tell, as autograd hands a gradient on in a tensor of its own.
    """

    def __init__(self) -> None:
        self._array: NDArray[np.float32] | None = None
        self._lent: weakref.ref[NDArray[np.float32]] | None = None

    def __reduce__(self) -> tuple[type[_GradientMemory], tuple[()]]:
        return type(self), ()  # a copied or saved model has no use for what is in it

    def zeros(self, shape: torch.Size) -> Tensor:
        """Return float32 zeros of a shape, the same in all calls; of new memory while the last ones are in use."""
        if self._lent is not None and self._lent() is not None:
            return torch.zeros(shape)
        if self._array is None:
            self._array = torch.empty(shape).numpy()
        view = self._array.view()
        self._lent = weakref.ref(view)
        return torch.from_numpy(view).zero_()


class _Looked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding_idx: int | None, memory: _GradientMemory) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.padding_idx, ctx.memory = weight.shape, padding_idx, memory
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        words, places = ids.unique(return_inverse=True)
        sums = torch.ops.aten.embedding_dense_backward(gradients[0], places, len(words), -1, False)
        gradient = ctx.memory.zeros(ctx.shape).index_copy_(0, words, sums)
        if ctx.padding_idx is not None:
            gradient[ctx.padding_idx] = 0
        return gradient, None, None, None
