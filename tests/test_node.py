"""What ranks of one node find out once: digests, and what the hub has."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from genre_lightning import foreign, node
from genre_lightning.cache import build_once
from genre_lightning.distributed.checkpoint.files import write_checkpoint
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.errors import CheckpointError
from genre_lightning.files import file_digest

TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "0"}
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1", "SLURM_PROCID": "3"}


@pytest.fixture
def ranks(monkeypatch, tmp_path):
    """This process is a rank of torchrun's, with a temporary folder of its own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read and digested."""
    files = []
    monkeypatch.setattr(node, "file_digest", lambda path: files.append(Path(path).name) or file_digest(path))
    return files


def settled(path, content=b"content"):
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


def test_starts_have_names_of_their_own():
    assert node.start_of_ranks({}) is None
    assert node.start_of_ranks({"GENRE_LIGHTNING_FIRST_RANK": "12"}) is None  # rank 0, before it starts others
    first = {"GENRE_LIGHTNING_FIRST_RANK": "12", "LOCAL_RANK": "1"}
    assert node.start_of_ranks(first) == node.start_of_ranks({**first, "LOCAL_RANK": "2"})
    assert node.start_of_ranks(SRUN) == node.start_of_ranks({**SRUN, "SLURM_PROCID": "4"})
    for start, name in ((TORCHRUN, "TORCHELASTIC_RESTART_COUNT"), (SRUN, "SLURM_RESTART_COUNT")):
        assert node.start_of_ranks(start) != node.start_of_ranks({**start, name: "9"})


def test_one_rank_of_a_node_reads_a_file(ranks, read, tmp_path):
    file = settled(tmp_path / "a")
    assert [node.digest_on_node(file) for _ in range(3)] == [file_digest(file)] * 3
    assert read == ["a"]
    settled(file, b"changed")
    assert node.digest_on_node(file) == file_digest(file)
    assert read == ["a", "a"]


def test_a_process_alone_keeps_no_notes(monkeypatch, read, tmp_path):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    file = settled(tmp_path / "a")
    assert node.digest_on_node(file) == node.digest_on_node(file)
    assert read == ["a", "a"]


def test_a_file_just_written_is_read_by_every_rank(ranks, read, tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert node.digest_on_node(tmp_path / "a") == node.digest_on_node(tmp_path / "a")
    assert read == ["a", "a"]


def test_the_others_wait_for_the_rank_that_reads(ranks):
    started, go_on, found, calls = threading.Event(), threading.Event(), [], []

    def find():
        calls.append(1)
        started.set()
        assert go_on.wait(30)
        return "found"

    threads = [threading.Thread(target=lambda: found.append(node.once_on_node("what", find))) for _ in range(3)]
    threads[0].start()
    assert started.wait(30)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert (found, calls) == (["found"] * 3, [1])


def test_what_fails_is_tried_by_every_rank(ranks):
    def fail():
        raise ValueError("no network")

    for _ in range(2):
        with pytest.raises(ValueError, match="no network"):
            node.once_on_node("what", fail)
    assert node.once_on_node("what", lambda: "there") == "there"


def test_a_rank_that_has_waited_too_long_reads_by_itself(ranks, monkeypatch):
    monkeypatch.setattr(node, "_PATIENCE_SECONDS", 0)
    assert node.once_on_node("what", lambda: node.once_on_node("what", lambda: "mine") + ", too") == "mine, too"


@pytest.mark.parametrize("kind", ["open", "link"])
def test_notes_of_others_are_not_believed(ranks, kind, tmp_path):
    root = Path(tempfile.gettempdir()) / f"genre_lightning-{os.geteuid()}"
    if kind == "open":
        root.mkdir()
        root.chmod(0o777)
    else:
        (tmp_path / "theirs").mkdir(mode=0o700)
        root.symlink_to(tmp_path / "theirs")
    assert [node.once_on_node("what", lambda value=value: value) for value in "ab"] == ["a", "b"]


def test_notes_of_old_starts_are_removed(ranks, monkeypatch):
    node.once_on_node("what", lambda: "a")
    root = Path(tempfile.gettempdir()) / f"genre_lightning-{os.geteuid()}"
    (old,) = root.iterdir()
    os.utime(old, (1e9, 1e9))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert node.once_on_node("what", lambda: "b") == "b"
    assert not old.exists()


def test_a_cache_folder_is_verified_once_on_a_node(ranks, read, tmp_path):
    def build(folder):
        (folder / "films.arrow").write_bytes(b"films")
        return {}

    folder, _ = build_once(tmp_path / "cache", "key", build)
    settled(folder / "films.arrow", b"films")
    for _ in range(3):
        build_once(tmp_path / "cache", "key", build)
    assert read == ["films.arrow"]
    settled(folder / "films.arrow", b"damage")
    build_once(tmp_path / "cache", "key", build)
    assert (folder / "films.arrow").read_bytes() == b"films"


def test_a_checkpoint_is_verified_once_on_a_node(ranks, read, tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint({"global_step": 3}, path)
    os.utime(path, (1e9, 1e9))
    assert [verify_checkpoint(path).global_step for _ in range(3)] == [3] * 3
    assert read == ["last.ckpt"]
    settled(path, bytes(path.stat().st_size))
    with pytest.raises(CheckpointError, match="damaged"):
        verify_checkpoint(path)


def test_the_hub_is_asked_by_one_rank_of_a_node(ranks, monkeypatch, tmp_path):
    asked = []
    config = settled(tmp_path / "config.json")
    answers = {"config.json": str(config), "model.safetensors": None}
    monkeypatch.setattr(
        "transformers.utils.cached_file", lambda name, file, **options: asked.append(file) or answers[file]
    )
    for _ in range(3):
        assert foreign.model_file("a/model", "config.json", None) == config
        assert foreign.model_file("a/model", "model.safetensors", None) is None
    assert asked == ["config.json", "model.safetensors"]
