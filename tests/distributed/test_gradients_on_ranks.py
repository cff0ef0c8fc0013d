"""The gradient of a step on real ranks is that of the plain mean over its films; dropout changes no mean curve."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import small_llama
import test_base
import torch
from ranks import run_on_ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from genre_lightning.data.collate import Padding, TokenisedFilms
from genre_lightning.data.steps import MicroBatch, shares_of_step
from genre_lightning.distributed.sharded import shard, whole

CASES = 6


class Step(nn.Module):
    """`training_step` as the forward of a module, as Lightning gives it to DDP."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch, place):
        return self.model.training_step(batch, place)


def trainer_of(rank, world_size, micro_batches, step=0):
    return SimpleNamespace(
        accumulate_grad_batches=micro_batches, world_size=world_size, global_step=step, global_rank=rank,
        log_every_n_steps=10**9, loggers=[],
    )  # fmt: skip


def encoder(checkpointing):
    return test_base.make_model(activation_checkpointing=checkpointing)


def llama(checkpointing):
    model = small_llama.stir(small_llama.build(quantization="nf4", activation_checkpointing=checkpointing))
    return model.train()


def films_for(make, lengths, seed):
    if make is encoder:
        return test_base.make_films(lengths, seed)
    rng = np.random.default_rng(seed)
    store = test_base.Store([rng.integers(1, small_llama.VOCABULARY, n).astype(np.int32) for n in lengths])
    labels = rng.random((len(lengths), small_llama.GENRES)) < 0.4
    return TokenisedFilms(store, np.arange(len(lengths)), labels, Padding(0), layout="packed")


def plain_gradient(model, dataset, films):
    """The mean over the films, each by itself."""
    model.zero_grad()
    losses = [model.model_step(dataset[MicroBatch(np.array([film]), 1)]).loss_sum for film in range(films)]
    torch.stack(losses).mean().backward()
    return test_base.gradients(model)


def step_over_ranks(rank, strategy, make, checkpointing):
    world_size = torch.distributed.get_world_size()
    model = make(checkpointing)
    plain = copy.deepcopy(model) if make is encoder else make(checkpointing)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    if strategy == "fsdp":
        shard(model.backbone, model.head, init_device_mesh("cpu", (world_size,)), compute_dtype=torch.float32)
        step = Step(model)
    else:
        step = nn.parallel.DistributedDataParallel(Step(model), gradient_as_bucket_view=True)
    drawn = np.random.default_rng(11)
    for case in range(CASES):
        lengths = drawn.integers(2, 24, size=drawn.integers(1, 12)).tolist()
        micro_batches = int(drawn.integers(1, 4))
        dataset = films_for(make, lengths, case)
        expected = plain_gradient(plain, dataset, len(lengths))
        shares = shares_of_step(
            np.arange(len(lengths)), dataset.lengths, world_size=world_size, micro_batches=micro_batches
        )
        model.log = lambda *_, **__: None
        model._trainer = trainer_of(rank, world_size, micro_batches)
        model.zero_grad()
        for place, films in enumerate(shares[rank]):
            last = place == micro_batches - 1
            if strategy == "fsdp":
                model.backbone.set_requires_gradient_sync(last)
                model.head.set_requires_gradient_sync(last)
            else:
                step.require_backward_grad_sync = last
            (step(dataset[MicroBatch(films, len(lengths))], place) / micro_batches).backward()
        for name, parameter in model.named_parameters():
            if name in names:
                got = whole(parameter.grad)
                torch.testing.assert_close(got, expected[name], rtol=1e-4, atol=1e-6, msg=f"case {case}, {name}")


@pytest.mark.parametrize(
    ("strategy", "make", "checkpointing"),
    [
        ("ddp", encoder, False),
        pytest.param("fsdp", encoder, True, marks=pytest.mark.slow),
        pytest.param("ddp", llama, True, marks=pytest.mark.slow),
        ("fsdp", llama, False),
    ],
)
def test_the_gradient_over_two_ranks_is_that_of_the_plain_mean(strategy, make, checkpointing):
    run_on_ranks(step_over_ranks, 2, strategy, make, checkpointing)


def dropout_curve(seed, world_size, steps):
    """Losses of a training with dropout whose ranks take turns in this process."""
    model, dataset = test_base.make_model(dropout=0.3), test_base.make_films([5, 9, 13, 7, 20, 3])
    model.options.seed = seed
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    shares = shares_of_step(np.arange(6), dataset.lengths, world_size=world_size, micro_batches=1)
    curve = []
    model.sum_over_ranks = lambda sums: sums  # the ranks take turns here
    for step in range(steps):
        model.sums.epoch.zero_()
        for rank in range(world_size):
            model.log = lambda *_, **__: None
            model._trainer = trainer_of(rank, world_size, 1, step)
            (model.training_step(dataset[MicroBatch(shares[rank][0], 6)], 0) / world_size).backward()
        curve.append(float(model.sums.epoch[0]) / 6)
        optimizer.step()
        optimizer.zero_grad()
    return curve


@pytest.mark.slow
def test_with_dropout_the_curves_of_one_and_two_ranks_agree_in_the_mean():
    """Each step's mean loss over 40 seeds differs by less than 4 standard errors of that difference.

    Of independent normal differences one in 16,000 is larger; seeds are fixed, so the test never flakes.
    """
    seeds, steps = 40, 8
    one, two = (np.array([dropout_curve(seed, ranks, steps) for seed in range(seeds)]) for ranks in (1, 2))
    error = np.sqrt((one.var(axis=0, ddof=1) + two.var(axis=0, ddof=1)) / seeds)
    assert (error > 0).all()
    assert not np.array_equal(one, two)
    assert one.mean(axis=0)[-1] < one.mean(axis=0)[0] - 4 * error[-1], "the curve falls, so there is one to compare"
    assert (np.abs(one.mean(axis=0) - two.mean(axis=0)) < 4 * error).all()
