"""Runs with joined files and features, from fit and baseline to every command that uses a run."""

import asyncio
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_runs import without_page
from scipy.special import expit
from small_run import SMALL
from transformers import AutoTokenizer

from genre_lightning import Tagger
from genre_lightning.__main__ import main
from genre_lightning.config.changes import differences, training_digest
from genre_lightning.config.features import as_joins, with_files
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.explain.explainer import Explainer
from genre_lightning.models.base import GenreClassifier
from genre_lightning.runs import RunDirectory

FEATURES = [
    {"column": "keywords", "kind": "tags", "min_films": 1},
    {"column": "original_language", "kind": "category"},
    {"column": "runtime", "kind": "number"},
    {"column": "release_date", "kind": "date"},
    {"column": "tagline", "kind": "text", "max_tokens": 8},
]
DECODER = [
    "--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier",
    "--model.backbone=random",
    "--model.architecture={layers: 1, width: 32, heads: 2, inner_width: 48}",
    "--model.quantization=nf4",
    "--data.tokenizer=wordpiece",
    "--data.vocab_size=600",
    "--data.max_tokens=48",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
]


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        patch.setattr("genre_lightning.evaluation.report.write_report", lambda *a, **k: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Movies, and a file of keywords for most of them."""
    place = tmp_path_factory.mktemp("inputs")
    write_sample(place / "sample.csv", films=160, seed=3)
    with (place / "sample.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (place / "keywords.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "keywords"])
        for number, row in enumerate(rows):
            if number % 4:
                writer.writerow([row["id"], f"[{{'name': 'word {number % 5}'}}, {{'name': 'one, two'}}]"])
    return place


def words(place, features=FEATURES):
    return [f"--data.csv={place / 'sample.csv'}", f"--data.join=[{{file: {place / 'keywords.csv'}}}]",
            f"--data.features={json.dumps(features)}"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(place):
    made = {}

    def make(kind):
        run = made.setdefault(kind, place / kind)
        if run.exists():
            return run
        if kind == "encoder":
            assert main(["fit", *words(place), f"--run_dir={run}", *SMALL, "--trainer.max_epochs=1"]) == 0
        elif kind == "decoder":
            assert main(["fit", *words(place), f"--run_dir={run}", *DECODER]) == 0
        elif kind == "tfidf_nb":
            assert main(["baseline", kind, *words(place), f"--run_dir={run}"]) == 0
        else:
            members = [str(make("encoder")), str(make("tfidf_nb"))]
            assert main(["ensemble", *members, f"--run_dir={run}"]) == 0
        return run

    return make


def films_of(place):
    with (place / "sample.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of(place, ids):
    with (place / "keywords.csv").open(newline="", encoding="utf-8") as file:
        keywords = dict(list(csv.reader(file))[1:])
    rows = {row["id"]: row for row in films_of(place)}
    names = ("overview", "original_language", "runtime", "release_date", "tagline")
    return [{**{n: rows[str(i)][n] for n in names}, "keywords": keywords.get(str(i), "")} for i in ids]


KINDS = ("encoder", "decoder", "tfidf_nb", "ensemble")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_tagged_as_the_evaluation_tagged_the_films(runs, place, kind):
    run = runs(kind)
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet").predictions
    tagger = Tagger(run, device="cpu")
    expected = tagger.decision.probabilities(stored.logits)
    tagged = tagger(rows_of(place, stored.ids))
    found = np.array([[film.probabilities[genre] for genre in tagger.genres] for film in tagged])
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_predict_reads_the_joined_file(runs, place, kind, tmp_path):
    run = runs(kind)
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet").predictions
    out = tmp_path / "out.parquet"
    assert main(["predict", str(run), f"--data.csv={place / 'sample.csv'}", f"--out={out}"]) == 0
    ids, logits = (pq.read_table(out)[name].to_pylist() for name in ("id", "logits"))
    by_id = dict(zip(map(str, reversed(ids)), reversed(logits), strict=True))
    found = np.array([by_id[str(film)] for film in stored.ids], dtype=np.float32)
    assert np.allclose(found, stored.logits, atol=1e-4)


@pytest.mark.parametrize("kind", ["encoder", "ensemble"])
def test_evaluate_reads_the_joined_file(runs, place, kind, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(runs(kind), copied)
    assert main(["evaluate", str(copied), f"--data.csv={place / 'sample.csv'}", "--name=again"]) == 0
    again = read_stored_predictions(copied / "evaluation" / "again" / "predictions.parquet").predictions
    stored = read_stored_predictions(copied / "evaluation" / "test" / "predictions.parquet").predictions
    logits = dict(zip(again.ids.tolist(), again.logits, strict=True))
    assert np.allclose([logits[film] for film in stored.ids.tolist()], stored.logits, atol=1e-4)


def stop_at_step_5(self, batch, batch_idx):
    if self.trainer.global_step == 5:
        raise RuntimeError("stopped")


def test_an_interrupted_run_resumes_exactly(runs, place, tmp_path):
    run = tmp_path / "run"
    options = [*words(place), f"--run_dir={run}", *SMALL, "--trainer.max_epochs=1", "--checkpoint.every_steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenreClassifier, "on_train_batch_start", stop_at_step_5)
        with pytest.raises(RuntimeError, match="stopped"):
            main(["fit", *options])
    assert main(["fit", *options]) == 0
    whole, resumed = (
        torch.load(RunDirectory(path).best, weights_only=True)["state_dict"] for path in (runs("encoder"), run)
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_audit_counts_joined_rows_and_inputs(runs, capsys, place):
    audit = json.loads(RunDirectory(runs("tfidf_nb")).audit.read_text())
    (join,), keywords = audit["joins"], audit["inputs"]["keywords"]
    assert (join["films_matched"], join["films_unmatched"]) == (keywords["known"], keywords["missing"])
    assert join["films_matched"] + join["films_unmatched"] == 160
    capsys.readouterr()
    assert main(["data", "inspect", *words(place), "--model.backbone=small"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"by id; {join['films_matched']} films matched, {join['films_unmatched']} without a row" in shown
    assert "| keywords" in shown


def test_the_language_of_a_film_is_kept_beside_its_prediction(runs, place, tmp_path):
    rows = {row["id"]: row["original_language"] for row in films_of(place)}
    run = tmp_path / "run"  # of which language is not an input
    assert main(["baseline", "tfidf_nb", f"--data.csv={place / 'sample.csv'}", f"--run_dir={run}"]) == 0
    for made in (run, runs("tfidf_nb"), runs("ensemble")):
        stored = read_stored_predictions(made / "evaluation" / "test" / "predictions.parquet").predictions
        assert stored.languages == [rows[str(film)] for film in stored.ids]
    none = [f"--data.csv={place / 'sample.csv'}", f"--run_dir={tmp_path / 'none'}", "--data.language=null"]
    assert main(["baseline", "tfidf_nb", *none]) == 0
    place = tmp_path / "none" / "evaluation" / "test" / "predictions.parquet"
    assert read_stored_predictions(place).predictions.languages is None


def test_a_category_that_training_has_not_seen(runs):
    tagger = Tagger(runs("encoder"), device="cpu")
    film = {"overview": "A man walks.", "original_language": "xx"}
    unknown, other, missing = tagger([film, {**film, "original_language": "yy"}, {"overview": "A man walks."}])
    assert unknown.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    assert unknown.probabilities != pytest.approx(missing.probabilities, abs=1e-6)


def test_tag_takes_fields_and_lines_of_json(runs, capsys):
    run, film = str(runs("encoder")), {"overview": "A man walks.", "keywords": "word 1", "runtime": "90"}
    fields = [word for name, value in film.items() for word in ("--field", f"{name}={value}")]
    capsys.readouterr()
    assert main(["tag", run, "--json", *fields]) == 0
    by_fields = json.loads(capsys.readouterr().out)
    assert main(["tag", run, "A man walks.", "--json", *fields[2:]]) == 0
    with_text = json.loads(capsys.readouterr().out)
    assert main(["tag", run, json.dumps({**film, "runtime": 90}), "--json"]) == 0
    by_line = json.loads(capsys.readouterr().out)
    assert by_fields == with_text == by_line
    assert by_fields["probabilities"] == Tagger(run, device="cpu")(film).probabilities
    assert by_fields["text"] == "A man walks."


@pytest.mark.parametrize(
    ("field", "message"),
    [("keywords", "--field is 'keywords': give NAME=VALUE"), ("cast=A, B", "has cast, and the run reads overview")],
)
def test_fields_that_the_run_does_not_read(runs, capsys, field, message):
    run = str(runs("encoder"))
    capsys.readouterr()
    assert main(["tag", run, "--field", field]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_its_joined_file(runs, place, capsys, tmp_path):
    run = runs("tfidf_nb")
    moved = (place / "keywords.csv").rename(tmp_path / "keywords.csv")
    try:
        for command in (
            ["predict", str(run), f"--data.csv={place / 'sample.csv'}", f"--out={tmp_path / 'out.csv'}"],
            ["evaluate", str(run), f"--data.csv={place / 'sample.csv'}"],
        ):
            capsys.readouterr()
            assert main(command) == 2
            assert "keywords.csv, which is not a file" in capsys.readouterr().err
        assert not (tmp_path / "out.csv").exists()
        words = ["predict", str(run), f"--data.csv={place / 'sample.csv'}", f"--out={tmp_path / 'out.csv'}"]
        assert main([*words, f"--data.join={moved}"]) == 0
        assert main([*words, f"--data.join={place / 'sample.csv'}", f"--data.join={moved}"]) == 2
        assert "the run joins keywords" in capsys.readouterr().err
    finally:
        moved.rename(place / "keywords.csv")


FILM = {"overview": "A man walks.", "keywords": ["word 1"], "runtime": 90, "original_language": "fr"}


@pytest.mark.parametrize("kind", ["encoder", "decoder", "tfidf_nb"])
def test_words_and_inputs_add_up_to_the_log_odds(runs, kind):
    run = runs(kind)
    explainer = Explainer(run, device="cpu")
    explanation = explainer(FILM, top_k=2)
    tagged = Tagger(run, device="cpu", precision="32-true")(FILM)
    for genre in explanation.genres:
        assert genre.probability == pytest.approx(tagged.probabilities[genre.genre], abs=1e-6)
        assert set(genre.inputs) == {"keywords", "original_language", "runtime", "release_date"}
        assert genre.inputs["release_date"] == pytest.approx(0, abs=1e-9)  # missing, as in the baseline
        total = genre.baseline + genre.values.sum() + sum(genre.inputs.values())
        assert total == pytest.approx(genre.log_odds, abs=genre.error + 1e-9)
        assert genre.error <= 0.01 * max(abs(genre.change), 0.5 * explainer.decision.affine[0].max())
    assert any(abs(value) > 1e-4 for genre in explanation.genres for value in genre.inputs.values())


def test_an_input_of_a_linear_model_adds_the_change_of_the_log_odds(runs):
    explainer = Explainer(runs("tfidf_nb"))
    place = explainer.decision.affine[0]
    for name in ("keywords", "original_language", "runtime"):
        [genre] = explainer(FILM, top_k=1).genres
        cells = [explainer.tagger.cells(film) for film in (FILM, {k: v for k, v in FILM.items() if k != name})]
        column = explainer.decision.genres.index(genre.genre)
        with_it, without = explainer.scorer.logits(cells)[:, column].astype(float) * place[column]
        assert genre.inputs[name] == pytest.approx(with_it - without, abs=1e-5)


def test_a_film_of_inputs_alone_is_explained(runs):
    for kind in ("encoder", "tfidf_nb"):
        explanation = Explainer(runs(kind), device="cpu")({"keywords": ["word 1"]}, top_k=1)
        [genre] = explanation.genres
        assert (len(explanation.words), explanation.text) == (0, "")
        assert genre.baseline + genre.inputs["keywords"] == pytest.approx(genre.log_odds, abs=genre.error + 1e-6)


def test_explain_shows_what_each_input_adds(runs, capsys, tmp_path):
    run, page = str(runs("tfidf_nb")), tmp_path / "page.html"
    capsys.readouterr()
    fields = ["--field", "keywords=word 1", "--field", "runtime=90", "--field", "original_language=fr"]
    assert main(["explain", run, FILM["overview"], *fields, "--top_k=1", f"--html={page}"]) == 0
    [genre] = Explainer(run)(FILM, top_k=1).genres
    name, value = genre.named_inputs[0]
    shown = capsys.readouterr().out
    assert f"  inputs   {name} {value:+.2f}" in shown
    assert f"{sum(genre.inputs.values()):+.2f} by the inputs" in shown
    assert "a word or an input adds, compared with an empty text without inputs" in shown
    assert f"{name} {value:+.2f}" in page.read_text()
    assert main(["explain", run, json.dumps(FILM), "--top_k=1", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["explanations"]
    assert found["inputs"] == [{"input": one, "log_odds": added} for one, added in genre.inputs.items()]
    assert found["attribution_sum"] == pytest.approx(found["log_odds"] - found["baseline_log_odds"])


@pytest.fixture(scope="module")
def served(runs):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    from genre_lightning.serving.served import ServedRun

    loaded = {}
    return lambda kind: loaded[kind] if kind in loaded else loaded.setdefault(kind, ServedRun(runs(kind), "cpu"))


@pytest.fixture
def make_client(served, tmp_path):
    from http_client import Client

    return lambda kind: Client(served(kind), tmp_path / "feedback.db")


SERVED_FILMS = [
    {"text": FILM["overview"], "fields": {name: cell for name, cell in FILM.items() if name != "overview"}},
    {"text": "A man walks."},
    {"fields": {"keywords": "word 1, one", "runtime": "1,090", "release_date": "1995-10-30"}},
    {"text": "Two friends fall in love. " * 30, "fields": {"tagline": "戦争の物語", "runtime": 0.5}},
    {"text": "A man walks.", "fields": {"keywords": None, "original_language": "xx", "release_date": "soon"}},
]


@pytest.mark.parametrize("kind", KINDS)
def test_served_alone_and_in_a_batch_as_the_tagger_tags(make_client, kind):
    client = make_client(kind)
    films = [{**film.get("fields", {}), "overview": film.get("text")} for film in SERVED_FILMS]
    expected = list(map(client.served.tagger, films))

    async def ask():
        async with client.open() as http:
            alone = [(await http.post("/v1/tag", json=film)).json()["results"][0] for film in SERVED_FILMS]
            together = [http.post("/v1/tag", json=film) for film in SERVED_FILMS]
            together.append(http.post("/v1/tag", json={"films": SERVED_FILMS}))
            answers = await asyncio.gather(*together)
            return alone, [one for answer in answers for one in answer.json()["results"]]

    alone, together = asyncio.run(ask())
    for found, right in zip([*alone, *together], expected * 3, strict=True):
        assert found["probabilities"] == pytest.approx(right.probabilities, abs=1e-6)
        assert found["notes"] == list(right.notes)
    assert "release_date is read as missing: 'soon' is not a date such as 1995-10-30" in expected[-1].notes


@pytest.mark.parametrize("kind", ["encoder", "decoder", "tfidf_nb"])
def test_served_explanation_has_the_inputs(runs, make_client, kind):
    client = make_client(kind)
    film = {**SERVED_FILMS[0], "explain": True, "top_k": 1}
    [found] = client.post("/v1/tag", film).json()["results"][0]["explanations"]
    [genre] = Explainer(runs(kind), device="cpu", bound=0.05, tagger=client.served.tagger)(FILM, top_k=1).genres
    assert [one["input"] for one in found["inputs"]] == list(genre.inputs)
    assert [one["log_odds"] for one in found["inputs"]] == pytest.approx(list(genre.inputs.values()), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"fields": {"cast": "A, B"}}, "the film: a text has cast, and the run reads overview, tagline, keywords"),
        ({"films": [{"text": "x"}, {"text": "x", "fields": {"budget": 3}}]}, "film 2: a text has budget"),
        ({"fields": {"runtime": {"minutes": 90}}}, "fields.runtime: "),
        ({"fields": {"keywords": [], "runtime": None, "tagline": " "}}, "the film has no text: give its overview"),
    ],
)
def test_served_run_refuses_fields_that_it_does_not_read(make_client, body, words):
    answer = make_client("tfidf_nb").post("/v1/tag", body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_served_ensemble_names_the_runs_to_explain(make_client, place):
    client = make_client("ensemble")
    answer = client.post("/v1/tag", {**SERVED_FILMS[0], "explain": True})
    assert answer.status_code == 422
    assert "is an ensemble: explain one of its runs: encoder, tfidf_nb" in answer.json()["detail"]
    assert str(place) not in answer.text
    model = client.get("/v1/model").json()
    assert (model["kind"], model["explained"]) == ("ensemble", False)
    kinds = {one["name"]: (one["kind"], one["in_text"]) for one in model["inputs"]}
    assert kinds["keywords"] == ("tags", False)
    assert kinds["tagline"] == ("text", True)
    answer = client.post("/v1/feedback", {**SERVED_FILMS[0], "genres": [client.served.genres[0]], "user": "eva"})
    assert answer.json()["stored"]


@pytest.mark.parametrize("kind", ["tfidf_nb", "ensemble"])
def test_served_examples_have_the_inputs_of_their_films(make_client, place, kind):
    from genre_lightning.serving.similar import training_films

    client = make_client(kind)
    client.set(similar=0)

    async def ask():
        async with client.open() as http:
            client.service.start()
            await client.service.examples_done.wait()
            return (await http.get("/v1/examples")).json()["films"]

    films = asyncio.run(ask())
    rows = rows_of(place, [film["film"] for film in films])
    assert [film["text"] for film in films] == [row["overview"][:1500] for row in rows]
    for name in ("tagline", "original_language", "release_date"):
        assert [film["fields"].get(name, "") for film in films] == [row[name] for row in rows]
    assert [film["fields"].get("runtime") for film in films] == [float(row["runtime"] or "nan") for row in rows]
    assert len(training_films(client.served, 20)) == 20
    known = [film["fields"]["keywords"] for film, row in zip(films, rows, strict=True) if row["keywords"]]
    assert known
    assert all(names[0].startswith("word ") for names in known)


def test_top_words_refuse_a_head_with_inputs(runs, capsys):
    capsys.readouterr()
    assert main(["explain", str(runs("tfidf_nb")), "--top_words"]) == 2
    assert "reads keywords, original_language, runtime, release_date in its head" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--onnx", "--form=sentence-transformers"]])
def test_exports_of_text_alone_refuse_inputs(runs, capsys, tmp_path, monkeypatch, options):
    monkeypatch.setattr("genre_lightning.export.onnx_model._NEEDED", ())
    capsys.readouterr()
    assert main(["export", str(runs("encoder")), str(tmp_path / "out"), *options]) == 2
    assert "by data.features, which an ONNX model alone has as inputs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def encoded(described, film):
    """A film as the inputs of an ONNX model, by its inputs.json."""
    made = {}
    for one in described["inputs"]:
        given = film.get(one["column"])
        if one["dtype"] == "int64":
            names = [given] if isinstance(given, str) else given or []
            numbers = [one["values"].get(name, one["unknown"]) for name in names] or [one["none"]]
            made[one["name"]] = np.array([numbers], dtype=np.int64)
            continue
        row = np.zeros((1, one["shape"][1]), dtype=np.float32)
        if given is not None:
            row[0] = [np.clip((given - one["mean"][0]) / one["std"][0], -one["largest"], one["largest"]), 1]
        made[one["name"]] = row
    return made


def test_an_onnx_model_has_named_inputs(runs, capsys, tmp_path):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    import onnxruntime

    run, out = runs("encoder"), tmp_path / "out"
    capsys.readouterr()
    assert main(["export", str(run), str(out), "--onnx"]) == 0
    assert "as an ONNX model with named inputs" in capsys.readouterr().err
    described = json.loads((out / "onnx" / "inputs.json").read_text())
    assert described["lines"] == [{"column": "tagline", "begins": "tagline: ", "max_tokens": 8}]
    tokenizer = AutoTokenizer.from_pretrained(out)
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    tagger = Tagger(run, device="cpu", precision="32-true")
    films = [FILM, {"overview": "A man walks."}, {**FILM, "keywords": ["word 1", "one, two", "new"], "runtime": 9e9},
             {"overview": "A man walks.", "original_language": "xx", "tagline": "Home"}]  # fmt: skip
    for film in films:
        text = film["overview"] + ("\ntagline: Home" if "tagline" in film else "")
        tokens = tokenizer([text], truncation=True, return_tensors="np")
        logits = session.run(None, {**tokens, **encoded(described, film)})[0][0]
        expected = tagger(film).probabilities
        assert expit(logits) == pytest.approx([expected[genre] for genre in tagger.genres], abs=1e-5)


def test_zero_shot_models_refuse_inputs_before_any_work(place, capsys, tmp_path):
    model = ["--model=genre_lightning.models.zero_shot.ZeroShotLlama", *DECODER[1:]]
    assert main(["fit", *words(place), f"--run_dir={tmp_path / 'run'}", *model]) == 2
    assert "ZeroShotLlama reads texts alone" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_plan_counts_the_inputs(place, capsys):
    counts = []
    for features in (FEATURES[-1:], FEATURES):
        capsys.readouterr()
        assert main(["plan", "--json", *words(place, features), *SMALL[:2], "--trainer.accelerator=cpu"]) == 0
        counts.append(json.loads(capsys.readouterr().out)["parameters"]["total"])
    assert counts[1] > counts[0] + 4 * 128


def test_defaults_are_no_part_of_a_trainings_digest():
    before = "data: {csv: a.csv}\nmodel: {class_path: X, init_args: {backbone: small}}\n"
    after = (
        "data: {csv: a.csv, join: null, features: null, leave_out_after_release: false, exclude_leaks: false}\n"
        "model: {class_path: X, init_args: {backbone: small, fusion: gate, drop_input: 0.1, input_width: 128}}\n"
    )
    assert training_digest(before) == training_digest(after)


def test_a_joined_file_may_move_but_not_change_its_key():
    def data(file, key):
        return {"data": {"join": [{"file": file, "key": key, "on": None}]}}

    assert differences(data("/a/k.csv", "id"), data("/b/k.csv", "id")) == []
    assert differences(data("/a/k.csv", "id"), data("/a/k.csv", "film"))


def test_a_file_of_links_may_move_but_not_change_its_column():
    join = {"file": "/a/k.csv", "key": "id", "on": None}

    def data(**links):
        return {"data": {"join": [{**join, **links}]}}

    assert differences(data(), data(via=None, to=None)) == []
    assert differences(data(via="/a/links.csv", to=None), data(via="/b/links.csv", to=None)) == []
    assert differences(data(via="/a/links.csv", to=None), data(via="/a/links.csv", to="imdbId"))
    assert differences(data(), data(via="/a/links.csv"))


def test_a_file_of_links_is_given_by_its_name():
    joins = as_joins([{"file": "/a/k.csv", "via": "/a/links.csv"}, {"file": "/a/m.csv"}])
    k, m = with_files(joins, [Path("/b/links.csv"), Path("/b/m.csv")])
    assert (k.file, k.via, m.file) == (Path("/a/k.csv"), Path("/b/links.csv"), Path("/b/m.csv"))


def test_tagger_refuses_a_vector_of_another_length(place, tmp_path):
    table = [{"id": row["id"], "v": "[0.5, 1]"} for row in films_of(place)]
    with (tmp_path / "v.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "v"])
        writer.writeheader()
        writer.writerows(table)
    run = tmp_path / "run"
    options = [f"--data.csv={place / 'sample.csv'}", f"--data.join=[{{file: {tmp_path / 'v.csv'}}}]"]
    features = json.dumps([{"column": "v", "kind": "vector"}])
    assert main(["baseline", "tfidf_nb", *options, f"--data.features={features}", f"--run_dir={run}"]) == 0
    tagger = Tagger(run)
    assert tagger({"overview": "A man walks.", "v": [1, 2]}).probabilities
    with pytest.raises(DataError, match="a vector of 3 numbers, and the training films have 2"):
        tagger({"overview": "A man walks.", "v": [1, 2, 3]})


def test_the_joined_files_of_a_run_are_named_by_their_files(runs):
    joins = as_joins(RunDirectory(runs("tfidf_nb")).settings()["data"]["join"])
    with pytest.raises(ConfigError, match="the run joins keywords"):
        with_files(joins, [Path("other.csv"), Path("more.csv")])
