"""A pretraining as its user starts it, cuts it off and starts it again, and the fit that takes its backbone."""

import csv

import numpy as np
import pytest
import torch
from made_runs import without_page
from power_cuts import power_cut, weights
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.config.data import DataOptions
from genre_lightning.data import prepare
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.pretraining import TextDataModule
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.models.masked_language import MaskedLanguageModel

OPTIONS = [*SMALL, "--trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Films, one in eight of them without genres, and one of these with the text of a film that has some."""
    place = tmp_path_factory.mktemp("films")
    with write_sample(place / "sample.csv", films=120, seed=2).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows[::8]:
        row["genres"] = "[]"
    with (place / "films.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return place / "films.csv"


def pretrain(sample, run_dir, *more):
    return main(["pretrain", f"--data.csv={sample}", f"--run_dir={run_dir}", *OPTIONS, *more])


@pytest.fixture(scope="module")
def run(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "pretrained"
    assert pretrain(sample, place) == 0
    return place


def losses(run_dir):
    with (run_dir / "curves.csv").open(newline="") as file:
        return {row["step"]: row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]}


def test_a_resumed_pretraining_is_bit_identical(sample, run, tmp_path):
    with power_cut(7, MaskedLanguageModel):
        pretrain(sample, tmp_path / "run")
    assert pretrain(sample, tmp_path / "run") == 0
    assert losses(tmp_path / "run") == losses(run)
    a, b = weights(run), weights(tmp_path / "run")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (run / "backbone/model.safetensors").read_bytes() == (
        tmp_path / "run/backbone/model.safetensors"
    ).read_bytes()


def test_a_finished_pretraining_changes_nothing(sample, run, capfd):
    before = (run / "backbone/model.safetensors").stat().st_mtime_ns
    assert pretrain(sample, run) == 0
    captured = capfd.readouterr()
    assert "all is done" in captured.err
    assert captured.out.strip() == str(run / "backbone")
    assert (run / "backbone/model.safetensors").stat().st_mtime_ns == before
    assert main(["validate", "--run_dir", str(run)]) == 2
    assert "'genre-lightning pretrain'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["tag", "{run}", "A text."], ["predict", "{run}", "--data.csv", "{csv}"], ["explain", "{run}", "A text."],
     ["report", "{run}"], ["serve", "{run}"], ["feedback", "import", "{csv}", "--run", "{run}"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_pretraining_has_no_genres_to_give(sample, run, capfd, words):
    assert main([word.format(run=run, csv=sample) for word in words]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert said[-1].endswith(
        f"is a pretraining and knows no genres: train on it by 'genre-lightning fit --model.backbone {run}/backbone', "
        "and name that run"
    )


def test_the_configuration_of_a_fit_is_taken(sample, tmp_path, capfd):
    assert pretrain(sample, tmp_path / "run", "--config=distilbert", *OPTIONS, "--trainer.max_steps=1") == 0
    assert "early_stopping is off" in capfd.readouterr().err


def test_fit_starts_from_the_backbone(sample, run, tmp_path, monkeypatch):
    without_page(monkeypatch)
    options = [word for word in SMALL if "architecture" not in word and "backbone" not in word]
    words = ["fit", f"--data.csv={sample}", f"--run_dir={tmp_path / 'fit'}", *options]
    rate = ["--model.lr=1e-12", "--trainer.max_epochs=1"]
    assert main([*words, f"--model.backbone={run / 'backbone'}", *rate]) == 0
    pretrained, fitted = weights(run), weights(tmp_path / "fit")
    name = "transformer.layer.0.attention.q_lin.weight"
    torch.testing.assert_close(fitted[f"backbone.{name}"], pretrained[f"backbone.distilbert.{name}"])


def test_no_text_of_validation_and_test_is_read(sample, tmp_path, monkeypatch):
    options = DataOptions(csv=sample, tokenizer="wordpiece", vocab_size=600, max_tokens=48, cache_dir=tmp_path)
    films = prepare_films(options)
    with sample.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held_out = [films.splits[side].films for side in ("validation", "test")]
    texts = set(films.films.strings("overview", films.rows[np.sort(np.concatenate(held_out))]))
    # a copy of a held-out text, without genres
    copy = next(row for row in rows if row["overview"].strip() in texts)
    with (tmp_path / "more.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows, {**copy, "id": "999999", "genres": "[]", "overview": copy["overview"].upper()}])
    read = []
    monkeypatch.setattr(prepare, "tokenise", _recording(prepare.tokenise, read))
    more = DataOptions(
        csv=tmp_path / "more.csv", tokenizer="wordpiece", vocab_size=600, max_tokens=48, cache_dir=tmp_path
    )
    data = TextDataModule(more)
    prepared = data.prepare()
    counts = prepared.audit["pretraining"]
    assert counts["training_films"] == len(films.splits["train"].films)
    assert counts["films_without_genres"] > 5
    assert counts["left_out"] >= 1
    assert len(read) == len(data.dataset("train")) == counts["training_films"] + counts["films_without_genres"]
    assert not {text.casefold() for text in read} & {text.casefold() for text in texts}
    with pytest.raises(ValueError, match="validation"):
        data.dataset("validation")


def _recording(tokenise, read):
    def recorded(texts, *arguments, **options):
        read.extend(texts)
        return tokenise(texts, *arguments, **options)

    return recorded


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--pretrain.mask_fraction=1.5", "pretrain.mask_fraction is 1.5"),
        ("--model=ZeroShotLlama", "predicts hidden words: leave --model out"),
        ("--model.unfreeze=1", "model.unfreeze is 1 without adapters"),
        ("--trainer.strategy=fsdp", "trainer.strategy=ddp"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(sample, tmp_path, capsys, option, reason):
    assert pretrain(sample, tmp_path / "run", option) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
