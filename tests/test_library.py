"""The library as a Lightning user drives it: the public names and a plain Trainer, nothing else of this package."""

import copy
import inspect
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

import genre_lightning
from genre_lightning import DistilBertClassifier, LlamaQLoraClassifier, MovieDataModule, train
from genre_lightning.errors import ConfigError, DivergedError

TINY = {"layers": 1, "width": 32, "heads": 2, "inner_width": 64}
STEPS, FILMS = 15, 240  # of an epoch


class Seen(Callback):
    """Notes the films and the loss of each step, as a user's own callback does."""

    def __init__(self):
        self.films, self.losses = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        real = batch["weights"] > 0
        self.films.append((trainer.global_step, batch["index"][real].tolist()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def by_step(self, first=0):
        steps = {}
        for step, films in self.films:
            steps.setdefault(step, []).extend(films)
        return {step: sorted(films) for step, films in steps.items() if step >= first}


@pytest.fixture
def parts(sample_csv, tmp_path):
    def make(**options):
        data = MovieDataModule(
            sample_csv, text="{title}. {overview}", global_batch_size=16, vocab_size=500, max_tokens=48,
            cache_dir=tmp_path / "cache",
        )  # fmt: skip
        settings = {"dropout": 0.1, "architecture": TINY, "seed": 3, "lr": 3e-3, **options}
        return DistilBertClassifier("small", **settings), data

    return make


@pytest.fixture
def trainer(tmp_path):
    def make(*callbacks, **options):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        settings = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, **quiet, **options}
        if not callbacks:
            settings.setdefault("enable_checkpointing", False)
        return pl.Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **settings)

    return make


def test_fit_validate_test_and_predict(parts, trainer):
    model, data = parts(lr=1e-2)
    plain = trainer(max_epochs=4)
    before = trainer().validate(parts()[0], data, verbose=False)[0]["val/loss"]
    plain.fit(model, data)
    validated = plain.validate(model, data, verbose=False)[0]
    assert validated["val/loss"] < before
    tested = plain.test(model, data, verbose=False)[0]
    assert {"test/loss", "test/f1_micro", "test/map_macro"} <= set(tested)
    outputs = plain.predict(model, data)
    places = torch.cat([part["index"] for part in outputs])
    logits = torch.cat([part["logits"] for part in outputs])
    labels = torch.from_numpy(data.prepare().splits["test"].labels)[places].float()
    assert sorted(places.tolist()) == list(range(len(labels)))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=model.pos_weight)
    assert tested["test/loss"] == pytest.approx(float(expected), rel=1e-5)


def test_batches_are_packed_for_a_model_that_packs(parts, trainer):
    layouts = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            layouts.append("attention_mask" not in batch)

    for packing in (True, False):
        model, data = parts(packing=packing)
        trainer(Look(), enable_checkpointing=False, max_steps=1).fit(model, data)
    assert layouts[0]
    assert not layouts[-1]


def test_resumed_fit_is_the_unbroken_one_to_the_bit(parts, trainer, tmp_path):
    def saving():
        return ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4, save_top_k=-1, filename="{step}")

    whole, rest = Seen(), Seen()
    model, data = parts()
    trainer(whole, saving(), max_epochs=2).fit(model, data)
    again, data = parts()
    middle = (tmp_path / "saved/step=4.ckpt").rename(tmp_path / "middle.ckpt")
    shutil.rmtree(tmp_path / "saved")
    trainer(rest, saving(), max_epochs=2).fit(again, data, ckpt_path=middle)
    assert rest.by_step() == whole.by_step(first=4)
    assert rest.losses == whole.losses[4:]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_checkpoint_of_other_steps_is_not_resumed_but_evaluated(parts, trainer, tmp_path):
    model, data = parts()

    def saving():
        return ModelCheckpoint(tmp_path / "saved", filename="one", save_top_k=-1)

    trainer(saving()).fit(model, data)
    again, data = parts()
    data.options.global_batch_size = 32
    saved = tmp_path / "saved" / "one.ckpt"
    with pytest.raises(ConfigError, match=r"steps of 16 films, and data.global_batch_size is 32"):
        trainer(saving(), max_epochs=2).fit(again, data, ckpt_path=saved)
    assert trainer(saving()).test(again, data, ckpt_path=saved, verbose=False)
    later = trainer()
    later.fit(again, data)
    assert later.global_step == (STEPS + 1) // 2


