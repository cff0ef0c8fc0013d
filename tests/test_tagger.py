"""Tagger on every kind of run: its genres of a text are those of the run's evaluation."""

import subprocess
import sys
from itertools import count, islice

import numpy as np
import pytest
from made_runs import without_page
from small_run import SMALL

from genre_lightning import Tagger
from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import CheckpointError, ConfigError, DataError
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.inference.scoring import open_scorer

DECODER = [
    "--model.backbone=random",
    "--model.architecture={layers: 2, width: 64, heads: 4, kv_heads: 2, inner_width: 96}",
    "--data.tokenizer=wordpiece",
    "--data.vocab_size=600",
    "--data.max_tokens=48",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Plots and page are most of a small run's time, and other tests' matter."""
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        patch.setattr("genre_lightning.evaluation.report.write_report", lambda *a, **k: None)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Makes each kind of run once, when it is asked for."""
    place = tmp_path_factory.mktemp("runs")
    sample = write_sample(place / "sample.csv", films=200, seed=3)

    def fit(run, kind, *words):
        model = [f"--model=genre_lightning.models.{kind}"] if kind else []
        assert main(["fit", f"--data.csv={sample}", f"--run_dir={run}", *model, *words]) == 0

    def make(kind):
        run = place / kind
        if run.exists():
            return run
        if kind == "encoder":
            fit(run, None, *SMALL, "--trainer.max_epochs=1")
        elif kind == "encoder_bf16":
            fit(run, None, *SMALL, "--trainer.max_epochs=1", "--trainer.precision=bf16-mixed")
        elif kind == "title":
            fit(run, None, *SMALL, "--trainer.max_epochs=1", "--data.text={title}. {overview}")
        elif kind == "qlora":
            lora = ["--model.quantization=nf4", "--model.lora={rank: 4, dropout: 0}"]
            fit(run, "llama_qlora.LlamaQLoraClassifier", *DECODER, *lora)
        elif kind == "zero_shot":
            fit(run, "zero_shot.ZeroShotLlama", *DECODER)
        elif kind == "tfidf_nb":
            assert main(["baseline", kind, f"--data.csv={sample}", f"--run_dir={run}"]) == 0
        else:
            members = [str(make("encoder")), str(make("tfidf_nb"))]
            assert main(["ensemble", *members, f"--run_dir={run}"]) == 0
        return run

    return make


@pytest.fixture(scope="module")
def tagger(runs):
    return Tagger(runs("encoder"), device="cpu")


@pytest.mark.parametrize("kind", ["encoder", "encoder_bf16", "title", "qlora", "zero_shot", "tfidf_nb", "ensemble"])
def test_probabilities_and_genres_are_those_of_the_evaluation(runs, kind):
    run = runs(kind)
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet")
    texts = stored.predictions.texts
    tagger = Tagger(run, device="cpu")
    tagged = tagger(texts)
    got = np.array([[film.probabilities[name] for name in stored.predictions.genres] for film in tagged])
    # other films share the batch, so padding and the order of sums differ
    np.testing.assert_allclose(got, stored.probabilities, atol=2e-5)
    assert [set(film.names) for film in tagged] == [
        set(names) for names in stored.predictions.genre_names(stored.decided)
    ]


@pytest.mark.parametrize("kind", ["encoder_bf16", "qlora"])
def test_weights_cast_once_answer_as_those_that_autocast_casts(runs, monkeypatch, kind):
    texts = [{"overview": " ".join(["a boy finds a map and", "a storm"] * words)} for words in range(1, 40, 3)]
    cast = open_scorer(runs(kind), device="cpu", precision="bf16-mixed")
    monkeypatch.setattr("genre_lightning.inference.model_scorer.cast_weights_once", lambda model, precision: None)
    plain = open_scorer(runs(kind), device="cpu", precision="bf16-mixed")
    kinds = [{weight.dtype for weight in scorer.model.backbone.parameters()} for scorer in (cast, plain)]
    assert (kinds[0] != kinds[1]) == (kind == "encoder_bf16")
    np.testing.assert_array_equal(cast.logits(texts), plain.logits(texts))
    in_float32 = open_scorer(runs(kind), device="cpu", precision="32-true")
    assert not np.array_equal(plain.logits(texts), in_float32.logits(texts))


def test_a_template_of_several_columns_is_filled_from_a_mapping(runs):
    run = runs("title")
    tagger = Tagger(run, device="cpu")
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet").predictions
    title, text = stored.titles[0], stored.texts[0]
    assert text.startswith(title)
    parts = tagger({"title": title, "overview": text.removeprefix(f"{title}. ")})
    assert parts.probabilities == pytest.approx(tagger(text).probabilities, abs=1e-6)
    # without a title nothing is left of its place in the template
    assert tagger("A dog.").probabilities == pytest.approx(tagger({"overview": "A dog."}).probabilities, abs=1e-6)
    with pytest.raises(DataError, match=r"cast.*title, overview"):
        tagger({"cast": "x"})


def test_a_list_and_a_stream_answer_in_order(tagger, monkeypatch):
    monkeypatch.setattr("genre_lightning.inference.tagger.WINDOW", 4)
    texts = [f"A dog {'runs and ' * (7 * n % 5)}finds its way home." for n in range(11)]
    alone = [tagger(text).probabilities for text in texts]
    listed = tagger(texts)
    assert [film.text for film in listed] == texts
    for film, expected in zip(listed, alone, strict=True):
        assert film.probabilities == pytest.approx(expected, abs=1e-5)
    assert [film.text for film in tagger(text for text in texts)] == texts
    endless = tagger(f"A dog number {number}." for number in count())
    assert [film.text for film in islice(endless, 5)] == [f"A dog number {number}." for number in range(5)]
    assert tagger([]) == []


def test_thresholds_and_top_k_decide(tagger):
    text = "Two soldiers fall in love with the same nurse."
    own = tagger(text)
    assert list(own.probabilities.values()) == sorted(own.probabilities.values(), reverse=True)
    limits = dict(zip(tagger.genres, tagger.decision.threshold_per_genre, strict=True))
    assert own.names == tuple(name for name, p in own.probabilities.items() if p >= limits[name])
    assert own.thresholds == limits
    three = tagger(text, top_k=3)
    assert three.names == tuple(islice(own.probabilities, 3))
    assert {genre.threshold for genre in three.genres} == {None}
    level = sorted(own.probabilities.values())[-2]
    assert tagger(text, threshold=level).names == tuple(islice(own.probabilities, 2))
    assert tagger(text, threshold=level, top_k=1).names == tuple(islice(own.probabilities, 1))
    assert tagger(text, threshold=1.0).genres == ()


@pytest.mark.parametrize(("options", "word"), [({"top_k": 0}, "top_k"), ({"threshold": 1.5}, "threshold is 1.5")])
def test_impossible_options_are_refused(tagger, options, word):
    with pytest.raises(ConfigError, match=word):
        tagger("x", **options)


def test_texts_that_are_not_as_they_should_be(tagger):
    empty, long, huge, foreign, plain = tagger(
        ["  \n ", "home " * 60, "word " * 1_000_000, "Собака нашла дорогу домой через лес.", "A dog finds its home."]
    )
    assert (empty.genres, empty.probabilities) == ((), {})
    assert "empty" in empty.notes[0]
    assert "62 tokens, of which the model reads the first 48" in long.notes[0]
    assert "more than" in huge.notes[0]
    assert "another language" in foreign.notes[-1]
    assert plain.notes == ()
    # half of a character is read as the sign for an unknown one
    assert tagger("A dog \ud800 home.").probabilities == tagger("A dog \ufffd home.").probabilities
    # what is cut is not read
    assert tagger("home " * 500).probabilities == pytest.approx(long.probabilities, abs=1e-6)


def test_directories_that_cannot_be_used(runs, tmp_path):
    with pytest.raises(CheckpointError, match="is not a run directory"):
        Tagger(tmp_path)
    with pytest.raises(ConfigError, match="device 'gpu7'"):
        Tagger(runs("encoder"), device="gpu7")


def test_the_package_alone_loads_no_library():
    code = "import sys, genre_lightning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = sys.modules["genre_lightning"].NoSuchName
