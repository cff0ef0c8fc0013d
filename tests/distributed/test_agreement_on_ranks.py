"""What ranks must agree on: the checkpoint that they start from, and when they save or stop."""

import json
from types import SimpleNamespace

import pytest
import torch
from ranks import run_on_ranks

from genre_lightning.distributed import preemption
from genre_lightning.distributed.preemption import StopAgreement
from genre_lightning.distributed.signals import StopFlag
from genre_lightning.errors import CheckpointError
from genre_lightning.training.callbacks import checkpoints
from genre_lightning.training.callbacks.checkpoints import RunCheckpoint


def checkpoint_on_a_nodes_disk(folder, rank, step):
    if step is None:
        return None
    path = folder / f"node{rank}" / "last.ckpt"
    path.parent.mkdir()
    path.with_name("last.ckpt.manifest.json").write_text(json.dumps({"sha256": f"of {step}", "global_step": step}))
    return str(path)


def start(rank, folder, steps, refused):
    trainer = SimpleNamespace(
        world_size=2, num_nodes=1, ckpt_path=checkpoint_on_a_nodes_disk(folder, rank, steps[rank])
    )
    callback = RunCheckpoint(folder, "val/loss")
    if not refused:
        callback.setup(trainer, None, "fit")
        return
    with pytest.raises(CheckpointError, match=refused):
        callback.setup(trainer, None, "fit")
    callback.setup(trainer, None, "predict")


@pytest.mark.parametrize(
    ("steps", "refused"),
    [
        ((8, 8), ""),
        ((None, None), ""),
        ((8, None), "rank 0 starts after optimizer step 8 and rank 1 after step 0"),
        ((8, 1200), "rank 0 starts after optimizer step 8 and rank 1 after step 1,200.* --run_dir"),
    ],
)
def test_ranks_that_found_different_checkpoints_do_not_start(tmp_path, steps, refused):
    run_on_ranks(start, 2, tmp_path, steps, refused)


def start_in(rank, folders, refused):
    checkpoints._LISTED_SECONDS = 0
    callback = RunCheckpoint(folders[rank], "val/loss")
    trainer = SimpleNamespace(world_size=2, num_nodes=2, ckpt_path=None)
    if refused:
        with pytest.raises(CheckpointError, match=r"rank 1 does not see what rank 0 writes .* --run_dir"):
            callback.setup(trainer, None, "fit")
    else:
        callback.setup(trainer, None, "fit")
    torch.distributed.barrier()
    assert not list(folders[0].iterdir())


@pytest.mark.parametrize("shared", [True, False])
def test_nodes_share_the_run_directory(tmp_path, shared):
    folders = (tmp_path / "a", tmp_path / ("a" if shared else "b"))
    run_on_ranks(start_in, 2, folders, not shared)


def one_rank_is_due(rank):
    trainer, flag = SimpleNamespace(world_size=2), StopFlag()
    agreement = StopAgreement(flag)
    assert agreement.reached_or(trainer, due=False) == (False, False)
    agreement._pause = agreement._to_go = 1
    assert agreement.reached_or(trainer, due=rank == 1) == (False, True)
    agreement._pause = agreement._to_go = 1
    if rank == 0:
        flag.signal = "SIGUSR1"
    assert agreement.reached_or(trainer, due=False) == (True, False)
    assert agreement.reached(trainer)
    # nothing else than this agreement is asked at the end of a step
    trainer = SimpleNamespace(
        world_size=2, accumulate_grad_batches=1, is_last_batch=False, global_step=3, strategy=None
    )
    callback = RunCheckpoint("unused", "val/loss", every_minutes=1e9, agreement=StopAgreement(StopFlag()))
    callback.on_train_batch_end(trainer, None, None, None, 0)


def test_what_is_due_on_one_rank_is_due_on_all():
    run_on_ranks(one_rank_is_due, 2)


def steps_by_unequal_clocks(rank, seconds_a_step, expected):
    now, asked = [100.0 * rank], []
    preemption.time = SimpleNamespace(monotonic=lambda: now[0])
    reduce = torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda tensor, **options: asked.append(step) or reduce(tensor, **options)
    flag = StopFlag()
    agreement, trainer = StopAgreement(flag), SimpleNamespace(world_size=2)
    for step in range(40):
        now[0] += seconds_a_step[rank]
        if step == 30 and rank == 1:
            flag.signal = "SIGTERM"
        if agreement.reached_or(trainer)[0]:
            break
    assert asked == expected


@pytest.mark.parametrize(
    ("seconds_a_step", "expected"),
    [
        ((0.2, 0.1), [0, 1, 3, 7, 12, 17, 22, 27, 32]),  # five steps of the slower rank take a second
        ((0.01, 0.6), list(range(31))),
    ],
)
def test_ranks_agree_about_once_a_second_at_the_same_steps(seconds_a_step, expected):
    run_on_ranks(steps_by_unequal_clocks, 2, seconds_a_step, expected)


def test_one_rank_asks_nobody():
    assert StopAgreement(StopFlag()).reached_or(SimpleNamespace(world_size=1), due=True) == (False, True)
