"""A dozen moments of small runs struck by signals, kills and exceptions: what comes out is the unbroken run's."""

import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Fault, break_and_finish, make_setting
from outcome import differences
from starts import start_ranks
from worker import ERROR, MOMENTS

from genre_lightning.distributed.signals import stopping_on_signals


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def unbroken(place):
    """Unbroken runs by strategy: one rank, or two by DDP and FSDP."""
    done = {}

    def run(strategy):
        if strategy not in done:
            (place / strategy).mkdir()
            setting = make_setting(place / strategy, strategy, 1 if strategy == "auto" else 2, "encoder", [])
            done[strategy] = setting, break_and_finish(setting, "unbroken", [])
        return done[strategy]

    return run


ONE_RANK = {
    "before training": ["reading the films", "tokenising", "after the cache's rename"],
    "in training": ["after backward:7", "half of a save written:2", "in a step:20:SIGTERM"],
    "in saving": ["before a save's rename:9", "after a save's rename:6", "in validation:1:SIGUSR2"],
    "after training": ["in evaluation:2", "fitting the decision", "writing the results:3"],
}


def fault(words):
    moment, count, signal_name, rank = (*words.split(":"), *("", "", "")[words.count(":") :])
    return Fault(moment, int(count or 1), signal_name or "SIGKILL", int(rank) if rank.isdecimal() else rank or 0)


def struck(setting, name, *faults):
    broken = break_and_finish(setting, name, [fault(words) for words in faults])
    assert broken.strikes() == [True] * len(faults) + [False]
    # the last save is never further away than four steps
    assert max(broken.steps_again()) <= 4
    return broken


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_RANK)
def test_a_run_that_is_struck_ends_as_the_unbroken_one(unbroken, name):
    setting, expected = unbroken("auto")
    broken = struck(setting, name, *ONE_RANK[name])
    assert differences(expected.directory, broken.directory) == []


@pytest.mark.slow
def test_every_moment_comes_in_a_run(unbroken):
    _, broken = unbroken("auto")
    assert set(broken.counts[0]) == set(MOMENTS)


@pytest.mark.slow
def test_ranks_of_ddp_stop_together_and_name_what_they_lost(unbroken):
    setting, expected = unbroken("ddp")
    broken = struck(setting, "struck", f"in a step:12:{ERROR}:1", "between steps:5:SIGTERM:1")
    lost, stopped, last = broken.ends
    assert lost.statuses == [1, 1]
    assert "FaultError: a fault in a step" in lost.said
    assert lost.said.count("Traceback") == 1
    assert "genre-lightning: rank 0 has lost its connection to a rank that died" in lost.said
    assert stopped.statuses == [75, 75]
    assert stopped.said.count("genre-lightning:") == 1
    assert "its state saved: run the same command again to resume" in stopped.said
    assert last.said.count("resuming") == 1
    assert differences(expected.directory, broken.directory) == []


@pytest.mark.slow
def test_ranks_of_fsdp_are_killed_and_resume(unbroken):
    setting, expected = unbroken("fsdp")
    broken = struck(setting, "struck", "after backward:6:SIGKILL:1", "end of an epoch:1:SIGUSR1:all")
    assert differences(expected.directory, broken.directory) == []


@pytest.mark.slow
def test_a_second_process_on_a_run_is_refused_and_one_after_a_dead_holder_is_not(unbroken, tmp_path):
    setting, expected = unbroken("auto")
    journal = tmp_path / "journal"
    environment = {"GENRE_LIGHTNING_CACHE": str(setting.place / "unbroken-cache"), "JOURNAL": str(journal)}
    words = ["fit", f"--data.csv={setting.csv}", f"--run_dir={tmp_path / 'run'}", *setting.options]
    with ThreadPoolExecutor() as thread:
        stopping = {**environment, "FAULT": "in a step:12:SIGSTOP"}
        holder = thread.submit(start_ranks, words, 1, tmp_path / "holder.log", stopping, seconds=300)
        while not (struck := journal.is_file() and [line for line in lines_of(journal) if line["event"] == "strike"]):
            assert not holder.done(), holder.result()
            time.sleep(0.05)
        second = start_ranks(words, 1, tmp_path / "second.log", environment, seconds=300)
        os.kill(struck[0]["process"], signal.SIGKILL)
        assert holder.result().statuses == [-signal.SIGKILL]
    assert second.statuses == [2]
    assert f"another process is working in {tmp_path / 'run'}" in second.said
    assert start_ranks(words, 1, tmp_path / "third.log", environment, seconds=300).statuses == [0]
    assert differences(expected.directory, tmp_path / "run") == []


def lines_of(journal):
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_a_second_interrupt_ends_the_process_at_once():
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=interrupted_twice)
    process.start()
    process.join(60)
    assert process.exitcode == 130


def interrupted_twice():
    with stopping_on_signals() as flag:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.signal == "SIGUSR1"
        os.kill(os.getpid(), signal.SIGINT)
