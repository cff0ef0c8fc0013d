"""Models, losses, readers and callbacks of a package outside this one, by --trust and from Python."""

import csv
import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml

from genre_lightning import DistilBertClassifier, MovieDataModule, Tagger
from genre_lightning.__main__ import main
from genre_lightning.config.trust import trust
from genre_lightning.errors import ConfigError

TEXT = "A sheriff hunts outlaws across the desert."


@pytest.fixture(autouse=True)
def package(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    trust([])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


def words(sample_csv, run, *more):
    return [
        "fit", "--trust", "own_package", "--model", "own_package.BagOfWords", "--data.csv", str(sample_csv),
        "--run_dir", str(run), "--data.vocab_size=600", "--data.max_tokens=48", "--trainer.max_epochs=1",
        "--data.cache_dir", str(run.parent / "cache"), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_model_of_ones_own_from_the_command_line(sample_csv, tmp_path, capsys):
    run = tmp_path / "run"
    own = ["--model.width=16", "--model.loss=own_package.soft_f1", "--data.reader=own_package.read_films",
           "--trainer.callbacks=own_package.NoteSteps"]  # fmt: skip
    assert main(words(sample_csv, run, *own)) == 0
    assert int((run / "steps.txt").read_text()) > 0
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["model"] == {
        "class_path": "own_package.BagOfWords",
        "init_args": {"width": 16, "lr": 0.01, "loss": "own_package.soft_f1"},
    }
    capsys.readouterr()
    # the run is finished: the same command changes nothing; a longer one resumes where it stopped
    assert main(words(sample_csv, run, *own)) == 0
    assert "is finished" in capsys.readouterr().err
    trusted = ["--trust", "own_package"]
    assert main(["tag", str(run), *trusted, "--json", TEXT]) == 0
    tagged = json.loads(capsys.readouterr().out)
    assert len(tagged["probabilities"]) == len(settings_genres(run))
    assert main(["predict", str(run), *trusted, "--data.csv", str(sample_csv), "--out", str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open(newline="") as out, sample_csv.open(newline="", encoding="utf-8") as given:
        assert sum(1 for _ in csv.DictReader(out)) == sum(1 for _ in csv.DictReader(given))
    assert main(["test", str(run), *trusted]) == 0
    capsys.readouterr()
    # without the word of the user nothing of the package is imported
    assert main(["tag", str(run), TEXT]) == 2
    assert "add --trust own_package" in capsys.readouterr().err
    assert main(["explain", str(run), *trusted, TEXT]) == 2
    assert "BagOfWords cannot be explained: its backbone needs get_input_embeddings()" in capsys.readouterr().err
    assert main(["plan", *words(sample_csv, tmp_path / "other")[1:], "--trainer.accelerator=cpu"]) == 0
    assert "memory and time are not planned for BagOfWords" in capsys.readouterr().out
    trust(["own_package"])
    assert Tagger(run)(TEXT).probabilities.keys() == tagged["probabilities"].keys()


def settings_genres(run):
    return json.loads((run / "decision.json").read_text())["genres"]


def test_own_functions_from_python(sample_csv, tmp_path):
    import own_package

    data = MovieDataModule(
        sample_csv, reader=own_package.read_films, global_batch_size=64, vocab_size=500, max_tokens=32,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    model = own_package.BagOfWords(width=8, loss=own_package.soft_f1)
    trainer = pl.Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, data)
    films = data.prepare().films
    assert all(text == text.lower() for text in films.strings("overview"))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    loaded = own_package.BagOfWords.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    assert loaded.hparams["width"] == 8
    for mine, theirs in zip(trainer.predict(model, data), trainer.predict(loaded, data), strict=True):
        assert torch.equal(mine["logits"], theirs["logits"])


def test_a_loss_that_is_one_number_is_refused(sample_csv, tmp_path, capsys):
    assert main(words(sample_csv, tmp_path / "run", "--model.loss=own_package.scalar")) == 2
    assert "return one value for each film" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model=own_package.Impostor"], "not a GenreClassifier that a trusted package defines"),
        (["--model=own_package.nn.Embedding"], "cannot be imported"),
        (["--model=own_package.GenreClassifier"], "not a GenreClassifier that a trusted package defines"),
        (["--model.loss=own_package.torch.sum"], "cannot be imported"),
        (["--model.loss=own_package.csv"], "not a function that a trusted package defines"),
        (["--model.loss=os.system"], "packages that you trust are called: leave it out, or from"),
        (["--data.reader=shutil.rmtree"], "packages that you trust are called: leave it out, or from"),
        (["--trust", "os.path"], "--trust os.path would let a configuration run any program"),
        (["--trainer.callbacks=own_package.BagOfWords"], "not a Callback that a trusted package defines"),
        (["--trust", "nowhere_to_be_found"], "there is no such package"),
        (["--trust"], "--trust needs the name of a package"),
    ],
)
def test_what_trust_does_not_cover(sample_csv, tmp_path, capsys, more, said):
    assert main(words(sample_csv, tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert sum(line.startswith("genre-lightning:") for line in error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_file_cannot_ask_for_trust(sample_csv, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("trust: own_package\nmodel: own_package.BagOfWords\n")
    asked = ["fit", "--config", str(config), "--data.csv", str(sample_csv), "--run_dir", str(tmp_path / "run")]
    assert main(asked) == 2
    assert "add --trust own_package" in capsys.readouterr().err


def test_a_path_to_a_loss_is_not_followed_without_trust():
    model = DistilBertClassifier("small", loss="own_package.soft_f1")
    with pytest.raises(ConfigError, match="add --trust own_package if the package is your own"):
        _ = model.loss_function
