"""Checkpoints on disk: whole or refused, at every moment at which a process may die."""

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch

from genre_lightning.distributed import checkpoint_io
from genre_lightning.distributed.checkpoint_io import (
    AtomicCheckpointIO,
    manifest_path,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from genre_lightning.errors import CheckpointError


def content(step):
    return {
        "global_step": step,
        "epoch": 1,
        "state_dict": {"w": torch.full((1000,), float(step))},
        "facts": ["a", None],
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(content(3), path)
    return path


def vouch(path):
    """A manifest for whatever lies there."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest_path(path).write_text(json.dumps({"sha256": digest, "bytes": path.stat().st_size}))


def test_round_trip(saved):
    digest = write_checkpoint(content(4), saved)
    read = read_checkpoint(saved)
    assert read.keys() == content(4).keys()
    assert torch.equal(read["state_dict"]["w"], content(4)["state_dict"]["w"])
    manifest = verify_checkpoint(saved)
    assert manifest == {
        "sha256": hashlib.sha256(saved.read_bytes()).hexdigest(),
        "bytes": saved.stat().st_size,
        "global_step": 4,
        "epoch": 1,
    }
    assert manifest["sha256"] == digest
    assert sorted(path.name for path in saved.parent.iterdir()) == ["last.ckpt", "last.ckpt.manifest.json"]


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))


DAMAGE = {
    "flipped byte": (flip, "is damaged"),
    "truncated": (lambda path: os.truncate(path, 500), "is damaged"),
    "emptied": (lambda path: os.truncate(path, 0), "is damaged"),
    "gone": (lambda path: path.unlink(), "no checkpoint at"),
    "no manifest": (lambda path: manifest_path(path).unlink(), "nothing vouches"),
    "half a manifest": (lambda path: os.truncate(manifest_path(path), 20), "nothing vouches"),
    "another manifest": (lambda path: manifest_path(path).write_text('{"sha256": "00"}'), "is damaged"),
    "no object": (lambda path: manifest_path(path).write_text("[]"), "nothing vouches"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(saved, damage):
    change, words = DAMAGE[damage]
    change(saved)
    for look in (verify_checkpoint, read_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError, match=words) as caught:
            look(saved)
        assert "\n" not in str(caught.value)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["torch", "pickle", "lightning"])
def test_a_malicious_pickle_is_refused_and_not_run(saved, tmp_path, form):
    proof = tmp_path / "it ran"
    if form == "pickle":
        saved.write_bytes(pickle.dumps(Malicious(proof)))
    else:
        torch.save({"state_dict": Malicious(proof)}, saved)
    vouch(saved)  # whoever wrote the file could write its manifest
    door = AtomicCheckpointIO()
    load = (lambda path: door.load_checkpoint(path, weights_only=False)) if form == "lightning" else read_checkpoint
    with pytest.raises(CheckpointError, match="is refused"):
        load(saved)
    assert not proof.exists()


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"PK\x03\x04" + b"\0" * 50, b"\x80\x02.", b"\x80\x02}q\0(X"])
def test_a_vouched_file_that_is_no_checkpoint_is_refused(saved, garbage):
    saved.write_bytes(garbage)
    vouch(saved)
    with pytest.raises(CheckpointError, match="is refused"):
        read_checkpoint(saved)


def test_a_failed_save_leaves_the_old_one(saved, monkeypatch):
    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_io.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
        write_checkpoint(content(9), saved)
    monkeypatch.undo()
    assert read_checkpoint(saved)["global_step"] == 3
    assert len(list(saved.parent.iterdir())) == 2


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written"):
        write_checkpoint(content(1), tmp_path / "file" / "last.ckpt")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(12))
def test_at_every_moment_of_a_save_a_whole_checkpoint_is_vouched_for(saved, monkeypatch, moment):
    """The process dies before its n-th change on disk: what lies there is the old checkpoint or the new one."""
    calls = 0

    def dying(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > moment:
                raise Killed
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # the dead clear nothing away
    try:
        write_checkpoint(content(4), saved)
        finished = True
    except Killed:
        finished = False
    monkeypatch.undo()
    found = read_checkpoint(saved)
    step = found["global_step"]
    assert step in ((4,) if finished else (3, 4))
    assert verify_checkpoint(saved)["global_step"] == step
    # the run goes on, and may be killed again
    for next_step in (5, 6):
        write_checkpoint(content(next_step), saved)
        assert verify_checkpoint(saved)["global_step"] == next_step
    assert len(list(saved.parent.iterdir())) == 2


def test_a_second_death_between_the_renames_keeps_the_old_one_good(saved, monkeypatch):
    replace = Path.replace

    def die_at_checkpoint(self, target):
        if Path(target) == saved:
            raise Killed
        return replace(self, target)

    for step in (4, 5, 6):
        monkeypatch.setattr(Path, "replace", die_at_checkpoint)
        with pytest.raises(Killed):
            write_checkpoint(content(step), saved)
        monkeypatch.undo()
        assert verify_checkpoint(saved)["global_step"] == 3
        assert read_checkpoint(saved)["global_step"] == 3


def save_for_ever(path, started):
    step = 10
    while True:
        write_checkpoint({"global_step": step, "w": torch.zeros(200_000)}, Path(path))
        started.set()
        step += 1


def test_kill_9_while_saving_leaves_a_good_one(saved):
    context = multiprocessing.get_context("fork")
    for delay in (0.0, 0.013, 0.029, 0.051):
        started = context.Event()
        process = context.Process(target=save_for_ever, args=(saved, started))
        process.start()
        assert started.wait(60)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert read_checkpoint(saved)["global_step"] == verify_checkpoint(saved)["global_step"] >= 10


def test_lightnings_door(tmp_path):
    door = AtomicCheckpointIO()
    path = tmp_path / "a" / "b.ckpt"
    door.save_checkpoint(content(2), str(path))
    assert door.load_checkpoint(str(path))["global_step"] == 2
    door.remove_checkpoint(str(path))
    door.remove_checkpoint(str(path))
    assert list(path.parent.iterdir()) == []
