"""Tagging over HTTP: the same results as the Tagger's, limits, problem documents, tokens and the log."""

import asyncio
import hashlib
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from genre_lightning.errors import ConfigError
from genre_lightning.inference.tagger import Tagger
from genre_lightning.serving.options import read_tokens
from genre_lightning.serving.served import ServedRun
from genre_lightning.serving.service import without_paths

TEXTS = [
    "A detective hunts a killer.",
    "Two friends fall in love in Paris. " * 20,
    "戦争の物語",
    "x",
    "An alien ship " * 99,
]


@pytest.mark.parametrize("max_batch", [1, 3, 64])
def test_probabilities_are_those_of_the_tagger_whatever_the_batch(make_client, encoder, max_batch):
    client = make_client(encoder)
    client.set(max_batch=max_batch)

    async def ask():
        async with client.open() as http:
            requests = [http.post("/v1/tag", json={"text": text}) for text in TEXTS * 3]
            requests.append(http.post("/v1/tag", json={"films": [{"text": text} for text in TEXTS]}))
            return [answer.json()["results"] for answer in await asyncio.gather(*requests)]

    found = asyncio.run(ask())
    expected = [one.probabilities for one in map(Tagger(encoder.run.path, "cpu"), TEXTS)]
    for results, right in zip([*found[:-1], *([one] for one in found[-1])], expected * 4, strict=True):
        assert list(results[0]["probabilities"]) == list(right)
        np.testing.assert_allclose(list(results[0]["probabilities"].values()), list(right.values()), atol=1e-6)


def test_requests_at_the_same_time_are_computed_together(make_client, encoder):
    client = make_client(encoder)

    async def ask():
        async with client.open() as http:
            await asyncio.gather(*(http.post("/v1/tag", json={"text": text}) for text in TEXTS * 4))
            return (await http.get("/metrics")).text

    metrics = asyncio.run(ask())
    assert "genre_lightning_films_total 20" in metrics
    batches = int(metrics.split("\ngenre_lightning_batches_total ")[1].split()[0])
    assert batches < 20
    assert 'requests_total{route="/v1/tag",status="200"} 20' in metrics


def test_batches_are_limited_by_tokens(make_client, encoder, monkeypatch):
    client = make_client(encoder)
    monkeypatch.setattr(encoder, "batch_tokens", 2 * encoder.tokens(TEXTS[0]))
    sizes = []
    tag = encoder.tag
    monkeypatch.setattr(encoder, "tag", lambda texts: sizes.append(len(texts)) or tag(texts))
    client.post("/v1/tag", {"films": [{"text": TEXTS[0]}] * 5})
    assert sizes == [2, 2, 1]


def test_decision_options_change_the_genres_alone(client):
    whole = client.post("/v1/tag", {"text": TEXTS[0], "top_k": 3}).json()["results"][0]
    assert [genre["name"] for genre in whole["genres"]] == list(whole["probabilities"])[:3]
    first = next(iter(whole["probabilities"]))
    named = client.post("/v1/tag", {"text": TEXTS[0], "threshold": {first: 1.0}}).json()["results"][0]
    assert first not in [genre["name"] for genre in named["genres"]]
    everything = client.post("/v1/tag", {"text": TEXTS[0], "threshold": 0}).json()["results"][0]
    assert len(everything["genres"]) == len(whole["probabilities"])
    fixed = client.post("/v1/tag", {"text": TEXTS[0], "policy": "fixed_0.5"}).json()["results"][0]
    assert set(fixed["thresholds"].values()) == {0.5}


def test_explanation_has_the_words_of_the_genres(client):
    one = client.post("/v1/tag", {"text": TEXTS[0], "explain": True, "top_k": 1}).json()["results"][0]
    assert [word["word"] for word in one["explanations"][0]["words"]] == ["A", "detective", "hunts", "a", "killer", "."]
    body = {"text": TEXTS[0], "top_k": 12}
    plain, explained = (client.post("/v1/tag", {**body, "explain": on}).json()["results"][0] for on in (False, True))
    assert plain == {name: value for name, value in explained.items() if name in plain}
    assert len(explained["explanations"]) == 5


