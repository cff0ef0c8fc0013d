"""FSDP on real ranks over gloo: sharding, fp16 with one scaler, and states that go between sharded and whole."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from ranks import run_on_ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from genre_lightning.config.parser import parse
from genre_lightning.distributed.scaling import ScaledPrecision
from genre_lightning.distributed.sharded import (
    ShardedPrecision,
    ShardedStrategy,
    load_optimizer_state,
    load_weights,
    shard,
    transformer_blocks,
    whole,
)
from genre_lightning.distributed.strategies import check_strategy, is_sharded, make_strategy, rank_count
from genre_lightning.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


class Blocks(nn.Module):
    """Two blocks, one list of them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5)) for _ in range(2)])

    def forward(self, states):
        states = self.first(states)
        for block in self.blocks:
            states = torch.tanh(block(states))
        return states


def make_parts(dtype=torch.float32, **options):
    torch.manual_seed(0)
    backbone, head = Blocks(), nn.Linear(5, 3)
    plain = copy.deepcopy((backbone, head))
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    shard(backbone, head, mesh, compute_dtype=dtype, **options)
    return backbone, head, plain


def make_films(rank, world_size):
    films = torch.randn(4 * world_size, 6, generator=torch.Generator().manual_seed(1))
    return films, films[rank::world_size]


def sharded_step_is_the_plain_one(rank, cpu_offload):
    world_size = torch.distributed.get_world_size()
    backbone, head, plain = make_parts(cpu_offload=cpu_offload)
    films, mine = make_films(rank, world_size)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=0.1)
    plain_optimizer = torch.optim.AdamW([p for part in plain for p in part.parameters()], lr=0.1)
    for _ in range(3):
        head(backbone(mine)).square().mean().backward()
        plain[1](plain[0](films)).square().mean().backward()
        norm = nn.utils.clip_grad_norm_([*backbone.parameters(), *head.parameters()], 0.05).full_tensor()
        expected = nn.utils.clip_grad_norm_([p for part in plain for p in part.parameters()], 0.05)
        torch.testing.assert_close(norm, expected)
        for one in (optimizer, plain_optimizer):
            one.step()
            one.zero_grad()
    for sharded, whole_one in zip([*backbone.parameters(), *head.parameters()],
                                  [p for part in plain for p in part.parameters()], strict=True):  # fmt: skip
        assert isinstance(sharded, DTensor)
        torch.testing.assert_close(whole(sharded), whole_one.detach())
    states_cross_over(optimizer, plain_optimizer)


def states_cross_over(optimizer, plain_optimizer):
    """A plain run's optimizer state, loaded into the sharded one, is the sharded one's own."""
    before = {i: {n: whole(v) for n, v in s.items()} for i, s in optimizer.state_dict()["state"].items()}
    load_optimizer_state(optimizer, plain_optimizer.state_dict())
    after = {i: {n: whole(v) for n, v in s.items()} for i, s in optimizer.state_dict()["state"].items()}
    for index, values in before.items():
        for name, value in values.items():
            torch.testing.assert_close(after[index][name], value)


@pytest.mark.parametrize(("world_size", "cpu_offload"), [(2, False), (3, False), (2, True)])
def test_sharded_steps_are_plain_ones(world_size, cpu_offload):
    run_on_ranks(sharded_step_is_the_plain_one, world_size, cpu_offload)


def whole_weights_go_in(rank):
    backbone, _, (plain, _) = make_parts()
    other = {name: value + 1 for name, value in plain.state_dict().items()}
    load_weights(backbone, other)
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(whole(value), other[name])
    with pytest.raises(RuntimeError, match="has shape"):
        load_weights(backbone, {"first.bias": torch.zeros(9)})


def test_whole_weights_are_cut_to_each_ranks_shards():
    run_on_ranks(whole_weights_go_in, 2)


