"""`serve` as a process: what it refuses at its start, workers that die, a reload, and a graceful stop."""

import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from made_runs import make_run, refused

from genre_lightning.__main__ import main

TOKEN = "a" * 20


def test_extra_that_is_missing_is_named(capfd, counting_run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(capfd, ["serve", counting_run], "serve needs fastapi, uvicorn: run", "genre-lightning[serve]")
    refused(capfd, ["demo"], "genre-lightning[serve]")


def test_unfinished_run_and_other_bad_options_are_refused(capfd, tmp_path, counting_run):
    run = make_run(tmp_path / "run", status="evaluating")
    refused(capfd, ["serve", run], "has not finished (evaluating)")
    refused(capfd, ["serve", tmp_path], "is not a run directory")
    refused(capfd, ["serve", counting_run, "--queue", tmp_path / "none.csv"], "does not exist")
    refused(capfd, ["serve", counting_run, "--port", "70000"], "70000")
    refused(capfd, ["serve", counting_run, "--token_file", tmp_path / "none"], "cannot be read")
    refused(capfd, ["serve", counting_run, "--devices", ","], "--devices")
    for host in ("203.0.113.7", "exa..mple", "a" * 70):
        refused(capfd, ["serve", counting_run, "--host", host], "give an address of this machine")
    refused(capfd, ["serve", counting_run, "--limit_queue", "10"], "--limit_queue is 10", "64 films: raise it")


def test_demo_keeps_its_run_and_makes_a_queue(tmp_path, counting_run, monkeypatch):
    served = []
    monkeypatch.setattr("genre_lightning.commands.demo.run_service", lambda options: served.append(options) or 0)
    folder = tmp_path / "demo"
    shutil.copytree(counting_run, folder / "run")
    assert main(["demo", "--folder", str(folder), "--port", "0"]) == 0
    [options] = served
    assert options.run == folder / "run"
    assert len((folder / "queue.csv").read_text().splitlines()) > 20
    queued = (folder / "queue.csv").read_bytes()
    assert main(["demo", "--folder", str(folder)]) == 0
    assert (folder / "queue.csv").read_bytes() == queued  # people may have filled it in


def test_port_in_use_is_refused(capfd, counting_run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(capfd, ["serve", counting_run, "--port", port], f"--port {port} of --host 127.0.0.1", "give another")


class Process:
    """A service in processes of its own."""

    def __init__(self, run, *options):
        words = [sys.executable, "-m", "genre_lightning", "serve", str(run), "--port", "0", "--similar", "0", *options]
        environment = {**os.environ, "GENRE_LIGHTNING_ADMIN_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines, self._news = [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(re.search(r"http://127.0.0.1:(\d+) ", self.line("serving"))[1])

    def _read(self):
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def line(self, words, count=1):
        """The line with the words, once it has come `count` times."""
        with self._news:
            assert self._news.wait_for(lambda: sum(words in line for line in self.lines) >= count, 120), self.lines
            return [line for line in self.lines if words in line][count - 1]

    def post(self, path, body, connection=None):
        if connection is None:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=100)) as connection:
                return self.post(path, body, connection)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.fixture
def service(tmp_path, counting_run):
    link = tmp_path / "current"
    link.symlink_to(counting_run)
    service = Process(link)
    yield service
    service.process.kill()
    service.process.wait()
    service.process.stderr.close()


@pytest.mark.slow
def test_workers_are_replaced_and_the_stop_is_graceful(service, tmp_path, counting, encoder_run, encoder):
    stop, answers = threading.Event(), []

    def ask():
        with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
            while not stop.wait(0.1):
                answers.append(service.post("/v1/tag", {"text": "A war"}, connection))

    asking = threading.Thread(target=ask)
    asking.start()
    link = tmp_path / "current"
    link.unlink()
    link.symlink_to(encoder_run)
    status, answer = service.post("/v1/reload", {})
    assert (status, answer["checkpoint_sha256"]) == (200, encoder.checkpoint)
    assert service.post("/v1/tag", {"text": "A war"})[1]["checkpoint_sha256"] == encoder.checkpoint
    stop.set()
    asking.join()
    assert {status for status, _ in answers} == {200}  # none was lost
    assert {answer["checkpoint_sha256"] for _, answer in answers} <= {counting.checkpoint, encoder.checkpoint}

    link.unlink()
    link.symlink_to(tmp_path)
    status, answer = service.post("/v1/reload", {})
    assert (status, answer["type"]) == (409, "urn:genre-lightning:problem:not-reloaded")
    assert "is not a run directory" in answer["detail"]
    assert str(tmp_path) not in answer["detail"]
    link.unlink()
    link.symlink_to(encoder_run)

    ready = [json.loads(line) for line in service.lines if '"worker ready"' in line]
    os.kill(ready[-1]["pid"], signal.SIGKILL)
    service.line('"worker ended"')
    service.line('"worker ready"', count=len(ready) + 1)
    assert service.post("/v1/tag", {"text": "A war"})[0] == 200

    stop.clear()
    answers.clear()
    body = {"films": [{"text": "A war " * 2000}] * 64}
    last = threading.Thread(target=lambda: answers.append(service.post("/v1/tag", body)))
    last.start()
    stop.wait(0.3)
    service.process.send_signal(signal.SIGTERM)
    last.join()
    assert service.process.wait(60) == 0
    assert answers[0][0] == 200
    assert not [line for line in service.lines if "Traceback" in line]
