"""A rank that does not answer is named, and holds up no signal."""

import os
import signal
import time

import pytest
from ranks import run_on_ranks
from torch.distributed import HashStore

from genre_lightning.distributed import heartbeats
from genre_lightning.distributed.heartbeats import LIMIT, Heartbeats, RankWatch, Silence, limit_seconds
from genre_lightning.distributed.signals import StopFlag
from genre_lightning.errors import ConfigError


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def three():
    """Three ranks over one store, with one clock."""
    store, clock = HashStore(), Clock()
    ranks = [Heartbeats(store, rank, 3, pulse=2.0, clock=clock) for rank in range(3)]

    def live(seconds, beating, looking=(0, 1, 2)):
        for _ in range(int(seconds)):
            clock.now += 1
            for rank in beating:
                ranks[rank].beat()
            for rank in looking:
                ranks[rank].silence()

    live(3, (0, 1, 2))
    return ranks, live


def test_ranks_that_beat_are_not_silent(three):
    ranks, live = three
    live(60, (0, 1, 2))
    assert [each.silence() for each in ranks] == [None, None, None]


@pytest.mark.parametrize("silent", [1, 2])
def test_all_hear_of_a_silent_rank(three, silent):
    ranks, live = three
    others = [rank for rank in range(3) if rank != silent]
    live(30, others)
    for rank in others:
        found = ranks[rank].silence()
        assert found.rank == silent
        assert 28 <= found.seconds <= 31
    live(3, (0, 1, 2))
    assert [each.silence() for each in ranks] == [None, None, None]


def test_a_silent_first_rank_is_named_by_the_others(three):
    ranks, live = three
    live(30, (1, 2))
    assert [ranks[rank].silence() for rank in (1, 2)] == [Silence(0, 30), Silence(0, 30)]


def test_a_store_that_does_not_answer_is_the_first_ranks(three):
    ranks, live = three
    live(30, ())  # each waits in its own call
    assert ranks[1].silence() == Silence(0, 30)


def test_a_rank_that_was_stopped_itself_accuses_nobody(three):
    ranks, live = three
    live(30, (1, 2), looking=(1, 2))
    assert ranks[0].silence() is None


def test_a_rank_that_is_still_loading_is_not_silent():
    clock = Clock()
    first = Heartbeats(HashStore(), 0, 2, pulse=2.0, clock=clock)
    for _ in range(100):
        clock.now += 1
        first.beat()
    assert first.silence() is None


class Beats:
    rank, others, pulse, now = 0, [1], 2.0, None

    def silence(self):
        return self.now

    def beat(self):
        pass


def test_silence_is_reported_once_and_so_is_its_end(capfd):
    beats = Beats()
    watch = RankWatch(beats, limit=30, flag=StopFlag())
    said = []
    for silence in (Silence(1, 29), Silence(1, 31), Silence(1, 40), None, None):
        beats.now = silence
        watch.look()
        said.append(capfd.readouterr().err)
    assert said[1].startswith("genre-lightning: rank 1 has not answered for 31 s")
    assert said[3] == "genre-lightning: rank 1 answers again\n"
    assert [said[place] for place in (0, 2, 4)] == ["", "", ""]


@pytest.mark.parametrize(("seconds", "ends"), [(9, False), (10, True)])
def test_a_rank_that_is_asked_to_stop_does_not_wait_for_a_silent_one(monkeypatch, seconds, ends):
    ended = []
    monkeypatch.setattr(heartbeats, "exit_at_once", lambda status, line: ended.append((status, line)))
    beats, flag = Beats(), StopFlag()
    beats.now = Silence(1, seconds)
    watch = RankWatch(beats, limit=30, flag=flag)
    watch.look()
    assert ended == []
    flag.signal = "SIGTERM"
    watch.look()
    assert bool(ended) is ends
    if ends:
        assert ended[0][0] == 1
        assert "asked to stop (SIGTERM), and rank 1 has not answered for 10 s" in ended[0][1]


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("45.5", 45.5)])
def test_the_limit_is_an_environment_variable(monkeypatch, text, seconds):
    monkeypatch.setenv(LIMIT, text)
    assert limit_seconds() == seconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "soon"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(ConfigError, match=LIMIT):
        limit_seconds()


def until(condition):
    """Waits for what other processes bring about; the test's own limit ends it if they do not."""
    while not condition():
        time.sleep(0.05)


def stop_a_rank(rank):
    from torch.distributed import distributed_c10d

    os.environ[LIMIT] = "1"
    store = distributed_c10d._get_default_store()
    store.set(f"pid/{rank}", str(os.getpid()))
    heartbeats.watch_heartbeats(rank, 2)
    watch = heartbeats._WATCH[0]
    if rank == 0:
        other = int(store.get("pid/1"))
        until(lambda: watch.beats._seen.get(1, (b"", 0))[0])
        os.kill(other, signal.SIGSTOP)
        until(lambda: watch._named == 1)
        os.kill(other, signal.SIGCONT)
        until(lambda: watch._named is None)
        store.set("done", "1")
    store.get("done")
    heartbeats.end_heartbeats()
    assert heartbeats._WATCH == []


def test_a_stopped_process_is_named_and_found_again():
    run_on_ranks(stop_a_rank, 2)
