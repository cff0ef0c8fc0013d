"""The loss and the gradient of a step are those of the plain mean over its films, however they are packed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specs import data_spec

from genre_lightning.data.collate import Padding, TokenisedFilms
from genre_lightning.data.steps import MicroBatch, shares_of_step
from genre_lightning.errors import CheckpointError
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.distilbert import Architecture, DistilBertClassifier

GENRES = ("Action", "Drama", "War")
WEIGHT = np.array([2.0, 0.5, 7.0], dtype=np.float32)


class Store:
    """Token ids in memory, with the face of a TokenStore."""

    def __init__(self, rows):
        self.rows = rows
        self.lengths = np.array([len(row) for row in rows], dtype=np.int32)

    def __getitem__(self, index):
        return self.rows[index]


def make_model(dropout=0.0, **options):
    model = DistilBertClassifier(
        backbone="small", dropout=dropout, architecture=Architecture(1, 16, 2, 32), **{"seed": 5, **options}
    )
    model.bind(data_spec(GENRES, vocab_size=50, max_tokens=24), WEIGHT)
    model.configure_model()
    return model


def make_films(lengths, seed=0):
    rng = np.random.default_rng(seed)
    store = Store([rng.integers(1, 50, length).astype(np.int32) for length in lengths])
    labels = rng.random((len(lengths), len(GENRES))) < 0.4
    return TokenisedFilms(store, np.arange(len(lengths)), labels, Padding(token=0, filler=(1, 2)))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain_gradient(model, dataset):
    """One film at a time through the written formula, unpadded."""
    model.zero_grad()
    losses = []
    for film in range(len(dataset)):
        batch = dataset[MicroBatch(np.array([film]), 1)]
        losses.append(
            F.binary_cross_entropy_with_logits(model(batch), batch["labels"], pos_weight=torch.from_numpy(WEIGHT))
        )
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), gradients(model)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(2, 24), min_size=1, max_size=12),
    world_size=st.integers(1, 3),
    micro_batches=st.integers(1, 4),
)
def test_the_gradient_of_a_step_is_that_of_the_mean_over_its_films(lengths, world_size, micro_batches):
    model, dataset = make_model(), make_films(lengths)
    expected_loss, expected = plain_gradient(model, dataset)
    shares = shares_of_step(
        np.arange(len(lengths)), dataset.lengths, world_size=world_size, micro_batches=micro_batches
    )
    total = {name: torch.zeros_like(value) for name, value in expected.items()}
    step_loss = 0.0
    model.sum_over_ranks = lambda sums: sums  # the ranks take turns here
    for rank in range(world_size):
        model.log = lambda *_, **__: None
        model._trainer = SimpleNamespace(
            accumulate_grad_batches=micro_batches, world_size=world_size, global_step=0, global_rank=rank,
            log_every_n_steps=10**9, loggers=[],
        )  # fmt: skip
        model.zero_grad()
        model.sums.epoch.zero_()
        for place, films in enumerate(shares[rank]):
            loss = model.training_step(dataset[MicroBatch(films, len(lengths))], place)
            (loss / micro_batches).backward()  # Lightning's division
        step_loss += float(model.sums.epoch[0])
        for name, value in gradients(model).items():
            total[name] += value / world_size  # DDP's mean over ranks
    assert step_loss / len(lengths) == pytest.approx(expected_loss, rel=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(total[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_dropout_is_drawn_by_step_micro_batch_and_rank_alone():
    model, dataset = make_model(dropout=0.3), make_films([5, 9, 13])
    batch = dataset[MicroBatch(np.arange(3), 3)]

    def loss(step, place, rank):
        model.log = lambda *_, **__: None
        model._trainer = SimpleNamespace(
            accumulate_grad_batches=4, world_size=2, global_step=step, global_rank=rank, log_every_n_steps=10**9
        )
        torch.rand(3)  # whatever was drawn before must not matter
        return float(model.training_step(batch, place).detach())

    first = loss(7, 0, 0)
    assert loss(7, 0, 0) == first
    assert len({first, loss(8, 0, 0), loss(7, 1, 0), loss(7, 0, 1)}) == 4


def test_new_weights_depend_on_the_seed_alone():
    torch.rand(11)
    first, second = make_model(), make_model()
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_new_weights_do_not_depend_on_the_default_device():
    # Lightning makes the GPU the default device while a model is built, but not under every strategy
    here = make_model()
    with torch.device("meta"):
        elsewhere = make_model()
    for (name, a), (_, b) in zip(here.named_parameters(), elsewhere.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_attention_that_builds_a_plan_for_each_shape_is_switched_off():
    torch.backends.cuda.enable_cudnn_sdp(True)
    make_model()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_checkpoint_of_other_genres_or_another_shape_is_refused():
    model = make_model()
    checkpoint = {"state_dict": model.state_dict(), "genre_lightning": model.checkpoint_metadata().to_json()}
    model.on_save_checkpoint(checkpoint)
    model.on_load_checkpoint(checkpoint)
    other = {**checkpoint, "genre_lightning": {**checkpoint["genre_lightning"], "genres": ["Action", "Drama"]}}
    with pytest.raises(CheckpointError, match="War"):
        model.on_load_checkpoint(other)
    fewer = {**checkpoint, "state_dict": dict(list(checkpoint["state_dict"].items())[1:])}
    with pytest.raises(CheckpointError, match="another model"):
        model.on_load_checkpoint(fewer)
    with pytest.raises(CheckpointError, match="not written by"):
        model.on_load_checkpoint({"state_dict": {}})


def test_the_backbone_trains_with_dropout_on():
    model = make_model(dropout=0.5)
    assert all(module.training for module in model.backbone.modules())


def test_the_classifier_needs_a_subclass():
    with pytest.raises(TypeError, match="does not say how"):
        GenreClassifier().build(data_spec(GENRES, 50, 24))
