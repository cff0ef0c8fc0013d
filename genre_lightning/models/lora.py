"""LoRA on a backbone's attention through peft, which is imported only where adapters are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from genre_lightning.errors import ConfigError, one_line

# attention projections, by the names that the families of encoders and decoders give them
_ATTENTION = {
    "distilbert": ["q_lin", "v_lin"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "xlm-roberta": ["query", "value"],
    "electra": ["query", "value"],
    "deberta-v2": ["query_proj", "value_proj"],
    "deberta": ["in_proj"],
    "modernbert": ["Wqkv"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mistral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj"],
}


@dataclass
class LoraOptions:
    """Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021).

    Attributes:
        rank: of the update's matrices.
        alpha: the update is scaled by alpha / rank (alpha / sqrt(rank) with rslora).
        dropout: on the input of the adapters.
        targets: names of the linear layers that get one; null takes the attention projections.
        rslora: rank-stabilised scaling.
        dora: weight-decomposed adapters.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: list[str] | None = None
    rslora: bool = False
    dora: bool = False


def add_lora(backbone: nn.Module, options: LoraOptions, model_type: str) -> nn.Module:
    """Freezes the backbone and puts trainable float32 adapters on it.

    Raises:
        ConfigError: no layer has one of the target names.
    """
    from peft import LoraConfig, get_peft_model

    targets = options.targets or _ATTENTION.get(model_type)
    if not targets:
        raise ConfigError(f"no attention layers are known for {model_type!r}: name them with model.lora.targets")
    # no task_type: with one, peft wraps the head too and decides for itself what trains
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        use_rslora=options.rslora,
        use_dora=options.dora,
    )
    try:
        return get_peft_model(backbone, config)
    except ValueError as error:
        raise ConfigError(f"model.lora.targets {targets} fits no layer of {model_type} ({one_line(error)[:120]})") from error
