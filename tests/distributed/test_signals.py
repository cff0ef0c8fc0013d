"""The flag that stop signals set, from a process's first moment on."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from genre_lightning.distributed.signals import BATCH_SIGNALS, STOP_SIGNALS, StopFlag, stopping_on_signals
from genre_lightning.errors import PreemptedError


def test_signals_set_the_flag_while_the_block_runs_and_not_after():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    flag = StopFlag()
    with stopping_on_signals(flag=flag):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert flag.signal == "SIGUSR2"
        with pytest.raises(PreemptedError, match="stopped by SIGUSR2"):
            flag.check()
    assert not flag.raised()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_an_inner_block_keeps_what_the_outer_one_has_seen():
    flag = StopFlag()
    with stopping_on_signals(BATCH_SIGNALS, flag):
        os.kill(os.getpid(), signal.SIGUSR1)
        with stopping_on_signals(flag=flag):
            assert flag.signal == "SIGUSR1"


def test_a_signal_that_comes_while_libraries_load_is_kept(sample_csv, tmp_path):
    arguments = ["fit", f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}", "--model.backbone=small"]
    code = f"""
import importlib, os, signal, sys
from genre_lightning import cli
from genre_lightning.__main__ import main
class Struck:
    def import_module(self, name):
        os.kill(os.getpid(), signal.SIGUSR1)
        return importlib.import_module(name)
cli.importlib = Struck()
sys.exit(main({arguments!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == PreemptedError.exit_status, done.stderr
    assert "stopped by SIGUSR1" in done.stderr


def test_a_process_that_is_ending_is_not_ended_by_a_signal(tmp_path):
    # torchrun sends SIGTERM to the ranks that are still ending when the first of them has
    code = f"""
import os, signal, sys
from genre_lightning import __main__, cli
class Stopped:
    def import_module(self, name):
        from genre_lightning.errors import PreemptedError
        raise PreemptedError("stopped")
cli.importlib = Stopped()
__main__.leave_last_words = lambda error: os.kill(os.getpid(), signal.SIGTERM)
sys.argv[1:] = ["fit", "--run_dir={tmp_path}"]
sys.exit(__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == PreemptedError.exit_status, done.stderr


def test_a_signal_ends_what_has_nothing_to_save_where_it_is(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    flag = StopFlag()
    after = []

    def library():
        with contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
        after.append("it continued")

    with pytest.raises(PreemptedError, match="stopped by SIGTERM"), stopping_on_signals(flag=flag, at_once=True):
        library()
    assert after == []
    assert not flag.raised()


def test_a_signal_waits_for_a_state_to_be_saved_and_for_other_ranks(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    flag = StopFlag()
    with stopping_on_signals(flag=flag, at_once=True):
        flag.waiting = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signal == "SIGTERM"
    with stopping_on_signals(flag=flag, at_once=True):
        monkeypatch.setenv("LOCAL_RANK", "1")
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signal == "SIGTERM"


def held_in_a_library(signals, company):
    """Sends signals to a process whose main thread waits in C, as in a collective; returns its status and last words.

    The switch interval has no thread run before the main one is there: a mutex that it locks twice.
    """
    code = f"""
import ctypes, os, sys, threading, time
from genre_lightning.distributed.signals import FLAG, stopping_on_signals, watching_signals
os.environ |= {company!r}
def send():
    held.acquire()
    sys.setswitchinterval(0.005)
    for number in {[int(number) for number in signals]}:
        os.kill(os.getpid(), number)
        while not FLAG.raised():
            time.sleep(0.01)
with watching_signals(), stopping_on_signals(at_once=True):
    mutex, libc, held = ctypes.create_string_buffer(64), ctypes.CDLL(None), threading.Lock()
    held.acquire()
    threading.Thread(target=send, daemon=True).start()
    sys.setswitchinterval(1000)
    libc.pthread_mutex_lock(mutex)
    held.release()
    libc.pthread_mutex_lock(mutex)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_rank_that_waits_in_a_collective(first):
    status, said = held_in_a_library([first, signal.SIGINT], {"LOCAL_RANK": "0"})
    assert (status, said) == (130, "genre-lightning: interrupted again: ended at once, without saving\n")


def test_a_signal_ends_a_library_that_hangs_with_nothing_to_save():
    status, said = held_in_a_library([signal.SIGTERM], {})
    assert (status, said) == (75, "genre-lightning: stopped by SIGTERM: run the same command again to resume\n")
