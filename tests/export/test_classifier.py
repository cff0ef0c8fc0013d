"""Classifiers of plain transformers whose head says what ours says."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn
from transformers import (
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
)

from genre_lightning.evaluation.decisions import Decision
from genre_lightning.export.classifier import plain_classifier, why_not_plain
from genre_lightning.export.source import calibrated_head
from genre_lightning.models.backbones import empty_backbone

GENRES = tuple("abcdef")
WIDTH = 32
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
CONFIGS = {
    "distilbert": DistilBertConfig(vocab_size=90, dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=48),
    "bert": BertConfig(vocab_size=90, **SIZES),
    "roberta": RobertaConfig(vocab_size=90, pad_token_id=1, max_position_embeddings=64, **SIZES),
    "electra": ElectraConfig(vocab_size=90, embedding_size=16, **SIZES),
    "deberta-v2": DebertaV2Config(vocab_size=90, pooler_hidden_size=WIDTH, pooler_hidden_act="gelu", **SIZES),
}


def decision(platt=None, temperature=1.0):
    return Decision(GENRES, temperature, 0.5, np.full(len(GENRES), 0.5), platt)


def platt():
    numbers = np.random.default_rng(3)
    return numbers.uniform(0.3, 2, len(GENRES)), numbers.normal(0, 1.5, len(GENRES))


def head():
    torch.manual_seed(2)
    layer = nn.Linear(WIDTH, len(GENRES))
    nn.init.normal_(layer.weight, std=1.0)  # logits of the order of 5: the activations are tried where they bend
    nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("made", [decision(platt()), decision(temperature=1.7)])
def test_a_plain_classifier_gives_the_calibrated_probabilities(family, made):
    config = CONFIGS[family]
    assert why_not_plain(config, "cls", len(GENRES)) is None
    torch.manual_seed(1)
    backbone, linear = empty_backbone(config).eval(), head()
    source = SimpleNamespace(head=calibrated_head(linear, made), decision=made)
    classifier = plain_classifier(source, backbone)
    ids = torch.randint(5, 90, (4, 20))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    with torch.no_grad():
        states = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        raw = linear.double()(states[:, 0].double()).numpy()
        got = classifier(input_ids=ids, attention_mask=mask).logits.double().sigmoid().numpy()
    assert raw.std() > 2
    # the written formula, apart from the code under test
    calibrated = raw / made.temperature if made.platt is None else raw * made.platt[0] + made.platt[1]
    assert np.abs(got - expit(calibrated)).max() < 2e-6
    assert classifier.config.problem_type == "multi_label_classification"
    assert classifier.config.id2label == dict(enumerate(GENRES))
    assert classifier.config.label2id == {genre: index for index, genre in enumerate(GENRES)}
    assert not hasattr(backbone.config, "problem_type") or backbone.config.problem_type is None


@pytest.mark.parametrize(
    ("config", "pooled_by", "genres", "word"),
    [
        (CONFIGS["bert"], "mean", 6, "mean pooling"),
        (CONFIGS["bert"], "last", 6, "no bias"),
        (ModernBertConfig(), "cls", 6, "modernbert"),
        (CONFIGS["distilbert"], "cls", WIDTH // 2 + 1, "do not fit"),
        (DebertaV2Config(pooler_hidden_act="sigmoid"), "cls", 6, "sigmoid"),
    ],
)
def test_it_is_known_where_no_plain_classifier_can(config, pooled_by, genres, word):
    assert word in why_not_plain(config, pooled_by, genres)


def test_as_many_genres_as_fit_are_exact():
    config = CONFIGS["bert"]
    assert why_not_plain(config, "cls", WIDTH) is None
    assert why_not_plain(config, "cls", WIDTH + 1) is not None
