"""Attention over texts that lie one behind another in a single row, each seeing itself only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "genre_lightning_texts"
"""The name under which transformers knows `text_attention`."""


def register_attention() -> None:
    """Makes `text_attention` known to transformers.

    No mask function is registered with it: texts are padded on the right if at all, so that causality alone keeps real
    tokens from seeing padding, and the mask-free kernels can be used.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, text_attention)


def text_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    slots: Tensor | None = None,
    places: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention; with `slots` and `places` within each text of a packed row.

    Texts are brought side by side for the attention alone, padded to the longest of them: its products are few beside
    those of the linear layers, which see no padding.

    Args:
        module: the attention layer.
        query: (rows, heads, tokens, width of a head); one row where texts are packed.
        key: the same with the key-value heads.
        value: as `key`.
        attention_mask: 4-d where the caller has made one, else None.
        slots: int64 (texts, longest): the token of the row that stands at each place of each text; a place past a
            text's end names any token.
        places: int64 (tokens,): where each token of the row stands in the flattened `slots`.
        kwargs: scaling and dropout.

    Returns:
        (rows, tokens, heads, width of a head), and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions are float32, and make them so
    if slots is None or places is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    def apart(states: Tensor) -> Tensor:
        heads, _, width = states.shape[1:]
        chosen = states[0].index_select(1, slots.flatten())
        return chosen.view(heads, *slots.shape, width).transpose(0, 1)

    mixed, _ = sdpa_attention_forward(module, apart(query), apart(key), apart(value), None, **kwargs)
    return mixed.flatten(0, 1).index_select(0, places)[None], None


def last_tokens(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The state of each text's last real token, float32 (texts, width), of a padded or packed batch.

    Args:
        states: (rows, tokens, width).
        batch: of the data module, with `last_tokens` where packed, else with `attention_mask`, padded on the right.
    """
    if "last_tokens" in batch:
        return states[0].index_select(0, batch["last_tokens"]).float()
    last = batch["attention_mask"].sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), last].float()
