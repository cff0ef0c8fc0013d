"""Locks: one holder at a time, dropped with it on any file system, refused in one line, never awaited without end."""

import errno
import fcntl
import multiprocessing
import os

import pytest

from genre_lightning import locks
from genre_lightning.errors import ConfigError
from genre_lightning.locks import locked


def without_flock(code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    return flock


@pytest.fixture(params=[None, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=str)
def file_system(request, monkeypatch):
    """File systems with flock and without."""
    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", without_flock(request.param))
        monkeypatch.setattr(locks, "LEASE_SECONDS", 0.3)
    return request.param


def test_a_second_process_is_refused_and_a_released_lock_is_free(file_system, tmp_path):
    with locked(tmp_path / ".lock", 0, "busy"), pytest.raises(ConfigError, match=r"^busy: wait$"):
        locked(tmp_path / ".lock", 0.01, "busy: wait")
    locked(tmp_path / ".lock", 0, "busy").release()


def die_locked(path):
    lock = locked(path, 0, "busy")
    os._exit(int(lock is None))


def test_a_dead_holder_on_another_host_is_not_an_obstacle(file_system, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=die_locked, args=(tmp_path / ".lock",))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    for lease in tmp_path.glob("*.lease"):  # of a host that cannot be asked whether the process lives
        lease.write_text(lease.read_text().replace(f"host={os.uname().nodename}", "host=elsewhere"))
    locked(tmp_path / ".lock", 0.01, "busy").release()


def test_a_lock_kept_in_a_variable_ends_with_its_block(file_system, tmp_path):
    lock = locked(tmp_path / ".lock", 0, "busy")
    with lock:
        pass
    locked(tmp_path / ".lock", 0, "busy").release()


def test_a_place_without_locks_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ConfigError, match=r"no lock can be made at .*\.lock \(Is a directory\): check") as refused:
        locked(tmp_path / ".lock", 0, "busy")
    assert "\n" not in str(refused.value)


def test_a_lock_is_seen_where_nothing_may_be_written(tmp_path, monkeypatch):
    place = tmp_path / ".lock"
    assert not locks.is_held(place)
    with locked(place, 0, "busy"):
        assert locks.is_held(place)

    def read_only(lock):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    held = locked(place, 0, "busy")
    monkeypatch.setattr(locks, "_acquired", read_only)
    assert locks.is_held(place)
    held.release()
    assert not locks.is_held(place)


def test_a_group_may_take_the_lock(tmp_path):
    locked(tmp_path / "own", 0, "busy").release()
    locked(tmp_path / "shared", 0, "busy", group_writable=True).release()
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o664
