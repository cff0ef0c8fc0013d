"""Fine-tunes language models to tag films with genres."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genre_lightning.config.classifier import ClassifierOptions
    from genre_lightning.data.datamodule import MovieDataModule
    from genre_lightning.distributed.sharded import ShardedPrecision, ShardedStrategy
    from genre_lightning.inference.tagger import Tagger
    from genre_lightning.models.base import GenreClassifier
    from genre_lightning.models.distilbert import DistilBertClassifier
    from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
    from genre_lightning.models.zero_shot import ZeroShotLlama
    from genre_lightning.training.api import TrainedRun, train
    from genre_lightning.types import Batch, DataSpec

__version__ = "0.2.0"

_PUBLIC = {
    "Batch": "types",
    "ClassifierOptions": "config.classifier",
    "DataSpec": "types",
    "DistilBertClassifier": "models.distilbert",
    "GenreClassifier": "models.base",
    "LlamaQLoraClassifier": "models.llama_qlora",
    "MovieDataModule": "data.datamodule",
    "ShardedPrecision": "distributed.sharded",
    "ShardedStrategy": "distributed.sharded",
    "Tagger": "inference.tagger",
    "TrainedRun": "training.api",
    "ZeroShotLlama": "models.zero_shot",
    "train": "training.api",
}
"""By public name, the module that defines it."""

__all__ = [
    "Batch",
    "ClassifierOptions",
    "DataSpec",
    "DistilBertClassifier",
    "GenreClassifier",
    "LlamaQLoraClassifier",
    "MovieDataModule",
    "ShardedPrecision",
    "ShardedStrategy",
    "Tagger",
    "TrainedRun",
    "ZeroShotLlama",
    "__version__",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: the package itself, and plain --help, need none of it."""
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