def overflow_in_one_shard_skips_the_step_everywhere(rank):
    backbone, head, _ = make_parts(torch.float16)
    precision = ShardedPrecision("16-mixed", "cpu")
    parameters = [*backbone.parameters(), *head.parameters()]
    assert all(p.dtype == torch.float32 for p in parameters)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    _, mine = make_films(rank, 2)

    class Model:
        automatic_optimization = True

    precision._after_closure = lambda model, optimizer: None

    def closure(bad):
        optimizer.zero_grad()
        states = backbone(mine)
        assert states.dtype == torch.float32  # the group's output; inside it is fp16
        loss = head(states).square().mean()
        precision.scaler.scale(loss).backward()
        if bad and rank == 1:
            parameters[0].grad.to_local().fill_(float("inf"))
        return loss

    scale = precision.scaler.get_scale()
    before = [whole(p).clone() for p in parameters]
    precision.optimizer_step(optimizer, Model(), lambda: closure(bad=True))
    assert precision.scaler.get_scale() == scale / 2
    for old, new in zip(before, parameters, strict=True):
        assert torch.equal(old, whole(new))
    precision.optimizer_step(optimizer, Model(), lambda: closure(bad=False))
    assert precision.scaler.get_scale() == scale / 2
    assert any(not torch.equal(old, whole(new)) for old, new in zip(before, parameters, strict=True))


def test_an_overflow_in_one_ranks_shard_skips_the_step_on_all():
    run_on_ranks(overflow_in_one_shard_skips_the_step_everywhere, 2)


def test_blocks_are_the_longest_list_of_one_kind():
    model = Blocks()
    assert transformer_blocks(model) == list(model.blocks)
    with pytest.raises(ConfigError, match="use strategy ddp"):
        transformer_blocks(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "16-true"}, "cannot train in"),
        ({"precision": "64-true"}, "set one of 32-true, bf16-mixed, 16-mixed"),
        ({"accelerator": "mps"}, "trainer.accelerator=cpu"),
        ({"optimizer": "adamw_8bit"}, "set model.optimizer=adamw,"),
        ({"optimizer": "paged_adamw_8bit", "strategy": ShardedStrategy(cpu_offload=True)}, "set model.optimizer=adamw"),
        ({"quantization": "int8"}, "set model.quantization=nf4 or none"),
        ({"precision": "16-mixed", "compute_dtype": "float32"}, "to float16: set model.compute_dtype=auto"),
        ({"precision": "bf16-mixed", "compute_dtype": "float16"}, "to bfloat16: set model.compute_dtype=auto"),
        ({"trains": False}, "set ddp or auto"),
        ({"strategy": "deepspeed_stage_2"}, "deepspeed_stage_2, .* one of auto, ddp, fsdp"),
        ({"strategy": "ddp_find_unused_parameters_true"}, "one of auto, ddp, fsdp"),
        ({"strategy": "fsdp2"}, "one of auto, ddp, fsdp"),
        ({"strategy": FSDPStrategy()}, "FSDPStrategy, .* one of auto, ddp, fsdp"),
        ({"strategy": ModelParallelStrategy()}, "one of auto, ddp, fsdp"),
    ],
)
def test_what_cannot_work_together_is_refused(options, words):
    given = {"strategy": "fsdp", "precision": "32-true", "accelerator": "cuda", **options}
    with pytest.raises(ConfigError, match=words) as error:
        check_strategy(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("precision", "dtype"), [("16-mixed", "float16"), ("32-true", "float32")])
def test_nf4_in_uint8_is_not_sharded_by_a_torch_that_cannot(monkeypatch, precision, dtype):
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    with pytest.raises(ConfigError, match=f"torch 2.11.0.* set model.quant_storage={dtype}"):
        check_strategy("fsdp", precision, "cuda", quantization="nf4")
    check_strategy("fsdp", precision, "cuda", quantization="nf4", quant_storage=dtype)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    check_strategy("fsdp", precision, "cuda", quantization="nf4")


@pytest.mark.parametrize("strategy", ["auto", "ddp", DDPStrategy()])
def test_a_model_that_is_not_sharded_may_have_what_shards_may_not(strategy):
    check_strategy(strategy, "16-mixed", "cuda", optimizer="paged_adamw_8bit", quantization="int8", trains=False)


