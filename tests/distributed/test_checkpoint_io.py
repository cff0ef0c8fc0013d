"""Checkpoints on disk: whole or refused, at every moment at which a process may die."""

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from malicious import Malicious

from genre_lightning.distributed.checkpoint import files as checkpoint_files
from genre_lightning.distributed.checkpoint.files import load_safely, write_checkpoint
from genre_lightning.distributed.checkpoint.io import AtomicCheckpointIO, read_checkpoint, update_checkpoint
from genre_lightning.distributed.checkpoint.manifests import manifest_path, newest_good, verify_checkpoint
from genre_lightning.errors import CheckpointError, SaveError
from genre_lightning.files import remove_temporaries


def content(step):
    return {
        "global_step": step,
        "epoch": 1,
        "state_dict": {"w": torch.full((1000,), float(step))},
        "facts": ["a", None],
    }


def file_in_memory(tensor):
    """The file whose pages a tensor lies in; an empty text for memory of the process's own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(place, 16) for place in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
    return None


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs Linux's list of mapped files")
def test_ranks_of_a_node_share_the_pages_of_a_checkpoint(tmp_path):
    path, door = tmp_path / "last.ckpt", AtomicCheckpointIO(mapped=True)
    write_checkpoint(content(3), path)
    first, second = (door.load_checkpoint(path)["state_dict"]["w"] for _ in range(2))
    assert file_in_memory(first) == file_in_memory(second) == str(path)
    first.add_(1)  # its own page: neither the file nor another rank's tensor
    assert torch.equal(second, content(3)["state_dict"]["w"])
    verify_checkpoint(path)
    write_checkpoint(content(4), path)
    assert torch.equal(second, content(3)["state_dict"]["w"])  # what is mapped stays the old file
    copied = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["w"]
    assert "last.ckpt" not in file_in_memory(copied)


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
    assert manifest.to_json() == {
        "sha256": hashlib.sha256(saved.read_bytes()).hexdigest(),
        "bytes": saved.stat().st_size,
        "global_step": 4,
        "epoch": 1,
        "config_sha256": None,
    }
    assert manifest.sha256 == digest
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
    "no manifest": (lambda path: manifest_path(path).unlink(), "cannot be verified"),
    "half a manifest": (lambda path: os.truncate(manifest_path(path), 20), "cannot be verified"),
    "another manifest": (lambda path: manifest_path(path).write_text('{"sha256": "00"}'), "is damaged"),
    "no object": (lambda path: manifest_path(path).write_text("[]"), "cannot be verified"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(saved, damage):
    change, words = DAMAGE[damage]
    change(saved)
    for look in (verify_checkpoint, read_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError, match=words) as caught:
            look(saved)
        assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint({"global_step": 1, "epoch": 0, "w": torch.ones(2)}, path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError, match="is damaged"):
            verify_checkpoint(path)
    path.write_bytes(whole)
    assert verify_checkpoint(path).global_step == 1


@pytest.mark.parametrize("keep_last", [1, 2, 4])
def test_the_last_checkpoints_are_kept(tmp_path, keep_last):
    door = AtomicCheckpointIO(keep_last)
    for step in range(1, 7):
        door.save_checkpoint(content(step), tmp_path / "last.ckpt")
        door.save_checkpoint(content(step), tmp_path / "best.ckpt")
    names = ["last.ckpt", "previous.ckpt", "previous-2.ckpt", "previous-3.ckpt"][:keep_last]
    for age, name in enumerate(names):
        assert read_checkpoint(tmp_path / name)["global_step"] == 6 - age
        assert verify_checkpoint(tmp_path / name).global_step == 6 - age
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == sorted([*names, "best.ckpt"])


def test_without_hard_links_the_newest_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no links here")))
    for step in (1, 2, 3):
        AtomicCheckpointIO(2).save_checkpoint(content(step), tmp_path / "last.ckpt")
    assert newest_good([tmp_path / "last.ckpt", tmp_path / "previous.ckpt"])[1].global_step == 3


def test_damaged_ones_are_kept_aside_under_names_of_their_own(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1, 2, 3):
        AtomicCheckpointIO(2).save_checkpoint(content(step), last)
        if step > 1:
            flip(last)
            found, manifest, complaints = newest_good([last, previous])
            assert (found, manifest.global_step) == (previous, step - 1 if step == 2 else 1)
            assert len(complaints) == 1
            found.replace(last)
            manifest_path(found).replace(manifest_path(last))
    assert sorted(p.name for p in tmp_path.glob("*damaged*")) == ["last.ckpt.damaged", "last.ckpt.damaged-2"]


def test_a_disk_without_room_is_noticed_before_anything_is_written(saved, monkeypatch):
    monkeypatch.setattr(checkpoint_files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(checkpoint_files.torch, "save", None)
    with pytest.raises(CheckpointError, match=r"needs 1\.1 MB and the disk has 1\.0 MB free"):
        write_checkpoint(content(9), saved)
    monkeypatch.undo()
    assert read_checkpoint(saved)["global_step"] == 3


def test_what_a_checkpoint_says_can_change_without_its_tensors(saved):
    digest = update_checkpoint(saved, lambda content: content.update(facts="new"))
    assert verify_checkpoint(saved).sha256 == digest
    assert read_checkpoint(saved)["facts"] == "new"
    assert torch.equal(read_checkpoint(saved)["state_dict"]["w"], content(3)["state_dict"]["w"])


@pytest.mark.parametrize("address", ["https://example.org/last.ckpt", "s3://bucket/last.ckpt"])
def test_addresses_are_refused(address):
    with pytest.raises(CheckpointError, match="is an address: fetch the checkpoint"):
        AtomicCheckpointIO().load_checkpoint(address)


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
def test_a_verified_file_that_is_not_a_checkpoint_is_refused(saved, garbage):
    saved.write_bytes(garbage)
    vouch(saved)
    with pytest.raises(CheckpointError, match="is refused"):
        read_checkpoint(saved)


def test_a_failed_save_leaves_the_old_one(saved, monkeypatch):
    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_files.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"could not be written: No space left"):
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
def test_at_every_moment_of_a_save_a_whole_checkpoint_is_verified(saved, monkeypatch, moment):
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
    assert verify_checkpoint(saved).global_step == step
    # the run continues, and may be killed again
    remove_temporaries(saved.parent)
    for next_step in (5, 6):
        write_checkpoint(content(next_step), saved)
        assert verify_checkpoint(saved).global_step == next_step
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
        assert verify_checkpoint(saved).global_step == 3
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
        assert read_checkpoint(saved)["global_step"] == verify_checkpoint(saved).global_step >= 10


def test_lightnings_door(tmp_path):
    door = AtomicCheckpointIO()
    path = tmp_path / "a" / "b.ckpt"
    door.save_checkpoint(content(2), str(path))
    assert door.load_checkpoint(str(path))["global_step"] == 2
    door.remove_checkpoint(str(path))
    door.remove_checkpoint(str(path))
    assert list(path.parent.iterdir()) == []


def test_drafts_have_names_that_nobody_foresees(saved, tmp_path):
    """A link or a pipe at a name that was once used for drafts is neither followed nor waited for."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (".last.ckpt.part", ".last.ckpt.manifest.json.part"):
        (saved.parent / name).symlink_to(precious)
    write_checkpoint(content(4), saved)
    assert read_checkpoint(saved)["global_step"] == 4
    assert precious.read_text() == "mine"


def test_a_link_at_the_place_of_a_checkpoint_is_replaced_not_followed(saved, tmp_path):
    precious = tmp_path / "precious"
    saved.rename(precious)
    saved.symlink_to(precious)
    before = precious.read_bytes()
    write_checkpoint(content(4), saved)
    assert not saved.is_symlink()
    assert precious.read_bytes() == before


def test_a_link_at_the_place_of_a_manifest_is_refused(saved, tmp_path):
    precious = tmp_path / "precious"
    manifest_path(saved).rename(precious)
    manifest_path(saved).symlink_to(precious)
    before = precious.read_bytes()
    with pytest.raises(SaveError, match="is a link"):
        write_checkpoint(content(4), saved)
    assert precious.read_bytes() == before


def test_a_small_file_that_expands_is_refused(tmp_path):
    """torch reads archives whose parts are compressed; it writes none."""
    torch.save({"state_dict": {"weight": torch.zeros(1 << 20)}}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "packed.ckpt").stat().st_size < 1 << 16
    with pytest.raises(CheckpointError, match="expands"):
        load_safely(tmp_path / "packed.ckpt")
    assert load_safely(tmp_path / "plain.ckpt").keys() == {"state_dict"}
