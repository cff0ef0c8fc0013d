"""Attention over texts that lie one behind another in a single row, each seeing itself only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_lightning.models.layers.cpu_attention import TextGroups, attention_in_groups, group_texts

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

_FLASH_DTYPES = (torch.float16, torch.bfloat16)

_FLASH_CAPABILITY = (8, 0)
"""The first CUDA devices that the flash kernel runs on: A100 and what came after it."""

_TOKENS_MULTIPLES = {"cpu": 32, "cuda": 128}
"""Packed rows are filled up to a multiple of it: each new number of tokens costs oneDNN a compilation, cuBLAS a search
for its kernels (0.1 ms a product, which is more than the product takes), and cuts memory up. On a CPU a tail of 1.1% on
steps of 16 films leaves some forty numbers, and takes a seventh off a step."""


def register_attention() -> None:
    """Make `text_attention` known to transformers.

    For causal models no mask function is registered with it: texts are padded on the right if at all, so that
    causality alone keeps real tokens from seeing padding, and the mask-free kernels can be used.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(CAUSAL_ATTENTION, text_attention)
    AttentionInterface.register(FULL_ATTENTION, text_attention)
    AttentionMaskInterface.register(FULL_ATTENTION, sdpa_mask)


def avoid_plans_per_shape() -> None:
    """Keep torch from cuDNN's attention, which is first on H100 and H200.

    It builds a plan of some 40 ms for each new shape, and nearly every micro-batch has one of its own.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def packs(config: PretrainedConfig) -> bool:
    """Return whether an encoder can read texts that lie one behind another, without one seeing another."""
    return config.model_type in _ENCODERS


def encoder_inputs(batch: dict[str, Tensor], config: PretrainedConfig) -> dict[str, Any]:
    """Return what an encoder is called with for a packed batch, with a tail of tokens that belong to no text."""
    shift = config.pad_token_id + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0
    slots, lengths = batch["slots"], packed_lengths(batch["last_tokens"])
    ids, positions, places = batch["input_ids"], batch["position_ids"] + shift, batch["places"]
    ends = text_ends(batch)
    if tail := -ids.shape[1] % _TOKENS_MULTIPLES.get(ids.device.type, 1):
        ids, positions, places = (functional.pad(of_tokens, (0, tail)) for of_tokens in (ids, positions, places))
        if ends is not None:  # the tail is a text of its own: its states stay numbers, though nothing reads them
            ends = functional.pad(ends, (0, 1), value=ids.shape[1])
    return {
        "input_ids": ids,
        "position_ids": positions,
        "slots": slots,
        "places": places,
        "slot_mask": torch.arange(slots.shape[1], device=slots.device) < lengths[:, None],
        "ends": ends,
        "groups": text_groups(batch, config, causal=False),
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
    ends: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention; with `slots` and `places` within each text of a packed row.

    With `ends`, in half precision, the flash kernel takes the row as it is. Else, for which `why_not_flash` has the
    reason, texts are brought side by side for the
    attention alone, padded to the longest text: its matmuls are few beside those of the linear layers, which see
    hardly any padding. With `groups` it takes group after group of like length.

    Args:
        module: The attention layer.
        query: (rows, heads, tokens, width of a head); one row if texts are packed.
        key: The same with the key-value heads.
        value: Values, of the shape of `key`.
        attention_mask: 4-d if the caller has made one, else None.
        slots: int64 (texts, longest): the token of the row that stands at each place of each text; a place past a
            text's end names any token.
        places: int64 (tokens,): where each token of the row stands in the flattened `slots`.
        slot_mask: bool (texts, longest): the slots that hold a token of their text; None for causal models, whose
            tokens see none past their text's end.
        groups: Groups of the texts, on a CPU.
        ends: int32 (texts + 1,): 0 and where each text ends, on a CUDA GPU.
        kwargs: Scaling and dropout.

    Returns:
        (rows, tokens, heads, width of a head), and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions are float32, and make them so
    if slots is None or places is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))  # x[0] would copy gradients
    if ends is not None and _flash_takes(value):
        dropout, scaling = kwargs.get("dropout", 0.0), kwargs.get("scaling")
        # the tail may be longer than all texts; the kernel takes 128 tokens at once anyway
        longest = max(slots.shape[1], _TOKENS_MULTIPLES["cuda"])
        mixed = flash_attention(q, k, v, ends, longest, causal=slot_mask is None, dropout=dropout, scaling=scaling)
        return mixed[None], None

    if groups is not None:
        dropout, scaling = kwargs.get("dropout", 0.0), kwargs["scaling"]
        mixed = attention_in_groups(q, k, v, groups, dropout=dropout, scaling=scaling)
        return mixed[None], None

    def apart(states: Tensor) -> Tensor:
        heads, _, width = states.shape[1:]
        chosen = states.squeeze(0).index_select(1, slots.flatten())
        return chosen.view(heads, *slots.shape, width).transpose(0, 1)

    mask = None if slot_mask is None else slot_mask[:, None, None, :]
    mixed, _ = sdpa_attention_forward(module, apart(query), apart(key), apart(value), mask, **kwargs)
    return mixed.flatten(0, 1).index_select(0, places)[None], None


def text_groups(batch: dict[str, Tensor], config: PretrainedConfig, *, causal: bool) -> TextGroups | None:
    """Return the groups of like length of a packed batch on a CPU; None for other batches and devices."""
    last = batch.get("last_tokens")
    if last is None or last.device.type != "cpu":  # elsewhere it would have to wait for the device
        return None
    return group_texts(packed_lengths(last).tolist(), config.num_attention_heads, causal=causal)


def full_attention_inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a decoder is called with beside a batch so that a token sees all of its text.

    Returns:
        slot_mask bool (texts, longest) of a packed batch; attention_mask bool (rows, 1, 1, tokens) of a padded one.
    """
    if "last_tokens" not in batch:
        return {"attention_mask": batch["attention_mask"].bool()[:, None, None, :]}
    slots, lengths = batch["slots"], packed_lengths(batch["last_tokens"])
    return {"slot_mask": torch.arange(slots.shape[1], device=slots.device) < lengths[:, None]}


