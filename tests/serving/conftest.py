"""A run that is served, and a client of its application in the same process."""

import hashlib

import pytest
from made_runs import without_page
from small_run import SMALL

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from http_client import Client

from genre_lightning.__main__ import main
from genre_lightning.evaluation.report import write_report
from genre_lightning.serving.options import Token
from genre_lightning.serving.served import ServedRun


@pytest.fixture(scope="session")
def encoder_run(tmp_path_factory, sample_csv):
    place = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        words = [*SMALL, "--trainer.max_epochs=1", "--data.text={title}. {overview}"]
        assert main(["fit", f"--data.csv={sample_csv}", f"--run_dir={place / 'encoder'}", *words]) == 0
    return place / "encoder"


@pytest.fixture(scope="session")
def counting_run(tmp_path_factory, sample_csv):
    place = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        assert main(["baseline", "tfidf_logreg", f"--data.csv={sample_csv}", f"--run_dir={place / 'tfidf'}"]) == 0
    write_report(place / "tfidf")
    return place / "tfidf"


@pytest.fixture(scope="session")
def encoder(encoder_run):
    return ServedRun(encoder_run, "cpu")


@pytest.fixture(scope="session")
def counting(counting_run):
    return ServedRun(counting_run)


@pytest.fixture
def make_client(tmp_path):
    return lambda served: Client(served, tmp_path / "feedback.db")


@pytest.fixture
def client(make_client, counting):
    return make_client(counting)


@pytest.fixture
def make_token():
    return lambda word, **values: Token(hashlib.sha256(word.encode()).digest(), **{"user": None, **values})


def _problem(answer, status, words):
    """A problem document of one line, which has no path of the machine and no traceback."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    for leak in ("\n", "Traceback", "/tmp", "site-packages"):
        assert leak not in problem["detail"]


@pytest.fixture(name="assert_problem")
def _assert_problem():
    return _problem