def test_an_explanation_never_comes_from_another_run(make_client, encoder_run, assert_problem):
    client = make_client(ServedRun(encoder_run, "cpu"))
    # what the explanations load for themselves, as of a run that is served in half precision
    other = SimpleNamespace(decision=SimpleNamespace(checkpoint_sha256="0" * 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genre_lightning.serving.served.Explainer", lambda *words, **options: other)
        answer = client.post("/v1/tag", {"text": TEXTS[0], "explain": True})
    assert_problem(answer, 503, "another run than the one that is served: reload it")
    assert client.post("/v1/tag", {"text": TEXTS[0], "explain": True}).status_code == 200


def test_a_lone_client_never_waits_for_others(make_client, counting):
    client = make_client(counting)
    client.set(max_wait_ms=60_000)

    async def ask():
        async with client.open() as http:
            await http.post("/v1/tag", json={"films": [{"text": text} for text in TEXTS]})
            return await http.post("/v1/tag", json={"text": TEXTS[0]})

    assert asyncio.run(ask()).status_code == 200  # not 503 after limit_seconds


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "the body is empty"),
        (b'{"text":', 400, "not valid JSON"),
        (b'{"text": "caf\xe9"}', 400, "cannot be read"),
        (b"[" * 100_000, 400, "the body"),
        (b'{"text": ' + b"9" * 9999 + b"}", 400, "cannot be read"),
        (b"{}", 422, "give a film"),
        (b'{"text": "x", "films": []}', 422, "films"),
        (b'{"text": 3}', 422, "text: input should be a valid string"),
        (b'{"text": "x", "page": 1}', 422, "page: unknown field"),
        (b'{"text": " "}', 422, "the film has no text"),
        (b'{"films": [{"text": "x"}, {"text": ""}]}', 422, "film 2 has no text"),
        (b'{"fields": {"budget": 3}}', 422, "name those"),
        (b'{"text": "x", "fields": {"overview": "y"}}', 422, "as text or among the fields, not as both"),
        (b'{"text": "x", "threshold": NaN}', 422, "threshold: input should be a finite number"),
        (b'{"text": "x", "threshold": {"Dram": 0.5}}', 422, "'Dram' is not one of the"),
        (b'{"text": "x", "policy": "best"}', 422, "policy: input should be"),
        (b'{"text": "x", "top_k": 10000000000000000000000}', 422, "top_k is"),
        (b'{"text": "%s"}' % (b"x" * 70_000), 422, "send at most 65,536"),
        (json.dumps({"films": [{"text": "x"}] * 65}).encode(), 422, "send at most 64"),
        (b'{"text": "%s"}' % (b"x" * 10_000_000), 413, "more than 1,000,000 bytes"),
    ],
)
def test_bad_bodies_are_problem_documents(client, assert_problem, body, status, words):
    answer = client.request("POST", "/v1/tag", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, status, words)


def test_body_without_a_length_is_limited(client, assert_problem):
    async def parts():
        for _ in range(1000):
            yield b"x" * 10_000

    async def ask():
        async with client.open() as http:
            return await http.post("/v1/tag", content=parts(), headers={"Content-Type": "application/json"})

    assert_problem(asyncio.run(ask()), 413, "more than 1,000,000 bytes")


def test_other_pages_methods_and_kinds_are_problems(client, assert_problem):
    assert_problem(client.get("/v2/tag"), 404, "there is no such page")
    assert_problem(client.get("/v1/tag"), 405, "does not answer to this method")
    assert_problem(client.request("POST", "/v1/tag", content=b'{"text": "x"}'), 415, "Content-Type: application/json")
    assert_problem(client.get("/static/..%2fapp.py"), 404, "there is no such page")


