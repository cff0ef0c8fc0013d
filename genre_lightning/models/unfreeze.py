"""Whole layers that train beside adapters: the top blocks of a backbone, and all its norms."""

from __future__ import annotations

import re

from torch import nn

from genre_lightning.distributed.sharded import transformer_blocks
from genre_lightning.errors import ConfigError


def top_blocks(backbone: nn.Module, count: int) -> list[nn.Module]:
    """Return the blocks nearest to the output.

    Raises:
        ConfigError: They are all of its blocks, so that adapters have no place.
    """
    blocks = transformer_blocks(backbone)
    if count >= len(blocks):
        raise ConfigError(
            f"model.unfreeze is {count}, and the backbone has {len(blocks)} blocks, of which the lower ones have "
            "adapters: unfreeze fewer, or train all of an encoder by leaving out model.lora"
        )
    return blocks[len(blocks) - count :]


def pattern_of(backbone: nn.Module, blocks: list[nn.Module]) -> str | None:
    """Return a pattern of the names of all that is in some blocks, as peft excludes it; None for no blocks."""
    names = [name for name, module in backbone.named_modules() if any(module is block for block in blocks)]
    return rf"({'|'.join(map(re.escape, names))})\..*" if names else None


def unfreeze(backbone: nn.Module, count: int) -> None:
    """Have the top blocks train in full, and the norms of all."""
    for block in top_blocks(backbone, count):
        block.requires_grad_(True)
    for norm in norms_of(backbone):
        norm.requires_grad_(True)


def norms_of(part: nn.Module) -> list[nn.Module]:
    """Return the normalisation layers of a backbone or of one of its blocks."""
    return [module for module in part.modules() if type(module).__name__.endswith("Norm")]
