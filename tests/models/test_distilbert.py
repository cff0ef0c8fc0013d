"""DistilBertClassifier over real architectures made small, in full and by LoRA."""

import numpy as np
import pytest
import torch
from specs import data_spec
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from genre_lightning.data.collate import Padding, pad_rows
from genre_lightning.errors import ConfigError
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.lora import LoraOptions

GENRES = ("Action", "Drama")
SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
         "max_position_embeddings": 40}  # fmt: skip

ENCODERS = {
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=40)
    ),
    "bert": lambda: BertModel(BertConfig(**SMALL)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL)),
    "deberta": lambda: DebertaV2Model(DebertaV2Config(**SMALL)),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(**SMALL, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    ),
}


@pytest.fixture(params=ENCODERS)
def directory(request, tmp_path):
    torch.manual_seed(1)
    ENCODERS[request.param]().save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def labelling(max_tokens=24):
    return data_spec(GENRES, vocab_size=60, max_tokens=max_tokens)


def built(directory, **options):
    model = DistilBertClassifier(backbone=str(directory), **options)
    model.check(max_tokens=24)
    model.bind(labelling())
    model.configure_model()
    return model


def batch_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    tokens, mask = pad_rows([rng.integers(3, 60, n).astype(np.int32) for n in lengths], Padding(token=0))
    return {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_texts_logits_do_not_depend_on_its_batch(directory, pooling):
    model = built(directory, pooling=pooling).eval()
    batch = batch_of([5, 11, 3])
    together = model(batch)
    for row, length in enumerate([5, 11, 3]):
        alone = model({name: value[row : row + 1, :length] for name, value in batch.items()})
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_full_fine_tuning_trains_every_parameter(directory):
    model = built(directory)
    model(batch_of([5, 11])).sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert not without
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_lora_trains_adapters_and_head_alone_and_saves_nothing_else(directory):
    model = built(directory, lora=LoraOptions(rank=4))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.startswith("head.")} == {"head.1.weight", "head.1.bias"}
    assert all("lora_" in name for name in trained if name.startswith("backbone."))
    assert any("lora_A" in name for name in trained)
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == trained


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2, dropout=0.1)])
def test_gradients_are_the_same_when_activations_are_computed_again(directory, lora):
    gradients = []
    for checkpointing in (False, True):
        model = built(directory, lora=lora, dropout=0.1, activation_checkpointing=checkpointing)
        calls = []
        model.backbone.get_submodule(first_linear(model)).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(7)  # the same dropout is drawn again
        model(batch_of([5, 9, 24])).square().sum().backward()
        assert len(calls) == 1 + checkpointing
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, msg=name)


def first_linear(model):
    layers = next(name for name, module in model.backbone.named_modules() if isinstance(module, torch.nn.ModuleList))
    return next(
        name for name, module in model.backbone.named_modules()
        if name.startswith(layers) and isinstance(module, torch.nn.Linear)
    )  # fmt: skip


def test_dropout_is_set_everywhere(directory):
    model = built(directory, dropout=0.0).train()
    batch = batch_of([5, 11])
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)


def test_more_tokens_than_positions_are_refused(directory):
    with pytest.raises(ConfigError, match=r"data\.max_tokens is 500"):
        DistilBertClassifier(backbone=str(directory)).check(max_tokens=500)


def test_lora_targets_that_fit_nothing(directory):
    with pytest.raises(ConfigError, match="fits no layer"):
        built(directory, lora=LoraOptions(targets=["nosuch"]))


@pytest.mark.real_model
def test_a_real_encoder(encoder_dir):
    model = DistilBertClassifier(backbone=str(encoder_dir))
    model.check(max_tokens=256)
    model.bind(labelling(256))
    model.configure_model()
    assert sum(p.numel() for p in model.backbone.parameters()) == pytest.approx(22.6e6, rel=0.02)
    assert model.learning_rates() == (2e-4, pytest.approx(2e-3))
