"""A run that is served, and a client of its application in the same process."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from made_runs import without_page
from small_run import SMALL

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from genre_lightning.__main__ import main
from genre_lightning.evaluation.report import write_report
from genre_lightning.serving.app import create_app
from genre_lightning.serving.options import Limits, ServeOptions, Token
from genre_lightning.serving.served import ServedRun
from genre_lightning.serving.service import Service


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


class Client:
    """Sends requests to a service, each test in an event loop of its own."""

    def __init__(self, served, database):
        self.served = served
        self.options = ServeOptions(served.run.path, database=database)
        self.service = None

    def set(self, **changes):
        limits = {name[6:]: changes.pop(name) for name in list(changes) if name.startswith("limit_")}
        self.options = replace(self.options, limits=Limits(**limits), **changes)

    @asynccontextmanager
    async def open(self):
        self.service = Service(self.options, self.served)
        transport = httpx.ASGITransport(create_app(self.service), raise_app_exceptions=False)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                yield client
        finally:
            self.service.close()

    def request(self, method, path, **options):
        async def once():
            async with self.open() as client:
                return await client.request(method, path, **options)

        return asyncio.run(once())

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body, **options):
        return self.request("POST", path, json=body, **options)


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