@pytest.mark.parametrize(("name", "ranks"), [("ddp", 1), ("ddp", 4), ("auto", 2)])
def test_ddp_searches_no_unused_parameters_keeps_views_and_broadcasts_no_buffers(name, ranks):
    strategy, precision = make_strategy(name, "bf16-mixed", "cuda", ranks=ranks)
    assert precision is None
    assert strategy._ddp_kwargs == {
        "find_unused_parameters": False, "gradient_as_bucket_view": True, "broadcast_buffers": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["auto", "ddp"])
def test_fp16_has_the_loss_scaler_that_does_not_wait(name):
    assert isinstance(make_strategy(name, "16-mixed", "cpu")[1], ScaledPrecision)


class Residual(nn.Module):
    """A decoder's block: its sum keeps the dtype that comes in, its product is in that of the weights."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen = []

    def forward(self, states):
        self.seen.append(states.dtype)
        return states + self.linear(states.to(self.linear.weight.dtype))


def states_between_blocks(rank, keeps_states, expected):
    backbone = nn.Sequential(nn.Identity())
    backbone.blocks = nn.ModuleList([Residual(), Residual()])
    backbone.forward = lambda states: backbone.blocks[1](backbone.blocks[0](states.float()))
    mesh = init_device_mesh("cpu", (1,))
    shard(backbone, nn.Linear(4, 2), mesh, compute_dtype=torch.bfloat16, keeps_states=keeps_states)
    backbone(torch.ones(3, 4))
    assert [block.seen for block in backbone.blocks] == [[expected], [expected]]


@pytest.mark.parametrize(("keeps_states", "expected"), [(True, torch.float32), (False, torch.bfloat16)])
def test_states_between_blocks_keep_their_dtype_if_asked_to(keeps_states, expected):
    run_on_ranks(states_between_blocks, 1, keeps_states, expected)


@pytest.mark.parametrize("causal", [True, False])
def test_decoders_keep_their_states_under_fsdp(monkeypatch, causal):
    class Sharded(Exception):
        pass

    def shard_of(*arguments, keeps_states, **options):
        assert keeps_states == causal
        raise Sharded

    monkeypatch.setattr("genre_lightning.distributed.sharded.shard", shard_of)
    strategy = ShardedStrategy()
    strategy._device_mesh = {"data_parallel": None}
    strategy.precision_plugin = ShardedPrecision("32-true", "cpu")
    strategy._lightning_module = strategy.model = SimpleNamespace(
        backbone=nn.Linear(1, 1), head=None, materialise=None, decoder=causal
    )
    with pytest.raises(Sharded):
        strategy.setup(None)


@pytest.mark.parametrize(
    ("devices", "nodes", "accelerator", "ranks"),
    [("auto", 1, "cpu", 1), (3, 1, "cpu", 3), ("2", 2, "cpu", 4), ("auto", 2, "cuda", 8), (-1, 1, "cuda", 4),
     ([0, 2], 1, "cuda", 2), ("1,3", 1, "cuda", 2), (1, 1, "cuda", 1)],
)  # fmt: skip
def test_ranks_are_counted_as_lightning_does(monkeypatch, devices, nodes, accelerator, ranks):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("lightning.fabric.accelerators.cuda.num_cuda_devices", lambda: 4)
    assert rank_count(devices, nodes, accelerator) == ranks


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.strategy", "genre_lightning.distributed.sharded.ShardedStrategy",
         "--trainer.strategy.cpu_offload", "true"],
        ["--config", str(CONFIGS / "strategy" / "fsdp_offload.yaml")],
    ],
)  # fmt: skip
def test_offloading_is_chosen_on_the_command_line_or_by_an_overlay(words):
    config, parser = parse("fit", ["--data.csv=x.csv", *words])
    strategy = parser.instantiate(config).trainer.strategy
    assert isinstance(strategy, ShardedStrategy)
    assert strategy.cpu_offload
    assert is_sharded(config.trainer.strategy)
    made, precision = make_strategy(strategy, "bf16-mixed", "cpu")
    assert made is strategy
    assert isinstance(precision, ShardedPrecision)