class Saves(Callback):
    """Saves a checkpoint after some micro-batches of a step, as one by the clock or by an exception may be."""

    def __init__(self, path, step, micro_batches):
        self.path, self.step, self.micro_batches = path, step, micro_batches

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        done = (batch_idx + 1) % trainer.accumulate_grad_batches
        if (trainer.global_step, done) == (self.step, self.micro_batches):
            trainer.save_checkpoint(self.path)


class Validations(Callback):
    """The optimizer steps after which there was a validation."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)


@pytest.mark.parametrize("interval", [1.0, 0.4])
@pytest.mark.parametrize(
    ("step", "done"), [(0, 1), (0, 2), (5, 1), (5, 2), (6, 0), (STEPS - 1, 2), (STEPS, 2), (21, 0)]
)
def test_a_checkpoint_from_within_a_step_resumes_at_its_start(parts, trainer, tmp_path, step, done, interval):
    def cut():
        model, data = parts()
        data.options.micro_batch_tokens = 256
        return model, data

    options = {"max_epochs": 2, "val_check_interval": interval}
    whole, rest, validated, validated_again = Seen(), Seen(), Validations(), Validations()
    model, data = cut()
    saving = Saves(tmp_path / "saved.ckpt", step, done)
    trainer(whole, validated, saving, enable_checkpointing=False, **options).fit(model, data)
    again, data = cut()
    resumed = trainer(rest, validated_again, enable_checkpointing=False, **options)
    resumed.fit(again, data, ckpt_path=tmp_path / "saved.ckpt")
    assert resumed.accumulate_grad_batches == 4
    assert rest.by_step() == whole.by_step(first=step)
    assert rest.losses == whole.losses[step:]
    assert validated_again.steps == [at for at in validated.steps if at > step or (at == step and done == 0)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("budget", [256, 100_000])
@pytest.mark.parametrize(("interval", "steps"), [(0.25, [3, 6, 9, 12, 15, 18]), (4, [4, 8, 12, 19]), (15, [15])])
def test_validations_come_after_the_same_steps_however_these_are_cut(parts, trainer, budget, interval, steps):
    validated = Validations()
    model, data = parts()
    data.options.micro_batch_tokens = budget
    plain = trainer(validated, enable_checkpointing=False, max_epochs=2, max_steps=20, val_check_interval=interval)
    plain.fit(model, data)
    assert plain.accumulate_grad_batches == (4 if budget == 256 else 1)
    assert validated.steps == steps


def test_an_interval_of_validations_beyond_an_epoch_is_refused(parts, trainer):
    with pytest.raises(ConfigError, match="val_check_interval is 16, and an epoch has 15 optimizer steps"):
        trainer(val_check_interval=16).fit(*parts())


def test_every_film_is_seen_once_in_an_epoch(parts, trainer):
    seen = Seen()
    model, data = parts()
    trainer(seen, enable_checkpointing=False).fit(model, data)
    films = [film for _, part in seen.films for film in part]
    assert sorted(films) == list(range(len(data.prepare().splits["train"].films)))


def test_a_model_is_loaded_from_a_checkpoint_of_plain_values(parts, trainer, tmp_path):
    model, data = parts()
    plain = trainer(ModelCheckpoint(tmp_path / "saved", filename="end"))
    plain.fit(model, data)
    loaded = DistilBertClassifier.load_from_checkpoint(tmp_path / "saved/end.ckpt", weights_only=True)
    assert loaded.hparams == model.hparams
    assert loaded.hparams["architecture"] == TINY
    assert loaded.spec.genres == model.spec.genres
    for mine, theirs in zip(plain.predict(model, data), plain.predict(loaded, data), strict=True):
        assert torch.equal(mine["logits"], theirs["logits"])
    assert plain.test(loaded, data, verbose=False)[0] == pytest.approx(
        plain.test(model, data, verbose=False)[0], rel=0, abs=0, nan_ok=True
    )


def test_adapters_are_loaded_over_their_base(sample_csv, trainer, tmp_path):
    data = MovieDataModule(
        sample_csv, global_batch_size=16, vocab_size=500, max_tokens=32, cache_dir=tmp_path / "cache"
    )
    model = LlamaQLoraClassifier("random", architecture={**TINY, "kv_heads": 1}, lora={"rank": 2}, quantization="none")
    plain = trainer(ModelCheckpoint(tmp_path / "saved", filename="end"), max_steps=2)
    plain.fit(model, data)
    loaded = LlamaQLoraClassifier.load_from_checkpoint(tmp_path / "saved/end.ckpt", weights_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_frozen_weights_take_the_trainers_precision(sample_csv, trainer, tmp_path, precision, dtype):
    data = MovieDataModule(
        sample_csv, global_batch_size=16, vocab_size=500, max_tokens=32, cache_dir=tmp_path / "cache"
    )
    model = LlamaQLoraClassifier("random", architecture={**TINY, "kv_heads": 1}, lora={"rank": 2}, quantization="none")
    trainer(max_steps=1, precision=precision).fit(model, data)
    linear = {p.dtype for name, p in model.named_parameters() if name.endswith("proj.weight")}
    assert linear == {dtype}


def test_options_stand_in_the_signature_and_in_hparams():
    parameters = inspect.signature(DistilBertClassifier).parameters
    assert {"backbone", "pooling", "lora", "loss", "pos_weight", "lr", "seed"} <= set(parameters)
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values())
    assert typing.get_args(parameters["pooling"].annotation) == ("mean", "cls")
    model = DistilBertClassifier("small", pos_weight="full", lr=0.1)
    assert set(model.hparams) == set(parameters)
    assert (model.hparams["pos_weight"], model.hparams["lr"]) == ("full", 0.1)
    assert "learning rate" in DistilBertClassifier.__init__.__doc__
    assert {"csv", "text", "global_batch_size"} <= set(inspect.signature(MovieDataModule).parameters)
    with pytest.raises(TypeError, match="lrr"):
        DistilBertClassifier("small", lrr=0.1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches is planned"),
        ({"limit_train_batches": 3}, "limit_train_batches would break the plan"),
        ({"overfit_batches": 2}, "overfit_batches would break the plan"),
        ({"reload_dataloaders_every_n_epochs": 1}, "reload_dataloaders_every_n_epochs would break the plan"),
        ({"fast_dev_run": True}, "fast_dev_run saves nothing"),
        ({"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, "gradient_clip_algorithm is value"),
        ({"max_epochs": -1}, "neither trainer.max_epochs nor trainer.max_steps"),
        ({"precision": "bf16-true"}, "keep trained weights in half precision"),
    ],
)
def test_what_a_trainer_must_not_do_is_refused(parts, trainer, options, named):
    with pytest.raises(ConfigError, match=named) as refused:
        trainer(**options).fit(*parts())
    assert "\n" not in str(refused.value)


def test_the_moving_average_is_evaluated_and_saved_whenever(parts, trainer, tmp_path):
    """Also in a checkpoint that Lightning's own callback writes between the hooks of a validation."""

    class Scores(Callback):
        def __init__(self):
            self.by_step = {}

        def on_validation_end(self, trainer, pl_module):
            self.by_step[trainer.global_step] = float(trainer.callback_metrics["val/loss"])

    scores = Scores()
    saved = ModelCheckpoint(tmp_path / "saved", "{step}", monitor="val/loss", save_top_k=-1)
    model, data = parts(ema_decay=0.9)
    plain = trainer(scores, saved, max_epochs=2, val_check_interval=5, num_sanity_val_steps=0)
    plain.fit(model, data)
    by_step = dict(scores.by_step)
    assert len(by_step) == 6
    validated = plain.validate(model, data, verbose=False)[0]["val/loss"]
    assert validated == pytest.approx(by_step[2 * STEPS], rel=1e-6)
    tested = plain.test(model, data, verbose=False)[0]["test/loss"]
    # from each checkpoint the weights that were evaluated, and a training that continues as it did
    for step, score in by_step.items():
        path = tmp_path / f"saved/step={step}.ckpt"
        loaded = DistilBertClassifier.load_from_checkpoint(path, weights_only=True)
        found = trainer().validate(loaded, data, verbose=False)
        assert found[0]["val/loss"] == pytest.approx(score, rel=1e-6), step
        again = plain.validate(model, data, ckpt_path=path, weights_only=True, verbose=False)
        assert again[0]["val/loss"] == found[0]["val/loss"], step
    again, data = parts(ema_decay=0.9)
    middle = (tmp_path / f"saved/step={STEPS - 5}.ckpt").rename(tmp_path / "middle.ckpt")
    shutil.rmtree(tmp_path / "saved")
    saved = ModelCheckpoint(tmp_path / "saved", "{step}", monitor="val/loss", save_top_k=-1)
    resumed = trainer(saved, max_epochs=2, val_check_interval=5, num_sanity_val_steps=0)
    resumed.fit(again, data, ckpt_path=middle, weights_only=True)
    assert resumed.test(again, data, verbose=False)[0]["test/loss"] == tested


