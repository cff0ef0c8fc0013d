"""The supervisor's decisions, with workers that the test plays: what they load, when they end, who is answered."""

import socket
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from genre_lightning.serving import supervisor as module
from genre_lightning.serving.counters import Counters
from genre_lightning.serving.options import ServeOptions
from genre_lightning.serving.supervisor import Supervisor


class Played:
    """A worker: the test speaks at the other end of its pipe."""

    def __init__(self, number, run, slot):
        self.number, self.run, self.slot = number, run, slot
        here, self.pipe = Pipe()
        self.alive, self.ended = socket.socketpair()
        process = SimpleNamespace(
            is_alive=lambda: not self.dead, sentinel=self.alive, pid=1, exitcode=-9,
            terminate=lambda: None, kill=lambda: None, join=lambda seconds: None,
        )  # fmt: skip
        self.dead = False
        self.worker = module._Worker(number, process, here, Counters([0.0] * 9999, slot))

    def die(self):
        self.dead = True
        self.ended.close()

    def close(self):
        for one in (self.alive, self.ended, self.pipe, self.worker.pipe):
            one.close()

    def messages(self):
        found = []
        while self.pipe.poll():
            found.append(self.pipe.recv())
        return found


class Service(Supervisor):
    """Three workers whose starts are noted in `started`."""

    def __init__(self, run, started):
        self.started = started
        super().__init__(ServeOptions(run, workers=3), None, lambda: None)
        for number in range(3):
            self._workers[number] = self._start(number, self._run)
        self.become_ready("old")

    def _start(self, number, run):
        former = self._workers.get(number)
        played = Played(number, run, 3 + number if former and former.counters.slot == number else number)
        self.started.append(played)
        return played.worker

    def begin_reload(self, asked):
        """A worker asks for a reload, which begins."""
        asked.pipe.send(("reload",))
        self._step()

    def become_ready(self, checkpoint, most=99):
        """The workers that were started say that they are ready, one after the other."""
        place = 0
        while place < len(self.started) and most:
            one = self.started[place]
            if not one.worker.is_ready and not one.dead:
                one.pipe.send(("ready", checkpoint))
                self._step()
                most -= 1
            place += 1

    def fail(self, line):
        one = self.started[-1]
        one.pipe.send(("failed", line, 2))
        one.die()
        self._step()

    def serving(self):
        return [self._workers[number].checkpoint for number in range(3) if number in self._workers]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_run", lambda path: None)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("a")

    def move(name):
        (tmp_path / "current").unlink()
        (tmp_path / "current").symlink_to(name)

    started = []
    yield SimpleNamespace(
        service=Service(tmp_path / "current", started), move=move, of=lambda name: (tmp_path / name).resolve()
    )
    for one in started:
        one.close()


def test_a_reload_replaces_all_and_answers_who_asked(place):
    service = place.service
    asked = service.started[0]
    place.move("b")
    service.begin_reload(asked)
    service.become_ready("new", most=2)
    assert service.serving() == ["new", "new", "old"]
    assert asked.messages() == []  # it ends after its answer
    service.become_ready("new")
    assert service.serving() == ["new"] * 3
    assert asked.messages() == [("reloaded", None, "new"), ("drain",)]
    assert service.started[1].messages() == [("drain",)]
    assert [one.run for one in service.started[3:]] == [place.of("b")] * 3
    assert [one.slot for one in service.started] == [0, 1, 2, 3, 4, 5]


def test_a_reload_during_a_reload_follows_it(place):
    service = place.service
    first, second = service.started[0], service.started[2]
    place.move("b")
    service.begin_reload(first)
    place.move("c")
    service.begin_reload(second)
    service.become_ready("b", most=3)
    assert first.messages() == [("reloaded", None, "b"), ("drain",)]
    assert second.messages() == []
    service._step()
    service.become_ready("c")
    assert service.serving() == ["c"] * 3
    assert second.messages() == [("reloaded", None, "c"), ("drain",)]
    assert [one.run for one in service.started[6:]] == [place.of("c")] * 3


def test_a_reload_that_fails_half_way_goes_back(place):
    service = place.service
    asked = service.started[1]
    place.move("b")
    service.begin_reload(asked)
    service.become_ready("new", most=1)
    service.fail("no checkpoint")
    assert asked.messages() == []
    assert service.started[-1].run == place.of("a")
    service.become_ready("old")
    assert service.serving() == ["old"] * 3
    # it was never replaced
    assert asked.messages() == [("reloaded", "the former run stays: no checkpoint", "old")]
    assert service._run == place.of("a")


def test_a_way_back_that_fails_says_who_serves_what(place):
    service = place.service
    asked = service.started[2]
    place.move("b")
    service.begin_reload(asked)
    service.become_ready("new", most=1)
    service.fail("no checkpoint")
    service.fail("nor this")
    assert service.serving() == ["new", "old", "old"]
    reason = "no checkpoint; workers 0 serve the new one (nor this): start the service again"
    assert asked.messages() == [("reloaded", reason, "new")]


def test_a_worker_that_dies_comes_back_with_the_run_of_the_last_reload(place):
    service = place.service
    place.move("b")
    service.started[1].die()
    service._step()
    service._step()
    assert service.started[-1].run == place.of("a")
    service.become_ready("old")

    service._hang_up(1, None)
    service._step()
    service.become_ready("new", most=1)
    replaced = service.started[4]
    replaced.die()
    service._step()
    service._step()
    assert (service.started[-1].number, service.started[-1].run) == (0, place.of("b"))


def test_ctrl_c_while_workers_load_is_not_a_failure(place):
    service = place.service
    service._announced = False
    service.started[0].die()
    service._stop(2, None)
    service._step()  # would raise ServiceError
