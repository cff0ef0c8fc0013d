"""What a command leaves unloaded on its way to the first step, since each of these takes as long as a second."""

import json
import subprocess
import sys

import pytest
from small_run import SMALL

from genre_lightning.data.sample.generate import write_sample

WATCHED = """
import json, os, sys
from genre_lightning.__main__ import main
from genre_lightning import compat
from genre_lightning.commands import fit

def watched(load=compat.import_lightning):
    load()
    from genre_lightning.training import fit as run
    run.evaluate_run = lambda *_, **__: found()

def found():
    late = {"matplotlib.pyplot", "scipy.signal", "scipy.special", "scipy.optimize", "pandas", "sklearn"}
    print(json.dumps(sorted({"torch", *late} & {*sys.modules})))
    sys.stdout.flush()
    os._exit(0)

fit.import_lightning = watched
sys.exit(main(["fit", *sys.argv[1:]]))
"""
PLOTTED = """
import sys
from genre_lightning.compat import import_lightning
import_lightning()
import lightning.pytorch, torchmetrics
from torchmetrics.utilities.imports import _MATPLOTLIB_AVAILABLE, _SCIPY_AVAILABLE
assert not {"matplotlib", "scipy"} & {*sys.modules}
assert _MATPLOTLIB_AVAILABLE and _SCIPY_AVAILABLE
metric = torchmetrics.MeanMetric()
metric.update(1.0)
print(type(metric.plot()[0]).__name__)
"""


def last_line(code, *words):
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture
def cached(tmp_path):
    sample = write_sample(tmp_path / "sample.csv", films=200, seed=1)
    words = [f"--data.csv={sample}", f"--data.cache_dir={tmp_path / 'cache'}", *SMALL, "--trainer.max_epochs=1"]
    last_line(WATCHED, *words, f"--run_dir={tmp_path / 'first'}")
    return words


def test_a_training_on_cached_films_loads_no_plots_pandas_nor_scipy(cached, tmp_path):
    assert json.loads(last_line(WATCHED, *cached, f"--run_dir={tmp_path / 'second'}")) == ["torch"]


def test_metrics_still_plot_when_a_command_imports_lightning():
    assert last_line(PLOTTED) == "Figure"