def test_a_checkpoint_of_weights_alone_has_the_moving_average_too(parts, trainer, tmp_path):
    class Both(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "whole.ckpt")
                trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)

    model, data = parts(ema_decay=0.9)
    trainer(Both(), enable_checkpointing=False, max_steps=9).fit(model, data)
    whole, weights = (torch.load(tmp_path / f"{n}.ckpt", weights_only=True) for n in ("whole", "weights"))
    assert "optimizer_states" not in weights
    states = whole["optimizer_states"][0]["state"].values()
    assert not any(torch.equal(state["average"], next(iter(whole["state_dict"].values()))) for state in states)
    for name, value in whole["state_dict"].items():
        assert torch.equal(weights["state_dict"][name], value), name


@pytest.mark.parametrize("interval", ["00:00:10:00", {"minutes": 10}])
def test_validations_by_the_clock(parts, trainer, interval):
    validated = Validations()
    plain = trainer(validated, EarlyStopping("val/loss", check_on_train_epoch_end=False),
                    enable_checkpointing=False, max_steps=STEPS, val_check_interval=interval)  # fmt: skip
    plain.fit(*parts())
    assert plain.global_step == STEPS
    assert not validated.steps


def test_lightnings_callbacks_see_the_interval_that_was_set(parts, trainer, tmp_path):
    for interval, by_epoch in ((1.0, True), (1 / STEPS, False), (1, False)):
        saved = ModelCheckpoint(tmp_path / str(interval), monitor="val/loss")
        plain = trainer(saved, val_check_interval=interval, limit_val_batches=1)
        plain.fit(*parts())
        assert saved._should_save_on_train_epoch_end(plain) == by_epoch
        assert copy.deepcopy(plain.val_check_interval) == plain.val_check_interval


