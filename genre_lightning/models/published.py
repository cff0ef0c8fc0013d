"""Shapes of published models, for looking at one whose files are not at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# layers, width, heads, key-value heads, inner width: the config.json of each on the hub (Touvron et al., "Llama 2: Open
# Foundation and Fine-Tuned Chat Models", 2023)
_LLAMA_2 = {
    "7b": (32, 4096, 32, 32, 11008),
    "13b": (40, 5120, 40, 40, 13824),
    "70b": (80, 8192, 64, 8, 28672),
}


def published_config(name: str) -> PretrainedConfig | None:
    """Return the configuration of a model of the hub that is known here; None for others.

    Args:
        name: Name on the hub, such as "meta-llama/Llama-2-7b-hf" or "distilbert-base-uncased".
    """
    from transformers import BertConfig, DistilBertConfig, LlamaConfig

    plain = name.lower().rpartition("/")[2]
    if plain == "distilbert-base-uncased":
        return DistilBertConfig()  # its own defaults
    if plain == "bert-base-uncased":
        return BertConfig()
    if not name.startswith("meta-llama/"):
        return None
    for size, (layers, width, heads, kv_heads, inner_width) in _LLAMA_2.items():
        if plain in (f"llama-2-{size}-hf", f"llama-2-{size}-chat-hf"):
            return LlamaConfig(
                vocab_size=32_000,
                hidden_size=width,
                intermediate_size=inner_width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=kv_heads,
                max_position_embeddings=4096,
                rms_norm_eps=1e-5,
            )
    return None
