"""Floating-point operations that a training step needs, from the shape of the model and the lengths of the texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class TrainingCost:
    """What the training of one text costs: `per_token` for each of its tokens, `per_token_squared` for attention.

    Attributes:
        per_token: FLOPs of the matmuls with weights, forward and backward.
        per_token_squared: FLOPs of the matmuls between tokens, for each token times each token of the same text.
    """

    per_token: float
    per_token_squared: float

    def flops(self, tokens: float, tokens_squared: float) -> float:
        """Return the FLOPs of texts, from the sums of their lengths and of the squares of their lengths."""
        return self.per_token * tokens + self.per_token_squared * tokens_squared


def training_cost(
    backbone: nn.Module, config: Any, *, causal: bool, passes: int = 1, input_gradients: int = 0
) -> TrainingCost:
    """Count as PaLM's appendix B does (Chowdhery et al. 2022, arXiv:2204.02311), for frozen weights too.

    A weight of a linear layer costs 2 FLOPs a token forward, 2 for the gradient of its input, and 2 for its own if
    it trains: 6 for trained weights, 4 for frozen ones, since adapters of earlier layers need the gradient to pass.
    Embeddings, norms and biases multiply no matrices and count nothing; neither does the head, which reads one state
    of a text. Attention costs 12 x layers x width for each pair of tokens: 4 forward (scores and mixing) and twice
    that backward; half of it if a token sees only those before it. What is computed again by activation
    checkpointing, and padding, are not part of what the model needs.

    Args:
        backbone: Backbone, whose linear layers may be quantised or sharded: their sizes are as they were made.
        config: Configuration with num_hidden_layers, num_attention_heads, hidden_size, and head_dim if that differs.
        causal: Whether a token sees only those before it.
        passes: How often a step computes a text, forward and backward.
        input_gradients: How often it computes the gradient of the embeddings besides.
    """
    per_token = 0
    of_trained, of_frozen = 6 * passes + 2 * input_gradients, 4 * passes + 2 * input_gradients
    for name, module in backbone.named_modules():
        # a pooler reads one state of a text
        if isinstance(module, nn.Linear) and "pooler" not in name.split("."):
            of_weight = of_trained if module.weight.requires_grad else of_frozen
            per_token += of_weight * module.in_features * module.out_features
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    of_pair = (12 * passes + 8 * input_gradients) / (2 if causal else 1)
    return TrainingCost(per_token, of_pair * config.num_hidden_layers * width)
