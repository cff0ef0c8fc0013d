"""Heads with further inputs in an export: the calibration is folded into text and inputs alike."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from genre_lightning.config.features import Feature
from genre_lightning.export.inputs import calibrated_fusion, described_inputs, made_up_inputs
from genre_lightning.export.source import PlainTagger
from genre_lightning.models.layers.fusion import FusionHead, inputs_of
from genre_lightning.types import FittedInput

INPUTS = (
    FittedInput("keywords", "tags", values=("heist", "war")),
    FittedInput("language", "category", values=("fr",)),
    FittedInput("runtime", "number", mean=(90.0,), std=(20.0,)),
)


@pytest.mark.parametrize("fusion", ["gate", "concat"])
def test_the_calibration_is_folded_into_text_and_inputs(fusion):
    torch.manual_seed(0)
    head = FusionHead(
        nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3)), INPUTS, fusion=fusion, width=4, drop_input=0.5
    ).eval()
    scale, shift = np.array([0.5, 1.0, 2.0]), np.array([0.1, -1.0, 3.0])
    folded = calibrated_fusion(head, SimpleNamespace(affine=(scale, shift)))
    pooled, made = torch.randn(5, 8), made_up_inputs(INPUTS, 5, seed=1)
    assert not any(values[-1].any() for values in made.values())
    with torch.no_grad():
        expected = head(pooled, made).double() * torch.from_numpy(scale) + torch.from_numpy(shift)
        torch.testing.assert_close(folded(pooled, made).double(), expected, atol=1e-5, rtol=1e-5)

        class Backbone(nn.Module):
            def forward(self, input_ids, attention_mask):
                return SimpleNamespace(last_hidden_state=pooled[:, None].expand(5, 2, 8))

        ids = torch.ones(5, 2, dtype=torch.int64)
        got = PlainTagger(Backbone(), "mean", folded)(ids, ids, *inputs_of(made).values())
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


FEATURES = (
    Feature("keywords", "tags"),
    Feature("language", "category"),
    Feature("runtime", "number", zero_is_missing=True),
    Feature("tagline", "text", marker="Tagline", max_tokens=8),
)


def test_inputs_are_described_for_other_programs():
    described = described_inputs(INPUTS, FEATURES, "{overview}", 48)
    keywords, language, runtime = described["inputs"]
    assert (keywords["values"], keywords["none"], keywords["unknown"]) == ({"heist": 2, "war": 3}, 0, 1)
    assert (keywords["shape"], keywords["separators"]) == (["films", "names"], ["|", ";", ","])
    assert (language["name"], language["dtype"], language["shape"]) == ("input:language", "int64", ["films", 1])
    assert (runtime["shape"], runtime["mean"], runtime["std"]) == (["films", 2], [90.0], [20.0])
    assert runtime["zero_is_missing"]
    assert described["lines"] == [{"column": "tagline", "begins": "Tagline: ", "max_tokens": 8}]
    assert described["rules"].keys() == {"tags", "category", "number"}
    assert described["text"]["template"] == "{overview}"


def test_a_separator_of_the_run_is_described():
    [keywords] = described_inputs(INPUTS[:1], [Feature("keywords", "tags", separator="/")], "{overview}", 48)["inputs"]
    assert keywords["separators"] == ["/"]
