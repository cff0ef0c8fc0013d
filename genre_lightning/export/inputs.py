"""Inputs of the head in an export: which form carries them, the calibrated head, and how films are encoded."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genre_lightning.config.features import Feature
from genre_lightning.data.cells import PLACEHOLDER_GENRES
from genre_lightning.data.features.encode import FIRST, LARGEST, UNKNOWN
from genre_lightning.data.features.read import MAX_TAGS, SEPARATORS
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.export.source import calibrated_head
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.runs import RunDirectory
from genre_lightning.types import INPUT, FittedInput

_LIST = (
    "A text in brackets is a list in JSON or Python; of an object in it, such as {'id': 18, 'name': 'Drama'}, its "
    "name counts. Names are without outer space, in Unicode's form NFC, each once, those that are missing left out, "
    "and are cut at 200 characters; upper and lower case differ."
)
_STANDARDISED = (
    "If log is true, x becomes sign(x) * ln(1 + |x|), with the natural logarithm. The input is "
    "clip((x - mean) / std, -largest, largest), then a 1; of a missing x it is 0 throughout."
)
_RULES = {
    "tags": f"{_LIST} Any other text is split at the first of separators that stands in it, or else is one name. The "
    f"input has the number of each of the first {MAX_TAGS} names by values, or unknown; 0 fills up the rows of films "
    "with fewer names.",
    "category": f"One name. {_LIST} Of a list the first name counts; any other text is a name. The input has its "
    "number by values, or unknown; none if it is missing.",
    "number": "x is the number, in a text without the commas between thousands; NaN, infinities and numbers beyond "
    f"3.4e38 are missing, and so is 0 if zero_is_missing is true. {_STANDARDISED}",
    "date": "x is year + (month - 1) / 12 + (day - 1) / 365 of a text such as 1995-10-30, 1995-10 or 1995, of which "
    "the time of day is left out and a month or day that is not given is 1; a number from 1000 to 3000 is x itself. "
    f"{_STANDARDISED}",
    "vector": "x are the numbers of a list, or of a text with spaces or commas between them, as many as mean has. "
    f"{_STANDARDISED}",
}
"""How a cell of each kind becomes an input: what `data.features` does, for other programs."""
_MISSING = (
    "A cell is missing if it is null, cannot be read, or is empty or one of these names without case and without the "
    "signs around it. So is a name in a list. An input that is 0 throughout is missing."
)
_TEXT = (
    "The template's columns in braces are filled, with a space for each run of white space; punctuation that an empty "
    "column leaves behind is dropped. Each of lines whose cell is not empty follows behind a line break: begins, then "
    "the cell in one line, a list of objects as their names with ', ' between them. A line is cut at its max_tokens, "
    "and what stands before the lines at those that are left of the text's, special tokens counted."
)

_NAMES = 3
"""Tags of a film that is made up: more than one, as an axis of 1 would be fixed in the exported graph."""


def check_carried(run: RunDirectory, features: Sequence[Feature], options: argparse.Namespace) -> None:
    """Refuse a form that does not carry the features of a run.

    Args:
        run: Its directory.
        features: That the run reads.
        options: Of the command.

    Raises:
        ConfigError: With the fix.
    """
    if features and (not options.onnx or options.form != "auto"):
        names = ", ".join(feature.column for feature in features)
        raise ConfigError(
            f"{run.path} reads {names} by data.features, which an ONNX model alone has as inputs: export it with "
            "--onnx and without --form, or use it by Tagger or 'genre-lightning predict'"
        )


def calibrated_fusion(head: FusionHead, decision: Decision) -> FusionHead:
    """Return a head with calibrated logits; see `calibrated_head`.

    Args:
        head: The trained head.
        decision: Of the same genres.
    """
    folded = copy.deepcopy(head).float().cpu().eval()
    folded.text = calibrated_head(head.text, decision)
    scale = torch.from_numpy(decision.affine[0])
    with torch.no_grad():
        folded.inputs.weight.copy_(scale[:, None] * head.inputs.weight.detach().double().cpu())
    return folded.requires_grad_(requires_grad=False)


def made_up_inputs(inputs: Sequence[FittedInput], films: int, seed: int) -> dict[str, Tensor]:
    """Return inputs of films to compare models on, the last film's missing if there are several.

    Args:
        inputs: Of the head.
        films: How many.
        seed: Of the values.
    """
    numbers = np.random.default_rng(seed)
    made: dict[str, Tensor] = {}
    for one in inputs:
        if one.is_named:
            width = 1 if one.kind == "category" else _NAMES
            values = numbers.integers(0, len(one.values) + FIRST, (films, width))
        else:
            values = numbers.normal(0, 1, (films, len(one.mean) + 1)).astype(np.float32)
            values[:, -1] = 1
        if films > 1:
            values[-1] = 0
        made[f"{INPUT}{one.name}"] = torch.from_numpy(values)
    return made


def described_inputs(
    inputs: Sequence[FittedInput], features: Sequence[Feature], template: str, max_tokens: int
) -> dict[str, Any]:
    """Return what a program needs to encode films for the model, in JSON.

    Args:
        inputs: Of the head.
        features: That the run reads, those of the head and those in the text.
        template: What the text is made of.
        max_tokens: Of a text.
    """
    declared = {feature.column: feature for feature in features}
    kinds = dict.fromkeys(one.kind for one in inputs)
    return {
        "missing": {"rule": _MISSING, "names": sorted(PLACEHOLDER_GENRES)},
        "rules": {kind: _RULES[kind] for kind in kinds},
        "inputs": [_described(one, declared[one.name]) for one in inputs],
        "text": {"template": template, "max_tokens": max_tokens, "rule": _TEXT},
        "lines": [
            {"column": one.column, "begins": one.line, "max_tokens": one.max_tokens} for one in features if one.in_text
        ],
    }


def _described(one: FittedInput, feature: Feature) -> dict[str, Any]:
    common = {"name": f"{INPUT}{one.name}", "column": one.name, "kind": one.kind}
    if one.is_named:
        numbers = {name: number for number, name in enumerate(one.values, start=FIRST)}
        is_tags = one.kind == "tags"
        separators = {"separators": [feature.separator] if feature.separator else list(SEPARATORS)} if is_tags else {}
        shape = ["films", "names" if is_tags else 1]
        return {**common, "dtype": "int64", "shape": shape, "none": 0, "unknown": UNKNOWN, **separators,
                "values": numbers}  # fmt: skip
    zero = {"zero_is_missing": feature.zero_is_missing} if one.kind == "number" else {}
    return {
        **common, "dtype": "float32", "shape": ["films", len(one.mean) + 1], **zero, "log": one.log,
        "mean": list(one.mean), "std": list(one.std), "largest": LARGEST,
    }  # fmt: skip
