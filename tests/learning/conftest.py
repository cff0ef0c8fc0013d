"""A small encoder that has been trained for one epoch."""

import pytest
from made_runs import without_page
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample


@pytest.fixture(scope="session")
def trained_encoder(tmp_path_factory):
    """A run directory; its film file is beside it as sample.csv."""
    place = tmp_path_factory.mktemp("small")
    sample = write_sample(place / "sample.csv", films=200, seed=3)
    words = [*SMALL, "--trainer.max_epochs=1", "--data.text={title}. {overview}"]
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        assert main(["fit", f"--data.csv={sample}", f"--run_dir={place / 'run'}", *words]) == 0
    return place / "run"