def text_ends(batch: dict[str, Tensor]) -> Tensor | None:
    """Return where texts begin and end in a packed row, if a GPU with the flash kernel has it.

    Returns:
        int32 (texts + 1,): 0 and the end of each text; None for padded batches and on other devices.
    """
    last = batch.get("last_tokens")
    if last is None or not last.is_cuda or _device_without_flash(last.device):
        return None
    return functional.pad(last + 1, (1, 0)).int()


def _device_without_flash(device: torch.device) -> str:
    """Return why a CUDA device has no flash kernel for packed texts; empty if it has."""
    if torch.version.hip:
        return "ROCm has no such kernel"
    if torch.cuda.get_device_capability(device) < _FLASH_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than an A100"
    if not hasattr(torch.ops.aten, "_flash_attention_forward"):
        return f"torch {torch.__version__} has no such operator"
    return "" if torch.backends.cuda.flash_sdp_enabled() else "it is switched off in torch"


def why_not_flash(device: torch.device, precision: str, config: PretrainedConfig | None) -> str:
    """Return why packed texts are padded for the attention on a CUDA GPU; empty if they are not.

    Args:
        device: That trains.
        precision: Of the trainer.
        config: Of the backbone; None if it is not known yet.
    """
    if precision == "32-true":
        return "the flash kernel takes half precision only"
    if reason := _device_without_flash(device):
        return reason
    if config is None:
        return ""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return "" if _flash_width(width) else f"the flash kernel takes no heads of width {width}"


def _flash_takes(states: Tensor) -> bool:
    """Return whether the flash kernel has this dtype and this width of a head."""
    return states.dtype in _FLASH_DTYPES and _flash_width(states.shape[-1])


def _flash_width(width: int) -> bool:
    return width % 8 == 0 and width <= 256


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    longest: int,
    *,
    causal: bool,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Return the attention within each text of a packed row, (tokens, heads, width of a head), without any padding.

    Dao, "FlashAttention-2", 2023. The operator is private in torch, and the only one with a derivative that takes
    lengths together with dropout: `torch.nn.attention.varlen` fixes dropout at 0 (read in 2.11 and 2.13).

    Args:
        query: (tokens, heads, width of a head), in half precision.
        key: The same with the key-value heads.
        value: As `key`.
        ends: int32 (texts + 1,): 0 and where each text ends.
        longest: Tokens of the longest text, or more.
        causal: Whether a token sees only those before it.
        dropout: Fraction of the weights that is dropped.
        scaling: Factor of the scores; None for the square root of 1 / width.
    """
    return torch.ops.aten._flash_attention_forward(
        query, key, value, ends, ends, longest, longest, dropout, causal, False, scale=scaling
    )[0]


def packed_lengths(last_tokens: Tensor) -> Tensor:
    """Return the tokens of each text of a packed row, int64 (texts,), from where each of them ends."""
    return last_tokens.diff(prepend=last_tokens.new_full((1,), -1))


def token_places(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the row of the text of each of a batch's flattened tokens, and its place in that; int64 (tokens,) both."""
    ids = batch["input_ids"]
    if "last_tokens" not in batch:
        rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
        return rows.flatten(), torch.arange(ids.shape[1], device=ids.device).expand_as(ids).flatten()
    lengths = packed_lengths(batch["last_tokens"])
    return torch.arange(len(lengths), device=ids.device).repeat_interleave(lengths), batch["position_ids"].flatten()


def last_tokens(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return the state of each text's last real token, float32 (texts, width), of a padded or packed batch.

    Args:
        states: (rows, tokens, width).
        batch: Batch of the data module, with `last_tokens` if packed, else with `attention_mask`, padded on the right.
    """
    if "last_tokens" in batch:
        return states.squeeze(0).index_select(0, batch["last_tokens"]).float()
    last = batch["attention_mask"].sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), last].float()
