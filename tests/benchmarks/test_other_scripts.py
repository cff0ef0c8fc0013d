"""The benchmark scripts beside training, at small size: they name functions of the package, which move."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import SMALL

from genre_lightning.__main__ import main

ROOT = Path(__file__).parents[2] / "benchmarks"


def run(script, *words):
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.thorough
def test_start_up(sample_csv, encoder_dir, tmp_path):
    shown = run("start_up.py", sample_csv, encoder_dir, "--starts", 1, "--out", tmp_path)
    assert "| films read and audited |" in shown
    assert (tmp_path / "start_up.md").read_text() in shown


@pytest.mark.thorough
def test_scale(sample_csv, tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIES_CSV", str(sample_csv))
    run("scale.py", "wordpiece", tmp_path / "files", "--rows", 600, "--out", tmp_path)
    assert "600" in (tmp_path / "scale.md").read_text()


@pytest.mark.thorough
def test_decisions_shrinkage_and_tagging(sample_csv, tmp_path):
    run("decisions.py", 400, 5)
    words = [*SMALL, "--trainer.max_epochs=1", "--run_dir", str(tmp_path)]
    assert main(["fit", "--data.csv", str(sample_csv), *words]) == 0
    run("threshold_shrinkage.py", tmp_path / "evaluation/validation/predictions.parquet", "--folds", 2, "--repeats", 1)
    run("tagging.py", tmp_path, sample_csv, "--films", 100, "--rounds", 1)


@pytest.mark.thorough
def test_active_learning(sample_csv, tmp_path):
    words = ["--seeds", 1, "--rounds", 1, "--size", 30, "--start", 60, "--out", tmp_path]
    shown = run("learning/simulate.py", sample_csv, *words)
    assert "| 90 |" in shown
    assert len(json.loads((tmp_path / "active_learning.json").read_text())["rows"]) == 4
    assert (tmp_path / "active_learning.png").is_file()


@pytest.mark.thorough
def test_self_training(sample_csv, encoder_dir, tmp_path):
    words = ["--films", 250, "--max_tokens", 16, "--seeds", 1, "--rounds", 1, "--out", tmp_path]
    shown = run("learning/labels.py", sample_csv, encoder_dir, *words)
    assert "(100%) | teacher |" in shown
    assert len(json.loads((tmp_path / "self_training.json").read_text())["changes"]) == 3


@pytest.mark.thorough
def test_serving_beside_the_wrapper(sample_csv, tmp_path):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    # wide enough for the head of transformers' classifier
    words = [*SMALL, "--trainer.max_epochs=1", "--model.pooling=cls", "--model.architecture.width=64"]
    assert main(["fit", f"--data.csv={sample_csv}", *words, f"--run_dir={tmp_path / 'run'}"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "exported")]) == 0
    words = ["--rounds", 2, "--requests", 40, "--out", tmp_path / "results"]
    shown = run("serving/bench.py", tmp_path / "run", tmp_path / "exported", *words)
    assert (tmp_path / "results" / "serving.md").read_text() == shown
    found = json.loads((tmp_path / "results" / "serving.json").read_text())
    for side in ("serve", "wrapper"):
        assert [found[side][clients]["outcomes"] for clients in ("1", "8", "32")] == [{"200": 80}] * 3
    assert len(found["ratios"]["latency_over_forward"]["rounds"]) == 2


@pytest.mark.thorough
def test_serving_soak(sample_csv, tmp_path):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    assert main(["baseline", "tfidf_nb", f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}"]) == 0
    words = ["--requests", 1000, "--every", 0.05, "--out", tmp_path, "--name", "soak"]
    shown = run("serving/soak.py", tmp_path / "run", *words)
    assert (tmp_path / "soak.md").read_text() == shown
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["model"] == "baseline tfidf_nb"
    assert found["done"] == 1000
    assert found["corrections_stored"] > 0
    assert [one for one, kept in found["aims"].items() if not kept and "memory" not in one] == []
    assert any(name.endswith("killed") for name in found["memory"])


@pytest.mark.thorough
def test_tuning_overhead(sample_csv, encoder_dir, tmp_path):
    words = ["--work", tmp_path / "work", "--trials", 2, "--max_films", 120, "--max_tokens", 16]
    shown = run("tuning/overhead.py", sample_csv, encoder_dir, *words)
    assert "later: " in shown
    assert json.loads((tmp_path / "work" / "overhead.json").read_text())["later"]["overhead_cpu"] > 0
