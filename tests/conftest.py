"""What all tests share: a cache of their own, no network, one thread, quick plots, and files that some need."""

import os
from pathlib import Path

import pytest
import torch
from quick_figures import write_pixels

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.evaluation.plots import figures

# the hub's client reads it when a test module imports it, which is before any fixture
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _apart_from_the_user(tmp_path_factory):
    """One cache for the session, as module fixtures train too; its folders are named by their content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENRE_LIGHTNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "offline")
        torch.set_num_threads(1)  # the models are tiny: a second thread costs more than it does
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_figures", write_pixels)
        yield


@pytest.fixture(scope="session")
def sample_csv(tmp_path_factory) -> Path:
    """The embedded sample with few films; read only."""
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=300, seed=0)


@pytest.fixture(scope="session")
def movies_csv() -> Path:
    """The real movies file."""
    return _from_environment("MOVIES_CSV")


@pytest.fixture(scope="session")
def encoder_dir() -> Path:
    """A directory with a real pretrained encoder."""
    return _from_environment("ENCODER_DIR")


@pytest.fixture(scope="session")
def llama_tiny() -> Path:
    """A directory with a small real Llama."""
    return _from_environment("LLAMA_TINY")


@pytest.fixture(scope="session")
def llama_tokenizer() -> Path:
    """A directory with Llama 2's tokenizer."""
    return _from_environment("LLAMA_TOKENIZER")


@pytest.fixture(scope="session")
def llama_real() -> Path:
    """A directory with a real instruction-tuned decoder of the Llama architecture."""
    return _from_environment("LLAMA_REAL")


def _from_environment(name: str) -> Path:
    path = os.environ.get(name)
    if not path:
        pytest.skip(f"{name} is not set")
    return Path(path)
