"""Whole trainers on a pretended GPU: no step waits for it, and nothing is on the wrong device."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "tools" / "gpu" / "fake"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="the pretended GPU is built by g++"),
    # it stands in for private parts of torch
    pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the pretended GPU is of torch 2.13"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="the pretended GPU takes the place of a real one"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return tmp_path_factory.mktemp("fake_cuda")


@pytest.mark.parametrize("suite", ["encoder", "llama"])
@pytest.mark.parametrize("strategy", ["auto", "ddp", "fsdp"])
def test_no_step_waits_for_the_gpu(library, suite, strategy):
    words = ["--suite", suite, "--strategy", strategy, "--waits", "0", "--model.quantization=none"]
    if suite == "encoder":
        words.pop()
    environment = {**os.environ, "FAKE_CUDA_FOLDER": str(library), "PYTHONPATH": str(FOLDER.parents[2])}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "fake_gpu.py"), *words],
        capture_output=True, text=True, check=False, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "most waits of a step that is not logged: 0" in done.stdout
