"""Locks of run directories on file systems that have few of them, or none."""

import errno
import fcntl
import os

import pytest
from filelock import FileLock

from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run")


def lacking(monkeypatch, number, *kinds):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    for kind in kinds:
        monkeypatch.setattr(fcntl, kind, fail)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_flock_the_other_kind_of_lock_is_taken(run, monkeypatch, capfd, number):
    taken = []
    lacking(monkeypatch, number, "flock")
    monkeypatch.setattr(fcntl, "lockf", lambda *arguments: taken.append(arguments))
    run.locked().release()
    assert len(taken) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_any_lock_the_user_is_told(run, monkeypatch, capfd, number):
    lacking(monkeypatch, number, "flock", "lockf")
    # a holder that was killed on another machine leaves the file, and it locks nobody out
    for _ in range(2):
        run.locked()
        assert "has no locks" in capfd.readouterr().err
    assert not run.is_locked()


def test_a_lock_service_that_is_down_is_one_line(run, monkeypatch):
    lacking(monkeypatch, errno.ENOLCK, "flock")
    with pytest.raises(ConfigError, match=r"cannot be locked \(No locks available\)"):
        run.locked()


def test_a_lock_that_is_no_file_is_one_line(run):
    (run.path / ".lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"\.lock cannot be locked \(Is a directory\): delete it"):
        run.locked()


def test_a_lock_that_is_a_link_is_not_followed(run, tmp_path):
    run.path.mkdir()
    (run.path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be locked"):
        run.locked()
    assert not (tmp_path / "elsewhere").exists()


def test_the_wait_for_another_process_is_bounded(run):
    with run.locked():
        assert run.is_locked()
        with pytest.raises(ConfigError, match="another process is working in"):
            run.locked(patience=0.0)
    assert not run.is_locked()
    with FileLock(run.path / ".lock"), pytest.raises(ConfigError, match="another process"):
        run.locked(patience=0.2)
