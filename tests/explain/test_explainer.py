"""Explainer on runs of each kind: what it explains is what the run decides."""

import numpy as np
import pytest
from made_runs import without_page
from scipy.special import expit
from small_run import SMALL

from genre_lightning import Tagger
from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.explain.explainer import Explainer

TEXT = "Two soldiers fall in love with the same nurse in a war."
DECODER = [
    "--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier",
    "--model.backbone=random",
    "--model.architecture={layers: 1, width: 32, heads: 2, inner_width: 48}",
    "--model.quantization=nf4",
    "--model.lora={rank: 4, dropout: 0}",
    "--data.tokenizer=wordpiece",
    "--data.vocab_size=600",
    "--data.max_tokens=48",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=bf16-mixed",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Makes each kind of run once, when it is asked for."""
    place = tmp_path_factory.mktemp("runs")
    sample = write_sample(place / "sample.csv", films=200, seed=3)

    def make(kind):
        run = place / kind
        if run.exists():
            return run
        common = [f"--data.csv={sample}", f"--run_dir={run}"]
        if kind == "tfidf_nb":
            assert main(["baseline", kind, *common]) == 0
        elif kind == "qlora":
            assert main(["fit", *common, *DECODER]) == 0
        else:
            options = ["--trainer.max_epochs=1", "--data.text={title}. {overview}", "--model.lr=0.01"]
            assert main(["fit", *common, *SMALL, *options]) == 0
        return run

    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        yield make


@pytest.mark.parametrize("kind", ["encoder", "qlora", "tfidf_nb"])
def test_the_genres_are_those_of_the_tagger_and_add_up_to_their_probabilities(runs, kind):
    explainer = Explainer(runs(kind), device="cpu")
    explanation = explainer(TEXT, top_k=3)
    tagged = Tagger(runs(kind), device="cpu")(TEXT, top_k=3)
    assert len(explanation.genres) == 3
    # the run's own precision may be half of ours
    atol = 0.02 if kind == "qlora" else 1e-5
    np.testing.assert_allclose(
        [explanation.tagged.probabilities[name] for name in tagged.probabilities],
        list(tagged.probabilities.values()),
        atol=atol,
    )
    for genre in explanation.genres:
        assert genre.probability == pytest.approx(expit(genre.log_odds), abs=1e-5)
        assert genre.baseline + genre.values.sum() == pytest.approx(genre.log_odds, abs=genre.error + 1e-9)
        assert genre.error <= 0.01 * max(abs(genre.change), 0.5 * explainer.decision.affine[0].max())
        assert (genre.steps == 0) == (kind == "tfidf_nb")
        assert np.abs(genre.strengths).max() == 1
    assert explanation.words.names[1] == "soldiers"


def test_the_likeliest_is_explained_if_none_is_decided(runs):
    explanation = Explainer(runs("tfidf_nb"))(TEXT, threshold=1.0)
    [genre] = explanation.genres
    assert not genre.decided
    assert genre.genre == next(iter(explanation.tagged.probabilities))
    assert genre.threshold == 1.0


def test_texts_are_read_as_the_tagger_reads_them(runs):
    explainer = Explainer(runs("encoder"), device="cpu", steps=2)
    both = explainer({"title": "Home", "overview": TEXT}, top_k=1)
    assert both.text == f"Home. {TEXT}"
    assert explainer(TEXT, top_k=1).text == TEXT
    long = explainer("home " * 60, top_k=1)
    assert "62 tokens, of which the model reads the first 48" in long.tagged.notes[0]
    assert long.read < len(long.text)
    assert len(long.as_dict()["read"]) == long.read
    empty = explainer(" \n ")
    assert (empty.genres, empty.words) == ((), None)
    assert empty.as_dict()["explanations"] == []
    # what a tokenizer makes nothing of
    assert explainer("\u200b\x07", top_k=1).genres[0].error < 1e-5


def test_words_that_occur_twice_are_named_once(runs):
    explanation = Explainer(runs("tfidf_nb"))("War and love and war.", top_k=5)
    for genre in explanation.genres:
        values = dict(zip(explanation.words.names, genre.values, strict=True))
        named = dict(genre.strongest(explanation.words, 9) + genre.strongest(explanation.words, 9, against=True))
        assert named["love"] == pytest.approx(values["love"])
        assert "and" not in named or named["and"] != 0
        assert [value > 0 for _, value in genre.strongest(explanation.words, 9)] == [True] * len(
            genre.strongest(explanation.words, 9)
        )


def test_runs_without_an_explanation_are_refused(runs, tmp_path):
    with pytest.raises(CheckpointError, match="is not a run directory"):
        Explainer(tmp_path)
    (tmp_path / "run_state.json").write_text('{"status": "finished"}')
    (tmp_path / "config.yaml").write_text("ensemble: {weights: {runs/a: 0.5, runs/b: 0.5}}\n")
    with pytest.raises(ConfigError, match="explain one of its runs: runs/a, runs/b"):
        Explainer(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {class_path: genre_lightning.models.zero_shot.ZeroShotLlama}\n")
    with pytest.raises(ConfigError, match="no head to explain"):
        Explainer(tmp_path)
    with pytest.raises(ConfigError, match="leave out --steps"):
        Explainer(runs("tfidf_nb"), steps=4)
    (tmp_path / "run_state.json").write_text('{"status": "training"}')
    with pytest.raises(CheckpointError, match="has not finished training"):
        Explainer(tmp_path)