@pytest.mark.parametrize("limit", [1e-3, 1e3, None])
def test_gradients_are_clipped_by_their_global_norm(parts, trainer, limit):
    class Gradients(Callback):
        def __init__(self):
            self.before, self.after = [], []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.before.append([p.grad.clone() for p in pl_module.parameters()])

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.after.append([p.grad.clone() for p in pl_module.parameters()])

    seen = Gradients()
    trainer(seen, enable_checkpointing=False, max_steps=2, gradient_clip_val=limit).fit(*parts())
    assert len(seen.before) == 2
    for before, after in zip(seen.before, seen.after, strict=True):
        norm = torch.cat([gradient.flatten() for gradient in before]).norm()
        factor = min(float(limit / norm), 1.0) if limit else 1.0
        for old, new in zip(before, after, strict=True):
            torch.testing.assert_close(new, factor * old, rtol=1e-4 if factor < 1 else 0, atol=0)


def test_a_callback_that_would_cut_steps_otherwise_is_refused(parts, trainer):
    with pytest.raises(ConfigError, match="GradientAccumulationScheduler would cut steps"):
        trainer(GradientAccumulationScheduler({0: 1, 1: 4})).fit(*parts())


def test_a_callback_that_freezes_the_backbone_is_refused(parts, trainer):
    with pytest.raises(ConfigError, match=r"BackboneFinetuning.*set lora, unfreeze"):
        trainer(BackboneFinetuning(1)).fit(*parts())


