"""The options of each model by its class path: read, and refused, without loading torch."""

from __future__ import annotations

from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.decoder import LlamaQLoraOptions, ZeroShotOptions
from genre_lightning.config.encoder import EncoderOptions

OPTIONS: dict[str, type[ClassifierOptions]] = {
    "genre_lightning.models.distilbert.DistilBertClassifier": EncoderOptions,
    "genre_lightning.models.llama_qlora.LlamaQLoraClassifier": LlamaQLoraOptions,
    "genre_lightning.models.zero_shot.ZeroShotLlama": ZeroShotOptions,
}
"""The options of each model by its class path; the first model is the default."""
