"""What standard streams are connected to, and what the machine lacks, ends no work with a traceback."""

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys

import pytest

from genre_lightning import streams
from genre_lightning.__main__ import main
from genre_lightning.distributed.checkpoint.files import not_written
from genre_lightning.errors import DataError
from genre_lightning.failures import machine_error
from genre_lightning.streams import GuardedStream, OutputError, ReaderGoneError

SAMPLE = ["data", "sample", "sample.csv", "--films", "100"]


def ran(script, place, **environment):
    """Runs a line of shell in which $G is the command; returns its exit status and what it printed."""
    program = {"G": f"{sys.executable} -m genre_lightning"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=place, env={**os.environ, **program, **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception" not in done.stderr, done.stderr
    return done


def test_a_reader_that_went_away_had_enough(tmp_path):
    # the reader is gone before the first line
    assert ran("(sleep 0.3; $G --help) | exec 0<&-", tmp_path).returncode == 0


def test_a_full_output_is_a_failure(tmp_path):
    done = ran("$G --help > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "genre-lightning: the standard output cannot be written (No space left on device): "
        "redirect it to where there is space"
    ]


def test_closed_streams_are_not_an_obstacle(tmp_path):
    done = ran(f"$G {' '.join(SAMPLE)} <&- >&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "sample.csv").stat().st_size > 10_000
    assert (tmp_path / "sample.csv").read_bytes().startswith(b"adult,")


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(descriptor)


def test_a_log_without_a_reader_ends_no_work(pipe):
    reader, writer = pipe
    os.close(reader)
    stream = io.TextIOWrapper(io.BufferedWriter(GuardedStream(writer, lenient=True)), line_buffering=True)
    for number in range(3):
        print("step", number, file=stream)
    assert isinstance(stream.buffer.raw.failure, BrokenPipeError)


def test_an_output_without_a_reader_ends_a_command_once(pipe):
    reader, writer = pipe
    os.close(reader)
    stream = io.TextIOWrapper(io.BufferedWriter(GuardedStream(writer, lenient=False)), line_buffering=True)
    with pytest.raises(ReaderGoneError):
        print("genres", file=stream)
    print("the rest", file=stream)
    stream.flush()


def test_a_command_whose_results_are_files_ends_its_work_first(monkeypatch):
    full = os.open("/dev/full", os.O_WRONLY)
    stream = io.TextIOWrapper(io.BufferedWriter(GuardedStream(full, lenient=False)), line_buffering=True)
    monkeypatch.setattr(sys, "stdout", stream)
    streams.keep_working()
    print("results")
    with pytest.raises(OutputError, match="No space left on device"):
        streams.finish_output(0)
    assert streams.finish_output(75) == 75
    os.close(full)


@pytest.mark.parametrize("text", ["café", "🎬", "\udc80", "plain"])
def test_what_an_encoding_lacks_stays_the_same_json(text, pipe):
    streams.codecs.register_error(streams._ESCAPES, streams._escapes)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=streams._ESCAPES)
    print(json.dumps({"text": text}, ensure_ascii=False), file=stream, flush=True)
    assert json.loads(stream.buffer.getvalue().decode("ascii"))["text"] == text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (RuntimeError("can't start new thread"), "out of memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly"), "data.num_workers=0"),
        (RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed."), "data.num_workers=0"),
        (RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that dataloader's "
                      "workers are out of shared memory."), "/dev/shm"),
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), "a.csv: No space left on device: free space"),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), "a.csv: Permission denied: fix its permissions"),
        (RuntimeError("unable to open shared memory object </torch_1> in read-write mode"), "/dev/shm"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_one_line(error, words, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("genre_lightning.cli.run", fail)
    assert main(["status", "x"]) == (2 if isinstance(error, PermissionError) else 1)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err


def test_a_worker_that_dies_during_a_save_is_not_a_full_disk(tmp_path):
    error = RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed.")
    assert "data.num_workers=0" in str(not_written(tmp_path / "last.ckpt", error))
    assert "free space" in str(not_written(tmp_path / "last.ckpt", OSError(errno.ENOSPC, "No space left on device")))


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), KeyError("x"), OSError(errno.EBADF, "Bad file descriptor")]
)
def test_mistakes_of_the_program_stay_what_they_are(error):
    assert machine_error(error) is None


@pytest.fixture
def heeding_ctrl_c():
    """A shell starts what runs in the background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("genre_lightning.cli.check_launch", interrupted)
    for words in (["tag", "x"], ["baseline", "tfidf_nb"], ["ensemble"], ["plan"], ["compare"], ["report", "x"]):
        assert main(words) == 130
        assert capsys.readouterr() == ("", "genre-lightning: interrupted\n")


def test_ctrl_c_ends_the_process_at_once_from_the_first_line_on(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("genre_lightning.__main__.guard_streams", lambda: None)
    monkeypatch.setattr("genre_lightning.__main__.watching_signals", interrupted)
    monkeypatch.setattr("genre_lightning.__main__.exit_at_once", lambda status, line: sys.exit(f"{line} {status}"))
    with pytest.raises(SystemExit, match="interrupted 130"):
        main()


def test_errors_of_data_are_not_errors_of_the_machine():
    assert machine_error(DataError("out of memory.csv is empty")) is None
