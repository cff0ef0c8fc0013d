"""Several workers on one machine; a shell script stands for the interpreter."""

import os
import signal
import threading

import pytest

from genre_lightning.distributed.signals import FLAG, stopping_on_signals
from genre_lightning.errors import ConfigError, GenreLightningError, PreemptedError
from genre_lightning.tuning import finish, parallel, trials
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


def test_each_worker_has_devices_and_its_lines_are_marked(worker, tmp_path, capfd):
    folder = worker('echo "$@ on $CUDA_VISIBLE_DEVICES"; test "$CUDA_VISIBLE_DEVICES" = 3,4')
    assert parallel.run_workers(folder, 2, ["1,2", "3,4"], ["--max_failures", "1"], 2) == [1, 0]
    lines = sorted(capfd.readouterr().err.splitlines())
    words = f"-m genre_lightning tune --study {tmp_path} --worker --devices_per_trial 2 --max_failures 1"
    assert lines == [f"[0] {words} on 1,2", f"[1] {words} on 3,4"]


def test_finalists_go_to_as_many_workers_as_there_are(worker, tmp_path, monkeypatch, capfd):
    left = [("trial 3", 1), ("trial 5", 1)]
    monkeypatch.setattr(finish, "_repeats_left", lambda *arguments: left)
    folder = worker('echo "$@ on $CUDA_VISIBLE_DEVICES"')
    finish.repeat_finalists(folder, 2, 2, 2, 3, ["0,1", "2,3", "4,5"])
    words = (
        f"-m genre_lightning tune --study {tmp_path} --worker --devices_per_trial 2 --finish --finalists 2 --seeds 2"
    )
    assert sorted(capfd.readouterr().err.splitlines()) == [f"[0] {words} on 0,1", f"[1] {words} on 2,3"]
    folder = worker('echo "lower model.lr"; test "$CUDA_VISIBLE_DEVICES" = 0,1')
    with pytest.raises(parallel.WorkersError, match="status 0, 1: fix what they report") as caught:
        finish.repeat_finalists(folder, 2, 2, 2, 2, ["0,1", "2,3"])
    assert caught.value.exit_status == 1
    left.clear()
    finish.repeat_finalists(worker("exit 9"), 2, 2, 1, 2, ["0", "1"])


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


@pytest.mark.parametrize(
    ("workers", "each", "found"),
    [(2, 1, ["4", "5"]), (2, 2, ["4,5", "6,7"]), (1, 3, ["4,5,6"]),
     (3, 2, "--parallel 3 with --devices_per_trial 2 needs 6 devices"), (5, 1, "--parallel 5 needs 5"),
     (1, 5, "--devices_per_trial 5 needs 5")],
)  # fmt: skip
def test_devices_of_each_worker(workers, each, found, monkeypatch):
    monkeypatch.setattr(parallel, "accelerator_of", lambda name: "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    if isinstance(found, list):
        assert parallel.worker_devices("gpu", workers, each) == found
        return
    with pytest.raises(ConfigError, match=f"{found}.*CUDA_VISIBLE_DEVICES=4,5,6,7: give at most 4"):
        parallel.worker_devices("gpu", workers, each)


def test_ranks_of_a_failed_trial_say_why(worker):
    worker('echo "genre-lightning: lower model.lr" >&2; exit 1')
    with pytest.raises(GenreLightningError, match=r"lower model\.lr"):
        trials.run_ranks(["tune"], 2)
