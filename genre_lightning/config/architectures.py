"""The shapes of backbones that are made from random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from genre_lightning.bounds import at_least

# a hundred times what the largest models have
LAYERS = at_least(1, 10**4)
WIDTH = at_least(1, 10**6)
HEADS = at_least(1, 10**4)


@dataclass
class Architecture:
    """The shape of a small encoder that is trained from random weights; its vocabulary is the tokenizer's.

    Attributes:
        layers: Transformer blocks.
        width: Size of a token's state; a multiple of `heads`.
        heads: Attention heads.
        inner_width: Size of the feed-forward layers.
    """

    layers: Annotated[int, LAYERS] = 2
    width: Annotated[int, WIDTH] = 128
    heads: Annotated[int, HEADS] = 4
    inner_width: Annotated[int, WIDTH] = 512


@dataclass
class LlamaArchitecture:
    """The shape of a Llama that is made from random weights; its vocabulary is the tokenizer's.

    Llama 2 7B is {layers: 32, width: 4096, heads: 32, inner_width: 11008}.

    Attributes:
        layers: Transformer blocks.
        width: Size of a token's state; a multiple of `heads`.
        heads: Attention heads.
        kv_heads: Heads of keys and values; null takes `heads`.
        inner_width: Size of the feed-forward layers.
        vocab_size: Tokens; null takes the tokenizer's.
    """

    layers: Annotated[int, LAYERS] = 2
    width: Annotated[int, WIDTH] = 64
    heads: Annotated[int, HEADS] = 4
    kv_heads: Annotated[int | None, HEADS] = None
    inner_width: Annotated[int, WIDTH] = 172
    vocab_size: Annotated[int | None, at_least(1, 10**7)] = None
