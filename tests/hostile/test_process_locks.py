"""Locks of run directories: one process at a time on any file system."""

import errno
import fcntl
import os

import pytest
from filelock import FileLock

from genre_lightning import locks
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_flock_a_lease_keeps_others_out(run, monkeypatch, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 0.3)
    with run.locked():
        assert run.is_locked()
        with pytest.raises(ConfigError, match="another process is working in"):
            run.locked(patience=0)
    assert not run.is_locked()
    run.locked().release()


def test_a_lock_that_is_not_a_file_is_one_line(run):
    (run.path / ".lock").mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"no lock can be made at .*\.lock \(Is a directory\): check its permissions and remove"
    ):
        run.locked()


def test_a_lock_that_is_a_link_is_not_followed(run, tmp_path):
    run.path.mkdir()
    (run.path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="no lock can be made at"):
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
