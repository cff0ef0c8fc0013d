"""A run as one of transformers' own sequence classifiers, if its head can compute what the run's head computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from genre_lightning.errors import CheckpointError
from genre_lightning.export.source import PooledBy, Source

SMALL = 2.0**-14
"""tanh(x) = x to a float32's precision for logits times this; a power of two, so that scaling by it is exact."""

TOLERANCE = 1e-5
"""Largest difference of a probability that an export may have."""

_ROUNDING = 1e-6
"""Of a float32 logit; a calibration that stretches logits stretches it with them."""


@dataclass(frozen=True)
class _Head:
    """How a family's classifier goes from the first token's state to logits: linear, activation, linear.

    Attributes:
        inner: Path of the first linear layer, of the backbone's width.
        outer: Path of the second one, with one output for each genre.
        activation: Activation between the layers; None takes the configuration's pooler_hidden_act.
    """

    inner: str
    outer: str
    activation: str | None


_ROBERTA = _Head("classifier.dense", "classifier.out_proj", "tanh")
_HEADS = {
    "distilbert": _Head("pre_classifier", "classifier", "relu"),
    "bert": _Head("bert.pooler.dense", "classifier", "tanh"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _Head("classifier.dense", "classifier.out_proj", "gelu"),
    "deberta-v2": _Head("pooler.dense", "classifier", None),
}
_ODD_PART_IS_LINEAR = ("relu", "gelu", "silu")
"""Activations with f(x) - f(-x) = x for every x."""


def why_not_plain(config: PretrainedConfig, pooled_by: PooledBy, genres: int) -> str | None:
    """Return why no classifier of transformers computes a model's logits; None if one does.

    Args:
        config: Configuration of the backbone.
        pooled_by: Which state of a text the head reads.
        genres: Number of logits.
    """
    if pooled_by == "last":
        return f"the head of transformers' {config.model_type} classifier has no bias, which calibrated logits need"
    if pooled_by == "mean":
        return f"transformers' {config.model_type} classifier has no plain mean pooling"
    head = _HEADS.get(config.model_type)
    if head is None:
        return f"the head of transformers' {config.model_type} classifier is not known to compute a linear one"
    activation = head.activation or config.pooler_hidden_act
    if activation not in ("tanh", *_ODD_PART_IS_LINEAR):
        return f"{activation} in the head of transformers' {config.model_type} classifier bends what is linear here"
    needed = genres if activation == "tanh" else 2 * genres
    if needed > config.hidden_size:
        return f"{genres} genres do not fit through the {config.hidden_size} units of transformers' classifier"
    return None


def plain_classifier(source: Source, backbone: Any) -> nn.Module:
    """Return the classifier of transformers that computes the run's calibrated logits.

    Its head puts a square linear layer and an activation before the last layer, where ours has none. The logits go
    through the first of them: as z and -z if f(z) - f(-z) = z, or made small, so that tanh is the identity.

    Args:
        source: Run whose head is written.
        backbone: The encoder without adapters.

    Raises:
        CheckpointError: The classifier has other parts than the backbone.
    """
    config = type(backbone.config).from_dict(backbone.config.to_dict())
    genres = source.decision.genres
    config.id2label = dict(enumerate(genres))
    config.label2id = {genre: index for index, genre in enumerate(genres)}
    config.problem_type = "multi_label_classification"
    classifier: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    odd = classifier.base_model.load_state_dict(backbone.state_dict(), strict=False)
    if odd.unexpected_keys or any(not name.startswith("pooler.") for name in odd.missing_keys):
        name = [*odd.unexpected_keys, *odd.missing_keys][0]
        raise CheckpointError(
            f"transformers' {config.model_type} classifier does not hold the encoder as it is ({name} differs): "
            "choose --form sentence-transformers"
        )
    head = _HEADS[config.model_type]
    inner, outer = classifier.get_submodule(head.inner), classifier.get_submodule(head.outer)
    _route(source.head, inner, outer, head.activation or config.pooler_hidden_act)
    return classifier.eval()


@torch.no_grad()
def _route(wanted: nn.Linear, inner: nn.Linear, outer: nn.Linear, activation: str) -> None:
    count = wanted.out_features
    for layer in (inner, outer):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    if activation == "tanh":
        inner.weight[:count], inner.bias[:count] = SMALL * wanted.weight, SMALL * wanted.bias
        outer.weight[:, :count] = torch.eye(count) / SMALL
        return
    inner.weight[:count], inner.bias[:count] = wanted.weight, wanted.bias
    inner.weight[count : 2 * count], inner.bias[count : 2 * count] = -wanted.weight, -wanted.bias
    outer.weight[:, :count] = torch.eye(count)
    outer.weight[:, count : 2 * count] = -torch.eye(count)


def write_classifier(source: Source, backbone: Any, folder: Path) -> None:
    """Write the classifier and its tokenizer in transformers' form."""
    plain_classifier(source, backbone).save_pretrained(folder)  # type: ignore[operator]  # a PreTrainedModel
    source.tokenizer.save_pretrained(folder)


def difference(source: Source, folder: Path, texts: list[str], expected: Any) -> float:
    """Open a written classifier as anybody would; the largest difference of its probabilities from those expected.

    Args:
        source: Run that the classifier comes from.
        folder: Folder that `write_classifier` wrote.
        texts: Texts to compare on.
        expected: Probabilities (texts, genres).

    Raises:
        CheckpointError: It is above `TOLERANCE`, and more than rounding.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    classifier: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = classifier(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits
    found = float((logits.double().sigmoid() - torch.from_numpy(expected).double()).abs().max())
    stretch = 1 / source.decision.temperature if source.decision.platt is None else source.decision.platt[0].max()
    allowed = max(TOLERANCE, _ROUNDING * stretch)
    if not found <= allowed:
        raise CheckpointError(
            f"the exported classifier's probabilities differ by {found:.1e} from the run's, more than {allowed:.0e}: "
            f"choose --form sentence-transformers for {source.run.path}"
        )
    return found
