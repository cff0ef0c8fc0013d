"""Attention over texts that lie one behind another in a single row, each seeing itself only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_lightning.models.text_attention import TextGroups, attention_in_groups, group_texts

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CAUSAL_ATTENTION = "genre_lightning_texts"
"""The name under which transformers knows `text_attention` for models whose tokens see those before them."""

FULL_ATTENTION = "genre_lightning_whole_texts"
"""The name under which transformers knows `text_attention` for models whose tokens see all others."""

_ENCODERS = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert")
"""Encoders whose attention is an exchangeable function, and whose positions are given from outside."""

_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
"""Those whose positions start after the pad token's id."""


_TOKENS_MULTIPLE = 32
"""A CPU is given packed rows of a multiple of it: oneDNN compiles kernels, and memory is cut up, for each new number of
tokens. A tail of 1.1% on steps of 16 films leaves some forty of them, and takes a seventh off a step."""


def register_attention() -> None:
    """Makes `text_attention` known to transformers.

    For causal models no mask function is registered with it: texts are padded on the right if at all, so that
    causality alone keeps real tokens from seeing padding, and the mask-free kernels can be used.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(CAUSAL_ATTENTION, text_attention)
    AttentionInterface.register(FULL_ATTENTION, text_attention)
    AttentionMaskInterface.register(FULL_ATTENTION, sdpa_mask)


def packs(config: PretrainedConfig) -> bool:
    """Whether an encoder can read texts that lie one behind another, without one seeing another."""
    return config.model_type in _ENCODERS


def encoder_inputs(batch: dict[str, Tensor], config: PretrainedConfig) -> dict[str, Any]:
    """What an encoder is called with for a packed batch; on a CPU with a tail of tokens that are of no text."""
    shift = config.pad_token_id + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0
    slots, lengths = batch["slots"], packed_lengths(batch["last_tokens"])
    on_cpu = lengths.device.type == "cpu"
    ids, positions, places = batch["input_ids"], batch["position_ids"] + shift, batch["places"]
    if tail := -ids.shape[1] % _TOKENS_MULTIPLE if on_cpu else 0:
        ids, positions, places = (functional.pad(of_tokens, (0, tail)) for of_tokens in (ids, positions, places))
    return {
        "input_ids": ids,
        "position_ids": positions,
        "slots": slots,
        "places": places,
        "slot_mask": torch.arange(slots.shape[1], device=slots.device) < lengths[:, None],
        # elsewhere it would have to wait for the device
        "groups": group_texts(lengths.tolist(), config.num_attention_heads) if on_cpu else None,
    }


def text_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    slots: Tensor | None = None,
    places: Tensor | None = None,
    slot_mask: Tensor | None = None,
    groups: TextGroups | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention; with `slots` and `places` within each text of a packed row.

    Texts are brought side by side for the attention alone, padded to the longest of them: its products are few beside
    those of the linear layers, which see hardly any padding. With `groups` it takes group after group of like length.

    Args:
        module: the attention layer.
        query: (rows, heads, tokens, width of a head); one row where texts are packed.
        key: the same with the key-value heads.
        value: as `key`.
        attention_mask: 4-d where the caller has made one, else None.
        slots: int64 (texts, longest): the token of the row that stands at each place of each text; a place past a
            text's end names any token.
        places: int64 (tokens,): where each token of the row stands in the flattened `slots`.
        slot_mask: bool (texts, longest): the slots that hold a token of their text; None for causal models, whose
            tokens see none past their text's end.
        groups: of the texts, on a CPU.
        kwargs: scaling and dropout.

    Returns:
        (rows, tokens, heads, width of a head), and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions are float32, and make them so
    if slots is None or places is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    if groups is not None:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        dropout, scaling = kwargs.get("dropout", 0.0), kwargs["scaling"]
        return attention_in_groups(q, k, v, groups, dropout=dropout, scaling=scaling)[None], None

    def apart(states: Tensor) -> Tensor:
        heads, _, width = states.shape[1:]
        chosen = states[0].index_select(1, slots.flatten())
        return chosen.view(heads, *slots.shape, width).transpose(0, 1)

    mask = None if slot_mask is None else slot_mask[:, None, None, :]
    mixed, _ = sdpa_attention_forward(module, apart(query), apart(key), apart(value), mask, **kwargs)
    return mixed.flatten(0, 1).index_select(0, places)[None], None


def packed_lengths(last_tokens: Tensor) -> Tensor:
    """Tokens of each text of a packed row, int64 (texts,), from where each of them ends."""
    return last_tokens.diff(prepend=last_tokens.new_full((1,), -1))


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
