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
from genre_lightning.data.features.encode import FIRST, LARGEST, UNKNOWN
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.export.source import calibrated_head
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.runs import RunDirectory
from genre_lightning.types import INPUT, FittedInput

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


def described_inputs(inputs: Sequence[FittedInput], lines: Sequence[Feature]) -> dict[str, Any]:
    """Return what a program needs to encode films for the model, in JSON.

    Args:
        inputs: Of the head.
        lines: Features that stand in the text.
    """
    return {
        "inputs": [_described(one) for one in inputs],
        "lines": [{"column": one.column, "begins": one.line, "max_tokens": one.max_tokens} for one in lines],
    }


def _described(one: FittedInput) -> dict[str, Any]:
    common = {"name": f"{INPUT}{one.name}", "column": one.name, "kind": one.kind}
    if one.is_named:
        numbers = {name: number for number, name in enumerate(one.values, start=FIRST)}
        return {**common, "dtype": "int64", "shape": ["films", "names"], "none": 0, "unknown": UNKNOWN,
                "values": numbers}  # fmt: skip
    return {
        **common, "dtype": "float32", "shape": ["films", len(one.mean) + 1], "log": one.log, "mean": list(one.mean),
        "std": list(one.std), "largest": LARGEST,
    }  # fmt: skip
