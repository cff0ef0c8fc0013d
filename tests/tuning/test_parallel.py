"""Several workers on one machine; a shell script stands for the interpreter."""

import os
import signal
import threading

import pytest

from genre_lightning.distributed.signals import FLAG, stopping_on_signals
from genre_lightning.errors import ConfigError, PreemptedError
from genre_lightning.tuning import parallel
from genre_lightning.tuning.study import StudyDirectory


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Have workers run a script; give what sets it."""

    def set_script(text):
        (tmp_path / "python").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(parallel.sys, "executable", str(tmp_path / "python"))
        return StudyDirectory(tmp_path)

    return set_script


def test_each_worker_has_a_device_and_its_lines_are_marked(worker, tmp_path, capfd):
    folder = worker('echo "$@ on $CUDA_VISIBLE_DEVICES"; test "$CUDA_VISIBLE_DEVICES" = 3')
    assert parallel.run_workers(folder, 2, ["2", "3"], ["--max_failures", "1"]) == [1, 0]
    lines = sorted(capfd.readouterr().err.splitlines())
    words = f"-m genre_lightning tune --study {tmp_path} --worker --max_failures 1"
    assert lines == [f"[0] {words} on 2", f"[1] {words} on 3"]


def test_a_stop_signal_waits_until_the_workers_have_saved(worker, tmp_path):
    folder = worker(f"trap 'touch {tmp_path}/saved-$CUDA_VISIBLE_DEVICES; exit 75' TERM\n"
                    f"touch {tmp_path}/up-$CUDA_VISIBLE_DEVICES; while :; do sleep 0.05; done")  # fmt: skip

    def stop():
        while len(list(tmp_path.glob("up-*"))) < 2:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    with stopping_on_signals(at_once=True):
        thread.start()
        with pytest.raises(PreemptedError, match="SIGTERM"):
            parallel.run_workers(folder, 2, ["0", "1"], [])
    thread.join()
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]
    assert not FLAG.waiting


def test_more_workers_than_gpus_are_refused(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_text("trainer: {accelerator: gpu}\n")
    monkeypatch.setattr(parallel, "accelerator_of", lambda name: "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert parallel.check_parallel(StudyDirectory(tmp_path), 2) == ["1", "2"]
    with pytest.raises(ConfigError, match="this machine has 2"):
        parallel.check_parallel(StudyDirectory(tmp_path), 3)
