"""Runs that are resumed with other settings, or end within an epoch: what they train by, and what they keep."""

import csv
import json

import pytest
import torch
from made_runs import everything_under, without_page
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.models.base import GenreClassifier

STEPS = 11
"""Of an epoch of the sample's 163 training films."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=200, seed=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    without_page(monkeypatch)


def fit(sample, run_dir, *more):
    words = [*SMALL, "--model.schedule=constant", "--model.warmup_fraction=0", "--trainer.log_every_n_steps=1", *more]
    return main(["fit", f"--data.csv={sample}", f"--run_dir={run_dir}", *words])


def rates(run_dir):
    """The learning rate of the backbone by step."""
    with (run_dir / "curves.csv").open(newline="") as file:
        return {int(row["step"]): float(row["lr/backbone"]) for row in csv.DictReader(file) if row["lr/backbone"]}


def checkpoint(run_dir, name="last"):
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.fixture
def films(monkeypatch):
    """The films of each step that is trained: (epoch, step, their indices)."""
    seen = []
    step = GenreClassifier.training_step

    def noted(self, batch, batch_idx):
        seen.append((self.trainer.current_epoch, self.trainer.global_step, batch["index"].tolist()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(GenreClassifier, "training_step", noted)
    return seen


def test_overridden_settings_of_the_optimizer_are_what_is_trained_by(sample, tmp_path):
    place, before = tmp_path / "run", ("--model.lr=0.01", "--model.weight_decay=0.01", "--model.beta2=0.999")
    now = ("--model.lr=0.0001", "--model.weight_decay=0.3", "--model.beta2=0.9")
    assert fit(sample, place, *before, "--trainer.max_epochs=1") == 0
    assert fit(sample, place, *now, "--trainer.max_epochs=2", "--override") == 0
    assert list(rates(place).values()) == [0.01] * STEPS + [0.0001] * STEPS
    groups = checkpoint(place)["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    assert {group["betas"] for group in groups} == {(0.9, 0.9)}
    metrics = json.loads((place / "evaluation/test/metrics.json").read_text())["training"]
    assert metrics["learning_rate"] == groups[0]["lr"] == 0.0001


def test_what_a_trained_run_keeps_is_refused_also_with_override(sample, tmp_path, capfd):
    place = tmp_path / "run"
    assert fit(sample, place, "--trainer.max_epochs=1") == 0
    for change, why in (
        ("--data.global_batch_size=64", "the steps of its epochs are counted by it"),
        ("--data.vocab_size=300", "with the tokenizer that it keeps"),
        ("--data.split=[0.5,0.2,0.3]", "each film keeps its side"),
    ):
        capfd.readouterr()
        assert fit(sample, place, change, "--trainer.max_epochs=2", "--override") == 2
        assert why in capfd.readouterr().err


def test_other_groups_of_the_optimizer_are_refused_and_nothing_is_changed(sample, tmp_path, capfd):
    place, longer = tmp_path / "run", ("--trainer.max_epochs=2", "--override")
    assert fit(sample, place, "--trainer.max_epochs=1") == 0
    before = everything_under(place)
    capfd.readouterr()
    assert fit(sample, place, *longer, "--model.layer_lr_decay=0.5") == 2
    assert "other groups of parameters" in capfd.readouterr().err
    assert everything_under(place) == before
    assert fit(sample, place, *longer) == 0


def test_an_override_takes_the_previous_checkpoint_if_the_last_ones_manifest_is_damaged(sample, tmp_path, capfd):
    place = tmp_path / "run"
    assert fit(sample, place, "--trainer.max_epochs=1") == 0
    (place / "checkpoints" / "last.ckpt.manifest.json").write_text("{}")
    assert fit(sample, place, "--trainer.max_epochs=2", "--override") == 0
    assert "last.ckpt cannot be verified" in capfd.readouterr().err
    assert (place / "checkpoints" / "last.ckpt.damaged").is_file()
    assert checkpoint(place)["global_step"] == 2 * STEPS


def test_a_longer_training_continues_by_its_own_schedule(sample, tmp_path):
    place, unbroken = tmp_path / "run", tmp_path / "unbroken"
    linear = "--model.schedule=linear"
    assert fit(sample, place, linear, "--trainer.max_epochs=1") == 0
    assert fit(sample, place, linear, "--trainer.max_epochs=3", "--override") == 0
    assert fit(sample, unbroken, linear, "--trainer.max_epochs=3") == 0
    longer, whole = rates(place), rates(unbroken)
    assert [longer[step] for step in range(STEPS, 3 * STEPS)] == [whole[step] for step in range(STEPS, 3 * STEPS)]


def test_an_overridden_patience_is_the_one_that_ends_the_training(sample, tmp_path):
    place, still = tmp_path / "run", ("--model.lr=1e-12", "--model.head_lr=1e-12", "--early_stopping.min_delta=0.5")
    assert fit(sample, place, *still, "--early_stopping.patience=1", "--trainer.max_epochs=2") == 0
    assert fit(sample, place, *still, "--early_stopping.patience=3", "--trainer.max_epochs=9", "--override") == 0
    assert max(rates(place)) + 1 == 4 * STEPS


@pytest.mark.parametrize("budget", [256, 100_000])
@pytest.mark.parametrize("longer", [["--trainer.max_steps=22"], ["--trainer.max_epochs=2", "--trainer.max_steps=-1"]])
def test_a_training_that_max_steps_ended_within_an_epoch_continues_in_it(sample, tmp_path, films, longer, budget):
    words = ("--trainer.max_epochs=-1", f"--data.micro_batch_tokens={budget}")
    assert fit(sample, tmp_path / "run", *words, "--trainer.max_steps=16") == 0
    assert fit(sample, tmp_path / "run", *words, *longer, "--override") == 0
    broken = list(films)
    films.clear()
    assert fit(sample, tmp_path / "unbroken", *words, *longer) == 0
    assert broken == films
    assert films[-1][:2] == (1, 21)
    assert list(rates(tmp_path / "run")) == list(range(22))
    one, other = (checkpoint(tmp_path / name)["state_dict"] for name in ("run", "unbroken"))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("average", [[], ["--model.ema_decay=0.9"]], ids=["weights", "average"])
@pytest.mark.parametrize("interval", [0.6, 0.25])
def test_the_best_checkpoint_is_the_validation_that_its_score_is_of(sample, tmp_path, interval, average, monkeypatch):
    evaluated = {}
    log = GenreClassifier._log_evaluation

    def noted(self, split):
        log(self, split)
        if not self.trainer.sanity_checking and split == "val":
            weights = {name: value.clone() for name, value in self.state_dict().items()}
            evaluated[float(self.trainer.callback_metrics["val/loss"])] = (self.trainer.global_step, weights)

    monkeypatch.setattr(GenreClassifier, "_log_evaluation", noted)
    words = (f"--trainer.val_check_interval={interval}", "--checkpoint.monitor=val/loss", "--trainer.max_epochs=8")
    assert fit(sample, tmp_path / "run", *words, *average, "--model.lr=0.02") == 0
    assert len(evaluated) > 8
    kept = checkpoint(tmp_path / "run", "best")
    state = next(value for key, value in kept["callbacks"].items() if key.startswith("RunCheckpoint"))
    step, weights = evaluated[min(evaluated)]
    assert (state["best_score"], state["best_step"]) == (min(evaluated), step)
    assert all(torch.equal(kept["state_dict"][name], weights[name]) for name in kept["state_dict"])
