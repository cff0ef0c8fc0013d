"""Runs of earlier versions, whose configurations lack options that were added since, resume as they were."""

from dataclasses import asdict

import pytest
import yaml

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.changes import changes_training, differences, training_digest
from genre_lightning.config.constructors import plain
from genre_lightning.config.decoder import LlamaQLoraOptions
from genre_lightning.config.encoder import EncoderOptions

BEFORE = {
    "loss", "pos_weight", "pos_weight_cap", "focal_gamma", "asymmetric_gamma_positive", "asymmetric_gamma_negative",
    "asymmetric_margin", "lr", "head_lr", "weight_decay", "warmup_fraction", "schedule", "beta2", "backbone",
    "revision", "lora", "activation_checkpointing", "packing", "architecture", "dropout", "random_weights",
    "quantization", "compute_dtype", "quant_storage", "optimizer",
}  # fmt: skip
"""Options of the first models."""
OF_LORA = ("rank", "alpha", "dropout", "targets", "rslora", "dora")


def settings(options):
    return {"model": {"class_path": "some.Model", "init_args": options}}


@pytest.mark.parametrize("kind", [EncoderOptions, LlamaQLoraOptions])
def test_options_that_are_added_have_the_value_of_runs_that_lack_them(kind):
    now = plain(kind(backbone="some/model", lora=LoraOptions()))
    pooling = {"pooling"} if kind is EncoderOptions else set()
    old = {name: value for name, value in now.items() if name in BEFORE | pooling}
    old["lora"] = {name: value for name, value in asdict(LoraOptions()).items() if name in OF_LORA}
    assert differences(settings(old), settings(now)) == []
    digests = {training_digest(yaml.safe_dump(settings(options))) for options in (old, now)}
    assert len(digests) == 1
    changed = {**now, "ema_decay": 0.99, "lora": {**now["lora"], "init": "pissa"}}
    assert differences(settings(old), settings(changed)) == [
        "model.ema_decay: null → 0.99",
        'model.lora.init: null → "pissa"',
    ]


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("data.num_workers", False), ("data.csv", False), ("trainer.devices", False), ("checkpoint.every_steps", False),
        ("model.activation_checkpointing", False), ("run_dir", False), ("decision.calibration", False),
        ("data.max_tokens", True), ("trainer.max_epochs", True), ("checkpoint.monitor", True), ("model.lr", True),
        ("seed", True), ("early_stopping.patience", True),
    ],
)  # fmt: skip
def test_an_option_says_whether_it_changes_the_training(option, changes):
    assert changes_training(option) is changes
