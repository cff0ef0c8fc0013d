"""When RunCheckpoint saves, and what it calls best."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from genre_lightning.config.changes import training_digest
from genre_lightning.distributed.checkpoint import files as checkpoint_files
from genre_lightning.errors import ConfigError, SaveError
from genre_lightning.metrics import better_is_higher
from genre_lightning.training.callbacks import checkpoints
from genre_lightning.training.callbacks.checkpoints import RunCheckpoint
from genre_lightning.training.callbacks.early_stopping import PatientStopping


class FakeTrainer:
    """What RunCheckpoint asks of a trainer."""

    def __init__(self, accumulate=2, batches=10):
        self.accumulate_grad_batches = accumulate
        self.batches = batches
        self.global_step = 0
        self.is_last_batch = False
        self.is_global_zero = True
        self.sanity_checking = False
        self.world_size = 1
        self.loggers = []
        self.callback_metrics = {}
        self.saved = []
        self.failure = ""
        self.lightning_module = SimpleNamespace(check_finite=lambda: None)
        self.strategy = SimpleNamespace(broadcast=lambda value: value, save_checkpoint=self.save)
        self._checkpoint_connector = SimpleNamespace(dump_checkpoint=lambda weights_only: {})

    def save(self, content, path):
        if self.failure:
            raise SaveError(self.failure)
        self.saved.append((path.name, self.global_step))

    def epoch(self, callback, **metrics):
        for batch in range(self.batches):
            self.global_step += (batch + 1) % self.accumulate_grad_batches == 0
            self.is_last_batch = batch == self.batches - 1
            callback.on_train_batch_end(self, None, None, None, batch)
        self.callback_metrics = {f"val/{name}": torch.tensor(value) for name, value in metrics.items()}
        callback.on_validation_end(self, None)
        callback.on_train_epoch_end(self, None)


@pytest.mark.parametrize("name", ["f1_micro", "f1_micro_tuned", "map_macro", "recall_micro", "precision_micro"])
def test_higher_is_better(name):
    assert better_is_higher(f"val/{name}")


@pytest.mark.parametrize("name", ["loss", "hamming_loss", "ece"])
def test_lower_is_better(name):
    assert not better_is_higher(f"val/{name}")


def test_best_and_last(tmp_path):
    callback, trainer = RunCheckpoint(tmp_path, "val/f1_micro"), FakeTrainer()
    for value in (0.5, 0.4, float("nan"), 0.5, 0.6):
        trainer.epoch(callback, f1_micro=value)
    assert trainer.saved == [
        ("best.ckpt", 5), ("last.ckpt", 5), ("last.ckpt", 10), ("last.ckpt", 15), ("last.ckpt", 20),
        ("best.ckpt", 25), ("last.ckpt", 25),
    ]  # fmt: skip
    assert (callback.best_score, callback.best_step) == (pytest.approx(0.6), 25)
    assert (callback.best, callback.last) == (tmp_path / "best.ckpt", tmp_path / "last.ckpt")


def test_the_lowest_loss_is_best(tmp_path):
    callback, trainer = RunCheckpoint(tmp_path, "val/loss"), FakeTrainer()
    for value in (0.5, 0.6, 0.4):
        trainer.epoch(callback, loss=value)
    assert [step for name, step in trainer.saved if name == "best.ckpt"] == [5, 15]


def test_without_the_metric_only_last_is_saved(tmp_path):
    callback, trainer = RunCheckpoint(tmp_path, "val/loss"), FakeTrainer()
    trainer.epoch(callback)
    assert trainer.saved == [("last.ckpt", 5)]


def test_saves_at_the_end_of_steps_only(tmp_path):
    callback, trainer = RunCheckpoint(tmp_path, "val/loss", every_steps=2), FakeTrainer(accumulate=3, batches=15)
    trainer.epoch(callback)
    assert trainer.saved == [("last.ckpt", 2), ("last.ckpt", 4), ("last.ckpt", 5)]


def test_saves_by_the_clock_of_rank_0(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    callback, trainer = RunCheckpoint(tmp_path, "val/loss", every_minutes=1), FakeTrainer()
    asked = []
    trainer.strategy.broadcast = lambda value: asked.append(value) or value
    callback.on_train_start(trainer, torch.nn.Linear(2, 2))
    for now in (30.0, 59.0, 61.0, 100.0, 122.0):  # noqa: B007  # the clock above reads it
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, None, None, None, 1)
    assert trainer.saved == [("last.ckpt", 3), ("last.ckpt", 5)]
    assert [due for due in asked if isinstance(due, bool)] == [False, False, True, False, True]


def test_state(tmp_path):
    first = RunCheckpoint(tmp_path, "val/loss")
    first.best_score, first.best_step = 0.25, 7
    again, other = RunCheckpoint(tmp_path, "val/loss"), RunCheckpoint(tmp_path, "val/f1_micro")
    again.load_state_dict(first.state_dict())
    other.load_state_dict(first.state_dict())  # a score of another metric says nothing
    assert (again.best_score, again.best_step) == (0.25, 7)
    assert (other.best_score, other.best_step) == (None, None)


def test_scores_of_other_texts_or_networks_do_not_compare(tmp_path):
    texts = (
        "data: {text: one, num_workers: 0}",
        "data: {text: one, num_workers: 3}\ntrainer: {max_epochs: 9}",
        "data: {text: two}",
    )
    first, faster, other = (
        RunCheckpoint(tmp_path, "val/loss", reading_sha256=training_digest(text, ("data", "model"))) for text in texts
    )
    first.best_score, first.best_step = 0.25, 7
    for again in (faster, other):
        again.load_state_dict(first.state_dict())
    assert (faster.best_score, faster.best_step) == (0.25, 7)
    assert (other.best_score, other.best_step) == (None, None)


@pytest.mark.parametrize("of_this_rank", [True, False])
def test_a_save_that_fails_on_one_rank_stops_all(tmp_path, of_this_rank):
    callback, trainer = RunCheckpoint(tmp_path, "val/loss"), FakeTrainer()
    if of_this_rank:
        trainer.failure = "the disk is full"
    else:
        trainer.strategy.broadcast = lambda value: "the disk is full"
    with pytest.raises(SaveError, match="the disk is full"):
        trainer.epoch(callback)


def test_a_save_that_fails_can_be_a_warning(tmp_path):
    callback, trainer = RunCheckpoint(tmp_path, "val/loss", on_failure="warn"), FakeTrainer()
    trainer.failure = "the disk is full"
    with pytest.warns(UserWarning, match="the disk is full .continuing"):
        trainer.epoch(callback)
    trainer.failure = ""
    trainer.epoch(callback)
    assert trainer.saved == [("last.ckpt", 10)]


def test_a_best_state_that_could_not_be_saved_does_not_count_as_best(tmp_path):
    callback, trainer = RunCheckpoint(tmp_path, "val/loss", on_failure="warn"), FakeTrainer()
    trainer.epoch(callback, loss=0.5)
    trainer.failure = "the disk is full"
    with pytest.warns(UserWarning, match="the disk is full"):
        trainer.epoch(callback, loss=0.1)
    assert (callback.best_score, callback.best_step) == (0.5, 5)
    trainer.failure = ""
    trainer.epoch(callback, loss=0.2)
    assert callback.best_score == pytest.approx(0.2)
    assert callback.best_step == 15
    assert [step for name, step in trainer.saved if name == "best.ckpt"] == [5, 15]


@pytest.mark.parametrize(("reading", "counted"), [("a", 2), ("b", 0)])
def test_early_stopping_compares_no_scores_of_other_texts_or_networks(reading, counted):
    options = {"monitor": "val/loss", "patience": 3}
    before, after = PatientStopping(reading_sha256="a", **options), PatientStopping(reading_sha256=reading, **options)
    before.wait_count, before.best_score = 2, torch.tensor(0.1)
    after.load_state_dict(before.state_dict())
    assert after.wait_count == counted
    assert bool(after.best_score == before.best_score) == (counted > 0)
    assert after.state_key == EarlyStopping(**options).state_key


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path, monkeypatch):
    module, trainer = torch.nn.Linear(1000, 1000), FakeTrainer()
    one = 12 * 1001 * 1000
    monkeypatch.setattr(checkpoint_files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 * one - 1))
    with pytest.raises(ConfigError, match=r"no room .* needs 48.0 MB and the disk has 48.0 MB free.*keep_last=1"):
        RunCheckpoint(tmp_path, "val/loss").on_train_start(trainer, module)  # best, last, previous and the next
    RunCheckpoint(tmp_path, "val/loss", keep_last=1).on_train_start(trainer, module)
    (tmp_path / "last.ckpt").touch()
    RunCheckpoint(tmp_path, "val/loss").on_train_start(trainer, module)
