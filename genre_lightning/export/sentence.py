"""A run as a folder of sentence-transformers: encoder, pooling, and the head as a dense layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genre_lightning.export.source import Source
from genre_lightning.files import write_json

TRANSFORMER, POOLING, DENSE = "0_Transformer", "1_Pooling", "2_Dense"
_MODES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}


def write_sentence_folder(source: Source, backbone: Any, folder: Path) -> None:
    """Write the three modules; `SentenceTransformer(folder).encode(texts)` gives calibrated probabilities.

    The encoder lies in a folder of its own: at the root, transformers would take it for a classifier whose head is
    missing, and invent one.

    Args:
        source: Run whose head is written.
        backbone: The encoder or decoder without adapters.
        folder: Folder that holds the modules.
    """
    from safetensors.torch import save_file

    backbone.save_pretrained(folder / TRANSFORMER)
    source.tokenizer.save_pretrained(folder / TRANSFORMER)
    write_json(
        folder / TRANSFORMER / "sentence_bert_config.json",
        {"max_seq_length": source.max_tokens, "do_lower_case": False},
    )
    head = source.head
    write_json(
        folder / POOLING / "config.json",
        {
            "word_embedding_dimension": head.in_features,
            **{key: name == source.pooled_by for name, key in _MODES.items()},
        },
    )
    write_json(
        folder / DENSE / "config.json",
        {
            "in_features": head.in_features,
            "out_features": head.out_features,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Sigmoid",
        },
    )
    weights = {"linear.weight": head.weight.contiguous(), "linear.bias": head.bias}
    save_file(weights, folder / DENSE / "model.safetensors", metadata={"format": "pt"})
    kinds = {TRANSFORMER: "Transformer", POOLING: "Pooling", DENSE: "Dense"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    # a list, which is not a JSON object
    write_json(folder / "modules.json", modules)
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": None})
