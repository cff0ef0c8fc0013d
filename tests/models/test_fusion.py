"""The fused head: gate and concatenation, learnt missing states, inputs dropped in training, and what refuses them."""

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from specs import data_spec
from torch import nn

from genre_lightning import DistilBertClassifier, MovieDataModule
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.models.checkpoint import check_same_inputs
from genre_lightning.models.layers.fusion import FusionHead, InputEncoder, blank_inputs
from genre_lightning.types import FittedInput

TAGS = FittedInput("tags", "tags", values=("a", "b"))
YEAR = FittedInput("year", "date", mean=(2000.0,), std=(10.0,))
VECTOR = FittedInput("vector", "vector", mean=(0.0,) * 3, std=(1.0,) * 3)
INPUTS = (TAGS, YEAR, VECTOR)


def head(fusion="gate", drop_input=0.0, inputs=INPUTS):
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 4))
    return FusionHead(linear, inputs, fusion=fusion, width=6, drop_input=drop_input)


def batch():
    return {
        "input:tags": torch.tensor([[2, 3], [0, 0], [1, 0]]),
        "input:year": torch.tensor([[1.0, 1.0], [0.0, 0.0], [-2.0, 1.0]]),
        "input:vector": torch.tensor([[1.0, 2.0, 3.0, 1.0], [0.0] * 4, [0.0] * 4]),
    }


@pytest.mark.parametrize("fusion", ["gate", "concat"])
def test_every_weight_has_a_gradient(fusion):
    model = head(fusion)
    model(torch.randn(3, 8), batch()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_missing_input_has_its_learnt_state():
    encoder = InputEncoder(TAGS, 6, drop=0.0)
    nn.init.normal_(encoder.missing)
    states = encoder(batch()["input:tags"])
    assert torch.equal(states[1], encoder.missing)
    assert not torch.equal(states[0], encoder.missing)
    # an unknown name is not a missing one
    assert not torch.equal(states[2], encoder.missing)


def test_padding_of_tags_changes_nothing():
    model = head().eval()
    wide = {**batch(), "input:tags": torch.tensor([[2, 3, 0, 0], [0] * 4, [1, 0, 0, 0]])}
    pooled = torch.randn(3, 8)
    assert torch.equal(model(pooled, batch()), model(pooled, wide))


def test_inputs_are_dropped_in_training_each_by_itself():
    model = head(drop_input=0.5)
    for encoder in model.encoders:
        nn.init.constant_(encoder.missing, 7.0)
    rows = {name: values[:1].expand(400, *values.shape[1:]) for name, values in batch().items()}
    torch.manual_seed(3)
    dropped = [
        (encoder(rows[f"input:{one.name}"]) == 7).all(dim=1)
        for one, encoder in zip(INPUTS, model.encoders, strict=True)
    ]
    torch.manual_seed(3)
    again = [
        (encoder(rows[f"input:{one.name}"]) == 7).all(dim=1)
        for one, encoder in zip(INPUTS, model.encoders, strict=True)
    ]
    assert all(map(torch.equal, dropped, again))
    for one in dropped:
        assert 150 < one.sum() < 250
    assert not torch.equal(dropped[0], dropped[1])
    model.eval()
    assert not any(
        (encoder(rows[f"input:{one.name}"]) == 7).any() for one, encoder in zip(INPUTS, model.encoders, strict=True)
    )


def test_all_inputs_of_a_film_are_dropped_together_as_often():
    model, films = head(drop_input=0.2), 4000
    for encoder in model.encoders:
        nn.init.constant_(encoder.missing, 7.0)
        encoder.register_forward_hook(lambda module, values, states: dropped.append((states == 7).all(dim=1)))
    rows = {name: values[:1].expand(films, *values.shape[1:]) for name, values in batch().items()}
    dropped = []
    torch.manual_seed(3)
    model(torch.zeros(films, 8), rows)
    together = torch.stack(dropped).all(dim=0).float().mean()
    assert together == pytest.approx(0.2 + 0.8 * 0.2**3, abs=0.02)
    assert torch.stack(dropped)[0].float().mean() == pytest.approx(0.2 + 0.8 * 0.2, abs=0.02)
    dropped.clear()
    model.eval()(torch.zeros(films, 8), rows)
    assert not torch.stack(dropped).any()


def test_equal_seeds_make_equal_heads():
    assert all(map(torch.equal, head().state_dict().values(), head().state_dict().values()))


def test_blank_inputs_are_those_of_a_film_without_any():
    model = head().eval()
    blank = blank_inputs(INPUTS, 3)
    assert blank.keys() == batch().keys()
    pooled = torch.randn(3, 8)
    assert torch.equal(model(pooled, blank)[1], model(pooled, batch())[1])


def test_a_checkpoint_names_its_inputs():
    model = DistilBertClassifier(backbone="small")
    spec = data_spec("ABCD", 100, 16)
    spec = type(spec)(**{**vars(spec), "inputs": INPUTS})
    model.bind(spec)
    model.configure_model()
    metadata = model.checkpoint_metadata()
    assert metadata.spec().inputs == INPUTS
    check_same_inputs(metadata.inputs, INPUTS)
    with pytest.raises(CheckpointError, match=r"other inputs .*vector"):
        check_same_inputs(metadata.inputs, INPUTS[:2])
    with pytest.raises(CheckpointError, match=r"other inputs .*tags"):
        check_same_inputs(metadata.inputs, (FittedInput("tags", "tags", values=("a",)), *INPUTS[1:]))


def test_a_model_without_a_head_refuses_inputs():
    from genre_lightning import ZeroShotLlama

    spec = data_spec("ABCD", 100, 16)
    with pytest.raises(ConfigError, match="ZeroShotLlama reads texts alone: set place: text"):
        ZeroShotLlama(backbone="random").bind(type(spec)(**{**vars(spec), "inputs": INPUTS}))


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("fusion") / "sample.csv", films=150, seed=0)


FEATURES = [
    {"column": "original_language", "kind": "category", "min_films": 1},
    {"column": "runtime", "kind": "number"},
    {"column": "tagline", "kind": "text", "max_tokens": 8},
]
SMALL = {"layers": 1, "width": 16, "heads": 2, "inner_width": 32}


def fitted(sample, *, packing, steps=4, **options):
    data = MovieDataModule(sample, features=FEATURES, vocab_size=500, max_tokens=32, global_batch_size=16, **options)
    model = DistilBertClassifier(
        backbone="small", architecture=SMALL, packing=packing, seed=0, dropout=0.0, drop_input=0.3
    )
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    return model, data, trainer


def test_padded_and_packed_batches_have_the_same_logits(sample):
    model, data, _ = fitted(sample, packing=False)
    assert isinstance(model.head, FusionHead)
    other = copy.deepcopy(model)
    padded = next(iter(data.evaluation_dataloader("test")))
    data.layout = "packed"
    packed = next(iter(data.evaluation_dataloader("test")))
    assert "attention_mask" not in packed
    model.eval(), other.eval()
    found = {}
    for batch in (padded, packed):
        with torch.no_grad():
            for film, logits in zip(batch["index"].tolist(), model(batch), strict=True):
                found.setdefault(film, []).append(logits)
    both = [logits for logits in found.values() if len(logits) == 2]
    assert both
    for one, two in both:
        assert torch.allclose(one, two, atol=1e-5)


def test_a_training_is_the_same_again(sample):
    first, second = (fitted(sample, packing=True)[0] for _ in range(2))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