def test_a_loss_of_ones_own_is_passed_again_to_a_training_from_its_checkpoint(parts, trainer, tmp_path):
    def soft(logits, targets, pos_weight):
        return (logits.sigmoid() - targets).square().mean(dim=1)

    def saving():
        return ModelCheckpoint(tmp_path / "saved", filename="kept")

    model, data = parts(loss=soft)
    trainer(saving(), max_steps=2).fit(model, data)
    path = (tmp_path / "saved/kept.ckpt").rename(tmp_path / "kept.ckpt")
    alone = DistilBertClassifier.load_from_checkpoint(path, weights_only=True)
    with pytest.raises(ConfigError, match="from Python pass the function itself"):
        trainer(saving(), max_steps=3).fit(alone, data, ckpt_path=path, weights_only=True)
    again = DistilBertClassifier.load_from_checkpoint(path, weights_only=True, loss=soft)
    continued = trainer(saving(), max_steps=3)
    continued.fit(again, data, ckpt_path=path, weights_only=True)
    assert continued.global_step == 3


def test_one_trainer_fits_one_data_module_after_another(parts, trainer):
    plain = trainer(max_epochs=1)
    for number in (1, 2):
        model, data = parts()
        data.options.micro_batch_tokens = 256
        plain.fit_loop.max_epochs = number
        plain.fit(model, data)
    assert plain.accumulate_grad_batches == 4


def test_an_optimizer_of_ones_own_is_logged_by_its_groups(parts, trainer):
    rows = []

    class Own(DistilBertClassifier):
        def configure_optimizers(self):
            return torch.optim.SGD([{"params": [p], "lr": 0.1} for p in self.parameters() if p.requires_grad][:2])

    class Look(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rows.append(dict(pl_module.row))

    _, data = parts()
    trainer(Look(), enable_checkpointing=False, max_steps=2).fit(Own("small", architecture=TINY, seed=3), data)
    assert (rows[0]["lr/group0"], rows[0]["lr/group1"]) == (0.1, 0.1)


def test_the_seed_of_lightning_is_the_models_unless_it_has_one(parts, trainer, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def first_weights(everything, **options):
        if everything is not None:
            pl.seed_everything(everything)
        model, data = parts(**options)
        trainer(max_steps=1, max_epochs=1).fit(model, data)
        return model.seed, model.head[-1].weight.detach().clone()

    seeds, weights = zip(*(first_weights(seed, seed=None) for seed in (None, 1, 2, 2)), strict=True)
    assert seeds == (0, 1, 2, 2)
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[3])
    assert first_weights(5, seed=3)[0] == 3


def test_building_a_model_leaves_the_callers_random_numbers_alone(parts, trainer, tmp_path):
    model, data = parts()
    plain = trainer(ModelCheckpoint(tmp_path / "saved", filename="end"))
    plain.fit(model, data)
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    DistilBertClassifier.load_from_checkpoint(tmp_path / "saved/end.ckpt")
    assert torch.equal(torch.rand(3), expected)
    assert torch.initial_seed() == 99


def test_callbacks_find_the_loss_of_every_step(parts, trainer, tmp_path):
    saving = ModelCheckpoint(tmp_path / "by_loss", monitor="train/loss", every_n_train_steps=5)
    stopping = EarlyStopping("train/loss", check_on_train_epoch_end=True)
    trainer(saving, stopping, log_every_n_steps=50).fit(*parts())
    assert list((tmp_path / "by_loss").glob("*.ckpt"))


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback:UserWarning")  # as nothing is sharded
def test_lightnings_average_of_weights_trains(parts, trainer):
    from lightning.pytorch.callbacks import EMAWeightAveraging  # of Lightning 2.6

    model, data = parts()
    trainer(EMAWeightAveraging(decay=0.9), enable_checkpointing=False, max_epochs=2).fit(model, data)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")  # the finder's own checkpoint
def test_lightnings_learning_rate_finder_sets_the_rate(parts, trainer):
    model, data = parts(lr=1e-3)
    plain = trainer(max_epochs=1, enable_checkpointing=True)
    Tuner(plain).lr_find(model, datamodule=data, num_training=20, attr_name="lr")
    assert model.lr == model.learning_rates()[0] != 1e-3


def test_a_model_without_a_data_module_is_refused(parts, trainer):
    model, _ = parts()
    with pytest.raises(ConfigError, match="knows no genres: give the trainer a data module"):
        trainer().fit(model, DataLoader([1, 2]), DataLoader([1, 2]))


def test_a_loss_that_is_not_a_number_names_step_films_and_checkpoint(parts, trainer, tmp_path):
    def spoilt(logits, targets, pos_weight):
        spoilt.calls += 1
        return logits.mean(dim=1) * (float("nan") if spoilt.calls > 6 else 1.0)

    spoilt.calls = 0
    model, data = parts(loss=spoilt)
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=2, save_top_k=-1, filename="{step}")
    with pytest.raises(DivergedError, match=r"from optimizer step \d+ on \(films with ids .*\.ckpt holds the weights"):
        trainer(saving, num_sanity_val_steps=0).fit(model, data)
    for path in (tmp_path / "saved").glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