def test_another_sites_name_for_this_machine_is_refused(client, assert_problem):
    assert_problem(client.get("/v1/model", headers={"Host": "evil.example"}), 403, "the header Host")
    assert client.get("/v1/model", headers={"Host": "[::1]:8000"}).status_code == 200
    client.set(allowed_hosts=("films.example",))
    assert client.get("/v1/model", headers={"Host": "films.example:80"}).status_code == 200
    client.set(host="0.0.0.0")  # where names are listed, no other one is taken at any address
    assert client.get("/v1/model", headers={"Host": "films.example:80"}).status_code == 200
    assert_problem(client.get("/v1/model", headers={"Host": "evil.example"}), 403, "the header Host")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_every_loopback_address_is_this_machines_own(client, assert_problem, host):
    client.set(host=host)
    assert client.options.is_local
    assert_problem(client.get("/v1/model", headers={"Host": "evil.example"}), 403, "the header Host")
    name = f"[{host}]" if ":" in host else host
    assert client.get("/v1/model", headers={"Host": f"{name}:8000"}).status_code == 200


def test_no_other_origin_is_allowed(client):
    answer = client.get("/v1/model", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


class Held:
    """A model that waits until it is let go."""

    def __init__(self, served, monkeypatch):
        self.go, self.started = threading.Event(), threading.Event()
        tag = served.tag

        def held(texts):
            self.started.set()
            assert self.go.wait(20)
            return tag(texts)

        monkeypatch.setattr(served, "tag", held)


def test_full_queue_answers_429_with_retry_after(client, counting, monkeypatch, assert_problem):
    client.set(limit_queue=2, max_batch=1)
    held = Held(counting, monkeypatch)

    async def ask():
        async with client.open() as http:
            first = asyncio.create_task(http.post("/v1/tag", json={"text": "first"}))
            await asyncio.to_thread(held.started.wait, 20)
            waiting = [asyncio.create_task(http.post("/v1/tag", json={"text": "waits"})) for _ in range(2)]
            while len(client.service.batcher) < 2:
                await asyncio.sleep(0)
            refused, ready = await http.post("/v1/tag", json={"text": "late"}), await http.get("/ready")
            held.go.set()
            return refused, ready, [await first, *[await one for one in waiting]]

    refused, ready, others = asyncio.run(ask())
    assert_problem(refused, 429, "send it again in 1 s")
    assert refused.headers["retry-after"] == "1"
    assert_problem(ready, 503, "its queue is full")
    assert [one.status_code for one in others] == [200, 200, 200]


def test_slow_request_times_out(client, counting, monkeypatch, assert_problem):
    client.set(limit_seconds=0.05)
    held = Held(counting, monkeypatch)
    try:
        assert_problem(client.post("/v1/tag", {"text": "x"}), 503, "no answer within 0.05 s")
    finally:
        held.go.set()


def test_a_gpu_that_is_gone_is_a_problem_and_ends_the_worker(client, counting, monkeypatch, assert_problem):
    def gone(texts):
        raise RuntimeError("CUDA error: the launch timed out\n/usr/lib/libcuda.so")

    monkeypatch.setattr(counting, "tag", gone)
    assert_problem(client.post("/v1/tag", {"text": "x"}), 503, "the model's device has failed")
    assert client.service.failed


def test_unexpected_errors_show_nothing(client, counting, monkeypatch, assert_problem, capfd):
    def fails(texts):
        raise KeyError("/tmp/secret is the text")

    monkeypatch.setattr(counting, "tag", fails)
    answer = client.post("/v1/tag", {"text": "x"})
    assert_problem(answer, 500, "the service has failed: look for")
    logged = capfd.readouterr().err
    assert answer.headers["x-request-id"] in logged
    assert "KeyError" in logged
    assert "secret" not in logged + answer.text


def test_log_is_json_without_texts_and_tokens(client, make_token, capfd):
    client.set(tokens=(make_token("s" * 20),))
    client.post("/v1/tag", {"text": "A private plot"}, headers={"Authorization": "Bearer " + "s" * 20})
    [line] = capfd.readouterr().err.splitlines()
    logged = json.loads(line)
    assert (logged["path"], logged["status"]) == ("/v1/tag", 200)
    assert "private" not in line
    assert "sss" not in line
    client.set(log_texts=True, tokens=())
    client.post("/v1/tag", {"text": "A private plot"})
    assert json.loads(capfd.readouterr().err)["texts"] == ["A private plot"]
    client.post("/v1/feedback", {"text": "A private plot", "genres": [], "user": "eva"})
    assert json.loads(capfd.readouterr().err)["texts"] == ["A private plot"]


def test_tokens_are_asked_for(client, make_token, assert_problem):
    client.set(tokens=(make_token("u" * 20), make_token("a" * 20, admin=True)))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic " + "u" * 20}):
        answer = client.get("/v1/model", headers=headers)
        assert_problem(answer, 401, "the bearer token is missing or wrong")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/model", headers={"Authorization": "Bearer " + "u" * 20}).status_code == 200
    assert client.get("/v1/model", headers={"Authorization": "bearer " + "a" * 20}).status_code == 200
    assert [client.get(path).status_code for path in ("/", "/health", "/ready", "/docs")] == [200] * 4
    assert_problem(client.get("/metrics"), 401, "the bearer token")
    assert_problem(client.post("/v1/reload", {}, headers={"Authorization": "Bearer " + "u" * 20}), 403, "admin token")


def test_tokens_come_from_files_or_the_environment(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("# clients\neva " + "e" * 20 + "\n\n" + "f" * 20 + "\n")
    [admin, eva, other] = read_tokens(file, None, {"GENRE_LIGHTNING_ADMIN_TOKEN": "a" * 20})
    assert (admin.admin, eva.user, other.user) == (True, "eva", None)
    assert eva.digest == hashlib.sha256(b"e" * 20).digest()
    with pytest.raises(ConfigError, match="GENRE_LIGHTNING_TOKENS: token 1 is not"):
        read_tokens(None, None, {"GENRE_LIGHTNING_TOKENS": "short"})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokens(tmp_path / "missing", None, {})
    file.write_text("")
    with pytest.raises(ConfigError, match="has no token"):
        read_tokens(file, None, {})


def test_model_describes_the_run_without_paths(client, counting):
    model = client.get("/v1/model").json()
    assert [genre["name"] for genre in model["genres"]] == list(counting.genres)
    assert model["checkpoint_sha256"] == counting.checkpoint
    assert model["metrics"]["test"]["policies"]["per_genre"]["f1_micro"] is not None
    assert model["data"]["splits"]["train"] > 0
    assert str(counting.run.path.parent) not in json.dumps(model)


def test_report_opens_by_its_signed_address_alone(client, make_token, assert_problem):
    client.set(tokens=(make_token("u" * 20),))
    address = client.get("/v1/model", headers={"Authorization": "Bearer " + "u" * 20}).json()["report"]
    page = client.get(address)
    assert page.status_code == 200
    assert "sandbox" in page.headers["content-security-policy"]
    for ticket in ("", "9999999999.00", f"1.{address.partition('.')[2]}", "é.é"):
        assert_problem(client.get("/v1/report", params={"ticket": ticket}), 403, "has run out")
    assert not client.options.is_valid(client.options.ticket(seconds=-2))


def test_schema_lists_the_endpoints_and_the_docs_need_no_other_host(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/tag", "/v1/feedback", "/v1/model", "/health", "/ready", "/metrics"} <= set(paths)
    page = client.get("/docs").text
    assert "POST /v1/tag" in page
    assert "http://" not in page
    assert "https://" not in page


def test_paths_are_hidden(tmp_path):
    spaced = tmp_path / "my runs" / "a"
    assert without_paths(f"{spaced}/config.yaml is damaged (see /etc/x/y.txt)", spaced) == (
        "a/config.yaml is damaged (see y.txt)"
    )
