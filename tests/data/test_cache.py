"""Folders built once: by one of many processes, again when damaged, and never half."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import tokenizers

from genre_lightning.cache import MANIFEST, build_once, default_cache_dir, key_of
from genre_lightning.config.data import DataOptions
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.files import file_digest, replacing_folder


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "a.bin").write_bytes(bytes(range(256)))
        (folder / "b.txt").write_text("b")
        return {"number": 7}


def visible(root):
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


def test_built_once_and_kept(tmp_path):
    builder = Builder()
    folder, facts = build_once(tmp_path / "deep" / "cache", "key", builder)
    assert (facts, builder.calls) == ({"number": 7}, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "b.txt", MANIFEST]
    assert build_once(tmp_path / "deep" / "cache", "key", builder) == (folder, facts)
    assert builder.calls == 1
    build_once(tmp_path / "deep" / "cache", "other", builder)
    assert builder.calls == 2


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "flipped byte": lambda folder: flip(folder / "a.bin", 100),
    "truncated": lambda folder: os.truncate(folder / "a.bin", 100),
    "emptied": lambda folder: os.truncate(folder / "b.txt", 0),
    "file missing": lambda folder: (folder / "b.txt").unlink(),
    "manifest missing": lambda folder: (folder / MANIFEST).unlink(),
    "manifest emptied": lambda folder: os.truncate(folder / MANIFEST, 0),
    "manifest is a list": lambda folder: (folder / MANIFEST).write_text("[1]"),
    "manifest without files": lambda folder: (folder / MANIFEST).write_text('{"facts": {}}'),
    "fact flipped": lambda folder: flip(folder / MANIFEST, (folder / MANIFEST).read_bytes().index(b"7")),
    "emptied folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_rebuilt_when_damaged(tmp_path, damage):
    builder = Builder()
    folder, _ = build_once(tmp_path, "key", builder)
    (folder / "stray.txt").write_text("of a damaged build")
    DAMAGE[damage](folder)
    assert build_once(tmp_path, "key", builder) == (folder, {"number": 7})
    assert builder.calls == 2
    assert (folder / "a.bin").read_bytes() == bytes(range(256))
    assert not (folder / "stray.txt").exists()
    build_once(tmp_path, "key", builder)
    assert builder.calls == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DataError])
def test_nothing_is_left_after_an_exception(tmp_path, error):
    def build(folder):
        (folder / "half.bin").write_bytes(b"x")
        raise error("stop")

    with pytest.raises(error, match="stop"):
        build_once(tmp_path, "key", build)
    assert visible(tmp_path) == []
    builder = Builder()
    build_once(tmp_path, "key", builder)
    assert builder.calls == 1


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"the cache .* cannot be written .*--data\.cache_dir"):
        build_once(tmp_path / "file" / "cache", "key", Builder())

    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        build_once(tmp_path / "cache", "key", full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_whatever_library_writes(tmp_path):
    def full(folder):
        tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save("/dev/full")

    with pytest.raises(DataError, match=r"the cache .* cannot be written \(No space left on device\): free space"):
        build_once(tmp_path / "cache", "key", full)
    with (
        pytest.raises(OSError, match=r"No space left on device: .*run/tokenizer"),
        replacing_folder(tmp_path / "run/tokenizer"),
    ):
        full(None)


def build_slowly(root, barrier, results):
    def build(folder):
        (folder / f"built-by-{os.getpid()}").write_text("x")
        time.sleep(0.3)
        (folder / "data").write_text("whole")
        return {"pid": os.getpid()}

    barrier.wait()
    folder, facts = build_once(Path(root), "key", build)
    results.put((facts["pid"], (folder / "data").read_text()))


def test_several_processes_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=build_slowly, args=(tmp_path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(set(found)) == 1
    assert len(list((tmp_path / "key").glob("built-by-*"))) == 1


def hang(root, started):
    def build(folder):
        (folder / "half.bin").write_bytes(b"x")
        started.set()
        time.sleep(60)

    build_once(Path(root), "key", build)


def test_a_killed_builder_is_taken_over(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=hang, args=(tmp_path, started))
    process.start()
    assert started.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert len(visible(tmp_path)) == 1  # its scratch folder
    builder = Builder()
    build_once(tmp_path, "key", builder)
    assert builder.calls == 1
    assert visible(tmp_path) == ["key"]


def test_keys_and_digests(tmp_path):
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_manifest_form(tmp_path):
    folder, _ = build_once(tmp_path, "key", Builder())
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"]["a.bin"] == {"bytes": 256, "sha256": file_digest(folder / "a.bin")}


def test_default_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("GENRE_LIGHTNING_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.delenv("GENRE_LIGHTNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "genre_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_cache_dir() == Path.home() / ".cache" / "genre_lightning"
    monkeypatch.setenv("GENRE_LIGHTNING_CACHE", "~/films")
    assert default_cache_dir() == Path.home() / "films"
    assert DataOptions("films.csv", cache_dir=Path("~/films")).cache == Path.home() / "films"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("GENRE_LIGHTNING_CACHE")
    with pytest.raises(ConfigError, match="name a folder with GENRE_LIGHTNING_CACHE"):
        default_cache_dir()