TWO_RANKS = """
import sys
import lightning.pytorch as pl
import torch
from genre_lightning import DistilBertClassifier, MovieDataModule
from test_library import Seen, TINY

file, folder, devices = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = MovieDataModule(file, global_batch_size=16, vocab_size=500, max_tokens=48, cache_dir=folder + "/cache")
model = DistilBertClassifier("small", dropout=0.0, architecture=TINY, seed=3, lr=3e-3)
seen = Seen()
trainer = pl.Trainer(
    max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False,
    callbacks=[seen], enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    log_every_n_steps=1, default_root_dir=folder,
)
trainer.fit(model, data)
metrics = trainer.test(model, data, verbose=False)[0]
torch.save(
    {"films": seen.films, "losses": seen.losses, "test": metrics["test/loss"], "f1": metrics["test/f1_micro"]},
    f"{folder}/{devices}-{trainer.global_rank}.pt",
)
"""


def test_two_ranks_see_every_film_once_and_train_as_one(sample_csv, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(TWO_RANKS)
    words = [str(script), str(sample_csv), str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, "1"])
    exec(compile(TWO_RANKS, "one rank", "exec"), {})
    # Lightning starts the second rank as this script again, so it needs a process of its own
    done = subprocess.run(
        [sys.executable, *words, "2"],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, *two = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    films = [film for rank in two for _, part in rank["films"] for film in part]
    assert sorted(films) == sorted(film for _, part in one["films"] for film in part)
    assert sorted(films) == sorted(2 * list(range(len(films) // 2)))
    for rank in two:
        assert rank["losses"] == pytest.approx(one["losses"], rel=1e-4)
        assert rank["test"] == pytest.approx(one["test"], rel=1e-4)
        assert rank["f1"] == pytest.approx(one["f1"], abs=1e-6)


def test_train_is_the_command_as_one_call(sample_csv, tmp_path):
    settings = {
        "data": {"csv": str(sample_csv), "vocab_size": 500, "max_tokens": 32, "cache_dir": str(tmp_path / "cache")},
        "model": {
            "class_path": "genre_lightning.DistilBertClassifier",
            "init_args": {"backbone": "small", "architecture": TINY},
        },
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "log_every_n_steps": 1},
    }
    run = train(settings, run_dir=tmp_path / "run", options={"model.lr": 0.01})
    assert set(run.metrics) == {"validation", "test"}
    assert run.checkpoint.is_file()
    assert run.report.is_file()
    again = train(run.path / "config.yaml", run_dir=run.path)
    assert again.metrics == run.metrics
    assert run.tagger()("A sheriff hunts outlaws.").probabilities
    loaded = DistilBertClassifier.load_from_checkpoint(run.checkpoint, weights_only=True)
    assert loaded.hparams["lr"] == 0.01
    with pytest.raises(ConfigError, match=r"model\.lr"):
        train("quickstart", csv=sample_csv, run_dir=run.path, options={"model.lr": -1})
    with pytest.raises(ConfigError, match="'genre-lightning configs' lists"):
        train("quickstarts", csv=sample_csv, run_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_public_names_are_imported_when_asked_for():
    code = "import sys, genre_lightning; assert 'torch' not in sys.modules; genre_lightning.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "has no attribute 'nothing'" in done.stderr
    for name in genre_lightning.__all__:
        assert getattr(genre_lightning, name) is not None
    assert (Path(genre_lightning.__file__).parent / "py.typed").is_file()
