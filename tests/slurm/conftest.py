"""The cluster of cluster.sh, and what the tests ask it."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@dataclass
class Cluster:
    """Commands of the cluster, and the environment that jobs inherit.

    Attributes:
        place: Folder of the tests' files; its name has a space.
    """

    place: Path
    environment: dict[str, str]

    def call(self, *command, status=0, **environment):
        """What a command says, which must end with the status."""
        done = subprocess.run(
            [str(word) for word in command], cwd=PROJECT, env={**self.environment, **environment},
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def genre_lightning(self, *arguments, status=0, **environment):
        """What the product's own command says."""
        return self.call(sys.executable, "-m", "genre_lightning", *arguments, status=status, **environment)

    def submit(self, run_dir, *options, **environment):
        """Submits a run by the product's command, and returns the job's id."""
        said = self.genre_lightning("submit", f"--run_dir={run_dir}", "--gpus-per-node=0", *options, **environment)
        return re.match(r"job (\d+) is queued", said)[1]

    def job(self, job):
        """What scontrol shows of a job."""
        shown = self.call("scontrol", "show", "job", job)
        return dict(re.findall(r"(\w+(?:/\w+)?[:\w]*)=(\S*)", shown.split("\n\n")[0]))

    def wait(self, what, condition, seconds=240):
        """The first true value of a condition; every half a second is asked for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.5)
        logs = "\n".join(f"--- {log}\n{log.read_text()}" for log in self.place.rglob("*.log"))
        raise AssertionError(f"{what} did not come: {self.call('squeue')}\n{logs}")

    def end_of(self, job):
        """What scontrol shows of a job when it has ended for good."""

        def ended():
            facts = self.job(job)
            return facts if facts["JobState"] in ENDED else None

        return self.wait(f"the end of job {job}", ended)

    def said(self, log, text, times=1):
        """Waits until a job's log has a text n times."""
        self.wait(f"{text!r} in {log}", lambda: log.is_file() and log.read_text().count(text) >= times)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The test cluster; never one that has another purpose."""
    if "SLURM_TEST_CLUSTER" not in os.environ or shutil.which("sbatch") is None:
        pytest.skip('no test cluster: eval "$(tests/slurm/cluster.sh up)" starts one')
    place = tmp_path_factory.mktemp("a cluster")
    # stands for the interpreter of the batch scripts, with a path that needs quotes
    rank = place / "python that holds"
    rank.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "held.py"}" "$@"\n')
    rank.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment = {
        **inherited, "GENRE_LIGHTNING_PYTHON": str(rank), "GENRE_LIGHTNING_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(PROJECT),
    }  # fmt: skip
    return Cluster(place, environment)
