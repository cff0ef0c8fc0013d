"""A LoRA run as a peft adapter, with its head beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genre_lightning.export.source import Source
from genre_lightning.models.lora import fold_start

HEAD = "head.safetensors"


def write_adapter(source: Source, folder: Path) -> None:
    """Write the adapter in peft's form, the head with the calibration folded in, and the tokenizer.

    A base of random weights is written too, as nobody else can make it.
    """
    from safetensors.torch import save_file

    backbone: Any = source.model.backbone
    head = source.head
    save_file({"weight": head.weight, "bias": head.bias}, folder / HEAD, metadata={"format": "pt"})
    source.tokenizer.save_pretrained(folder)
    name = _write_random_base(source, folder / "base") if source.base.random else source.base.name
    fold_start(backbone)
    backbone.peft_config["default"].base_model_name_or_path = name
    backbone.peft_config["default"].revision = source.base.revision
    backbone.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in


def _write_random_base(source: Source, folder: Path) -> str:
    """Write the random base of a model, not quantised; returns the name by which the adapter calls it."""
    from transformers import AutoModel

    from genre_lightning.models.decoder import FrozenDecoder
    from genre_lightning.models.quantization import WeightFormat, random_decoder

    model = source.model
    assert isinstance(model, FrozenDecoder)
    assert model.backbone_config is not None
    plain = WeightFormat("none", model.weight_format().compute_dtype)
    base: Any = random_decoder(AutoModel, model.backbone_config, plain, model.seed, torch.device("cpu"))
    plain_attention(base.config)
    base.to(plain.compute_dtype).save_pretrained(folder)
    return folder.name


def plain_attention(config: Any) -> None:
    """Name transformers' own attention in a configuration: other programs know no other."""
    config._attn_implementation = "sdpa"
    config.use_cache = True
