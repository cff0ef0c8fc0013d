"""Sharded checkpoints: written by some ranks, read by any number of them, whole or refused."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from malicious import Malicious
from ranks import run_on_ranks
from test_sharded import Blocks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from genre_lightning.distributed.checkpoint import manifests, shards
from genre_lightning.distributed.checkpoint.files import UNSHARDED
from genre_lightning.distributed.checkpoint.io import read_checkpoint, update_checkpoint
from genre_lightning.distributed.checkpoint.manifests import manifest_path, newest_good, verify_checkpoint
from genre_lightning.distributed.checkpoint.shards import read_shards, read_unsharded, write_shards
from genre_lightning.distributed.sharded import (
    load_optimizer_state,
    open_checkpoint,
    restore_weights,
    shard,
    whole,
)
from genre_lightning.errors import CheckpointError


def trained(seed=0):
    """A sharded model after two steps, and its optimizer."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"backbone": Blocks(), "head": nn.Linear(5, 3)})
    shard(model["backbone"], model["head"], init_device_mesh("cpu", (torch.distributed.get_world_size(),)),
          compute_dtype=torch.float32)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        model["head"](model["backbone"](torch.ones(4, 6))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def content_of(model, optimizer, step):
    return {"global_step": step, "epoch": 1, "state_dict": model.state_dict(), "facts": {"genres": ["a", "b"]},
            "optimizer_states": [optimizer.state_dict()]}  # fmt: skip


def save(rank, path, reference):
    model, optimizer = trained()
    for step in (1, 2):
        write_shards(content_of(model, optimizer, step), path, [path.with_name("previous.ckpt")])
    expected = {
        "weights": {name: whole(value) for name, value in model.state_dict().items()},
        "states": {i: {n: whole(v) for n, v in s.items()} for i, s in optimizer.state_dict()["state"].items()},
    }
    if rank == 0:
        torch.save(expected, reference)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint of two ranks, and what it must hold."""
    place = tmp_path_factory.mktemp("shards")
    run_on_ranks(save, 2, place / "last.ckpt", place / "reference.pt")
    return place / "last.ckpt", torch.load(place / "reference.pt")


@pytest.fixture
def saved(written, tmp_path):
    """A copy of it that may be damaged."""

    path = tmp_path / "last.ckpt"
    shutil.copytree(written[0], path)
    shutil.copy(manifest_path(written[0]), manifest_path(path))
    return path


def test_a_directory_of_shards(written):
    path, _ = written
    assert sorted(file.name for file in path.iterdir()) == [".metadata", "__0_0.distcp", "__1_0.distcp", UNSHARDED]
    manifest = verify_checkpoint(path)
    assert (manifest.global_step, manifest.epoch) == (2, 1)
    assert manifest.bytes == sum(file.stat().st_size for file in path.iterdir())
    assert verify_checkpoint(path.with_name("previous.ckpt")).global_step == 1
    leftovers = {file.name for file in path.parent.iterdir()} - {"reference.pt"}
    assert leftovers == {f"{n}{e}" for n in ("last.ckpt", "previous.ckpt") for e in ("", ".manifest.json")}


def test_one_process_reads_it_whole(written):
    path, expected = written
    content = read_checkpoint(path)
    assert content["facts"] == {"genres": ["a", "b"]}
    assert content["state_dict"].keys() == expected["weights"].keys()
    for name, value in content["state_dict"].items():
        assert torch.equal(value, expected["weights"][name])
    optimizer = torch.optim.AdamW(nn.ModuleDict({"backbone": Blocks(), "head": nn.Linear(5, 3)}).parameters())
    optimizer.load_state_dict(content["optimizer_states"][0])
    for index, values in expected["states"].items():
        for name, value in values.items():
            assert torch.equal(optimizer.state_dict()["state"][index][name], value)


def load(rank, path, reference):
    expected = torch.load(reference)
    model, optimizer = trained(seed=9)
    facts = read_unsharded(path)
    assert {name: value.shape for name, value in facts["state_dict"].items()} == {
        name: value.shape for name, value in expected["weights"].items()
    }
    content = read_shards(path, model.state_dict(), [list(model.parameters())])
    load_optimizer_state(optimizer, content["optimizer_states"][0])
    for name, value in model.state_dict().items():
        assert torch.equal(whole(value), expected["weights"][name])
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(whole(value), expected["states"][index][name])
    other = trained(seed=8)[0]
    restore_weights(other, path, open_checkpoint(path))
    for name, value in other.state_dict().items():
        assert torch.equal(whole(value), expected["weights"][name])


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks_reads_it(written, ranks):
    path, _ = written
    run_on_ranks(load, ranks, path, path.with_name("reference.pt"))


def load_another_shape(rank, path):
    model = nn.ModuleDict({"backbone": Blocks(), "head": nn.Linear(5, 4)})
    shard(model["backbone"], model["head"], init_device_mesh("cpu", (2,)), compute_dtype=torch.float32)
    with pytest.raises(CheckpointError, match="of another shape of model"):
        read_shards(path, model.state_dict(), [])


def test_another_shape_of_model_is_refused(written):
    run_on_ranks(load_another_shape, 2, written[0])


def damaged_for_all(rank, path):
    with pytest.raises(CheckpointError, match=r"its file __1_0\.distcp is missing"):
        read_unsharded(path)


def test_a_missing_shard_is_named_on_every_rank(saved):
    (saved / "__1_0.distcp").unlink()
    run_on_ranks(damaged_for_all, 2, saved)


DAMAGE = {
    "missing shard": (lambda path: (path / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
    "empty shard": (lambda path: os.truncate(path / "__0_0.distcp", 0), "the SHA-256 of its file __0_0.distcp"),
    "truncated facts": (lambda path: os.truncate(path / UNSHARDED, 100), f"the SHA-256 of its file {UNSHARDED}"),
    "missing metadata": (lambda path: (path / ".metadata").unlink(), ".metadata is missing"),
    "a file too many": (lambda path: (path / "x").touch(), "x is not in its manifest"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_kept_aside(saved, damage):
    change, words = DAMAGE[damage]
    change(saved)
    with pytest.raises(CheckpointError, match=words):
        verify_checkpoint(saved)
    found, manifest, complaints = newest_good([saved])
    assert (found, manifest) == (None, None)
    assert words in complaints[0]
    assert saved.with_name("last.ckpt.damaged").is_dir()
    assert not saved.exists()


def test_every_flipped_byte_is_noticed(saved):
    for file in sorted(saved.iterdir()):
        content = file.read_bytes()
        for place in range(0, len(content), 1 if len(content) < 2000 else 101):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            file.write_bytes(bytes(changed))
            with pytest.raises(CheckpointError, match="is damaged"):
                verify_checkpoint(saved)
        file.write_bytes(content)
    verify_checkpoint(saved)


@pytest.mark.parametrize("name", [".metadata", UNSHARDED, "__0_0.distcp"])
def test_a_malicious_pickle_is_refused_and_not_run(saved, tmp_path, name):
    proof = tmp_path / "it ran"
    if name == ".metadata":
        (saved / name).write_bytes(pickle.dumps(Malicious(proof)))
    elif name == UNSHARDED:
        torch.save({"state_dict": Malicious(proof)}, saved / name)
    else:
        (saved / name).write_bytes(pickle.dumps(Malicious(proof)) * 400)
    with pytest.raises((CheckpointError, RuntimeError, pickle.UnpicklingError, shards.CheckpointException)):
        shards.read_whole(saved)
    assert not proof.exists()


def test_metadata_that_holds_bytes_or_leads_elsewhere_is_refused(saved):
    place = saved / ".metadata"
    metadata = pickle.loads(place.read_bytes())
    name = next(iter(metadata.state_dict_metadata))
    stored = metadata.state_dict_metadata[name]
    metadata.state_dict_metadata[name] = shards.dcp.metadata.BytesStorageMetadata()
    place.write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="is not a tensor"):
        shards.read_whole(saved)
    metadata.state_dict_metadata[name] = stored
    next(iter(metadata.storage_data.values())).relative_path = "../elsewhere"
    place.write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="a shard lies elsewhere"):
        shards.read_whole(saved)


def test_what_it_says_can_change_without_its_tensors(saved):
    before = verify_checkpoint(saved)
    digest = update_checkpoint(saved, lambda facts: facts.update(facts="new"))
    after = verify_checkpoint(saved)
    assert after.sha256 == digest != before.sha256
    assert after.bytes == sum(file.stat().st_size for file in saved.iterdir())
    assert read_checkpoint(saved)["facts"] == "new"
    assert {n: d for n, d in after.files.items() if n != UNSHARDED} == {
        n: d for n, d in before.files.items() if n != UNSHARDED
    }


def fail_to_write(rank, path, moment):
    model, optimizer = trained()
    write_shards(content_of(model, optimizer, 1), path)
    if moment == "no room":
        shards.check_space = lambda folder, needed: (_ for _ in ()).throw(OSError("the disk is full"))
    elif moment == "one rank" and rank == 1:
        write_data = shards.dcp.FileSystemWriter.write_data
        shards.dcp.FileSystemWriter.write_data = lambda *args: (_ for _ in ()).throw(OSError("the disk is full"))
    elif moment == "facts":
        shards.save_flushed = lambda content, path: (_ for _ in ()).throw(OSError("the disk is full"))
    with pytest.raises(CheckpointError, match=r"could not be written .*the disk is full"):
        write_shards(content_of(model, optimizer, 2), path)
    if moment == "one rank" and rank == 1:
        shards.dcp.FileSystemWriter.write_data = write_data
    torch.distributed.barrier()
    assert read_unsharded(path)["global_step"] == 1
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("moment", ["no room", "one rank", "facts"])
def test_a_rank_that_cannot_write_fails_the_save_on_all_and_leaves_the_old_one(tmp_path, moment):
    run_on_ranks(fail_to_write, 2, tmp_path / "last.ckpt", moment)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(10))
def test_at_every_moment_of_the_switch_a_whole_one_is_verified(written, tmp_path, monkeypatch, moment):

    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"

    def commit(step):
        part = tmp_path / ".last.ckpt.part"
        shutil.copytree(written[0], part)
        manifests.commit(part, last, manifests.describe(part, {"global_step": step}), [previous])

    commit(1)
    commit(2)
    calls = 0

    def dying(self, target):
        nonlocal calls
        calls += 1
        if calls > moment:
            raise Killed
        return replace(self, target)

    replace = Path.replace
    monkeypatch.setattr(Path, "replace", dying)
    done = False
    try:
        commit(3)
        done = True
    except Killed:
        pass
    monkeypatch.undo()
    found, manifest, complaints = newest_good([last, previous])
    assert complaints == []
    assert found is not None
    assert manifest.global_step in ((3,) if done else (2, 3))
    shutil.rmtree(tmp_path / ".last.ckpt.part", ignore_errors=True)
    commit(4)
    assert verify_checkpoint(last).global_step == 4
