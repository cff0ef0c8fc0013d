"""Real models that the environment names."""

import os
from pathlib import Path

import pytest


def _place(name):
    if not os.environ.get(name):
        pytest.skip(f"{name} is not set")
    return Path(os.environ[name])


@pytest.fixture(scope="session")
def llama_tiny() -> Path:
    """A directory with a small real Llama."""
    return _place("LLAMA_TINY")


@pytest.fixture(scope="session")
def llama_tokenizer() -> Path:
    """A directory with Llama 2's tokenizer."""
    return _place("LLAMA_TOKENIZER")
