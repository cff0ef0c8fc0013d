"""Every numeric option has bounds beside it, and a number out of them is one line that names the option."""

import csv
import dataclasses
import inspect
import math
import os
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.bounds import Bounds, bound_problems, bounds_of
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.checked import parse_checked, parse_checked_baseline
from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.architectures import Architecture, LlamaArchitecture
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.model import OPTIONS
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions
from genre_lightning.config.trainer import TrainerOptions
from genre_lightning.distributed.precision import accelerator_of
from genre_lightning.errors import ConfigError
from genre_lightning.models.tfidf import BASELINES

KINDS = [
    DataOptions, TrainerOptions, CheckpointOptions, EarlyStoppingOptions, DecisionOptions, LoraOptions, Architecture,
    LlamaArchitecture, *OPTIONS.values(), *BASELINES.values(),
]  # fmt: skip
# checked by `option_problems` in a way of their own: none of them takes any number, or the form is not a number's
ELSEWHERE = {
    "devices", "precision", "limit_train_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches",
    "accumulate_grad_batches", "fast_dev_run", "max_time", "reload_dataloaders_every_n_epochs", "split", "label_since",
}  # fmt: skip
HOSTILE = [math.nan, math.inf, -math.inf, -1, -0.5, 0, 1.5, 1e30, 10**30]


def numeric_options(kind):
    found = {}
    for base in kind.__mro__[:-1]:
        made = base if dataclasses.is_dataclass(base) else base.__init__
        found |= {name: hint for name, hint in get_type_hints(made, include_extras=True).items() if name != "return"}
    return {name: hint for name, hint in found.items() if numbers_in(hint) & {int, float}}


def numbers_in(hint):
    if get_origin(hint) is Annotated:
        return numbers_in(get_args(hint)[0])
    if isinstance(hint, list):  # the parameters of a Callable
        return set()
    return {hint}.union(*map(numbers_in, get_args(hint))) if inspect.isclass(hint) or get_args(hint) else {hint}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_has_bounds(kind):
    assert set(numeric_options(kind)) - set(bounds_of(kind)) <= ELSEWHERE


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_number_is_taken_or_its_option_is_named(kind):
    for option, bounds in bounds_of(kind).items():
        for value in HOSTILE:
            problems = bound_problems(kind, {option: value}, "section")
            assert bool(problems) is not bounds.allows(value)
            for problem in problems:
                assert problem.startswith(f"section.{option} is {value}: give a ")
                assert "\n" not in problem
        for value in (math.nan, math.inf, 1e30, 10**30):
            assert not bounds.allows(value), option


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_defaults_are_within_their_bounds(kind):
    signature = inspect.signature(kind).parameters
    assert bound_problems(kind, {name: each.default for name, each in signature.items()}, "") == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model.beta2", "1.5"], "model.beta2 is 1.5"),
        (["--model.lr", ".nan"], "model.lr is nan"),
        (["--model.architecture.width", "0"], "model.architecture.width is 0"),
        (["--model.architecture.heads", "0"], "model.architecture.heads is 0"),
        (["--model=LlamaQLoraClassifier", "--model.backbone=random", "--model.lora.dropout", ".nan"],
         "model.lora.dropout is nan"),
        (["--data.max_films", "-1"], "data.max_films is -1"),
        (["--data.split", "[.nan, 0.5]"], "data.split is [nan, 0.5]"),
        (["--seed", "1" + 23 * "0"], "seed is 1"),
        (["--seed", "1e23"], "seed"),
        (["--trainer.devices", "0"], "trainer.devices is 0"),
        (["--trainer.devices", "[]"], "trainer.devices is []"),
        (["--trainer.devices", "1,1"], "trainer.devices is 1,1"),
        (["--trainer.num_nodes", "0"], "trainer.num_nodes is 0"),
        (["--trainer.gradient_clip_val", ".nan"], "trainer.gradient_clip_val is nan"),
        (["--trainer.gradient_clip_algorithm", "value"], "trainer.gradient_clip_algorithm is value"),
        (["--trainer.limit_val_batches", "0"], "trainer.limit_val_batches is 0"),
        (["--trainer.limit_predict_batches", "1"], "trainer.limit_predict_batches would leave films"),
        (["--trainer.limit_train_batches", "1"], "trainer.limit_train_batches would break"),
        (["--trainer.fast_dev_run", "true"], "trainer.fast_dev_run"),
        (["--trainer.max_time", "soon"], "trainer.max_time is soon"),
        (["--trainer.max_time", "00:00:00:00"], "trainer.max_time is 00:00:00:00"),
        (["--trainer.max_epochs", "-1"], "neither trainer.max_epochs nor trainer.max_steps limits the training"),
        (["--trainer.max_epochs", "null"], "neither trainer.max_epochs nor trainer.max_steps limits the training"),
        (["--trainer.val_check_interval", "2.5"], "trainer.val_check_interval is 2.5"),
        (["--checkpoint.every_minutes", ".inf"], "checkpoint.every_minutes is inf"),
        (["--early_stopping.min_delta", ".nan"], "early_stopping.min_delta is nan"),
        (["--decision.shrinkage", ".nan"], "decision.shrinkage is nan"),
    ],
)  # fmt: skip
def test_fit_names_the_option_before_it_loads_anything(sample_csv, tmp_path, words, named):
    words = [f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}", "--model.backbone=small", *words]
    with pytest.raises(ConfigError) as refused:
        parse_checked("fit", words, tmp_path / "run")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command", ["fit", "plan", "pretrain", "submit", "data inspect", "lr-range", "test", "predict"]
)
def test_a_command_without_arguments_is_one_line(command, capfd):
    words = [*command.split(), *(["--dry-run"] if command == "submit" else [])]
    assert main(words) == 2
    assert len([line for line in capfd.readouterr().err.splitlines() if line.startswith("genre-lightning: ")]) == 1


@pytest.mark.parametrize("words", [["status"], ["test"], ["report"], ["fit", "--data.csv"], ["fit", "--config"]])
def test_a_name_that_no_file_system_takes_is_one_line(words, capfd):
    assert main([*words, "a" * 300]) in (1, 2)
    lines = capfd.readouterr().err.splitlines()
    assert "Traceback" not in "".join(lines)
    assert lines[-1].startswith("genre-lightning: ")


def test_a_byte_that_is_not_text_is_named(sample_csv, capfd):
    assert main(["fit", f"--data.csv={sample_csv}", "--run_dir", "runs/b\udcff"]) == 2
    assert "has a byte that is not UTF-8" in capfd.readouterr().err


def test_all_problems_stand_in_one_line(sample_csv, tmp_path):
    words = ["--model.lr=-1", "--model.beta2=2", "--data.max_tokens=0", "--data.seed=-1", "--trainer.num_nodes=0"]
    with pytest.raises(ConfigError) as refused:
        parse_checked("fit", [f"--data.csv={sample_csv}", *words], tmp_path / "run")
    for word in words:
        assert word.partition("=")[0].removeprefix("--") in str(refused.value)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_name_the_option(sample_csv, tmp_path, name):
    words = [f"--data.csv={sample_csv}", "--model.max_share=.nan", "--seed=-4"]
    with pytest.raises(ConfigError, match=r"model\.max_share is nan"):
        parse_checked_baseline(name, BASELINES[name], words, tmp_path / "run")


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "1e30", "many", ""])
def test_numbers_of_plain_parsers(text):
    parser = CommandParser("any", "A command.")
    parser.add_argument("--share", type=within(float, Bounds(0, 1, open_below=True)))
    with pytest.raises(ConfigError, match=r"--share: .* is not allowed: give a number above 0 to 1"):
        parser.parse_args([f"--share={text}"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--trainer.devices=1000"], "trainer.devices is 1000, and this machine has"),
        (["--trainer.devices=0,1"], "a list chooses among GPUs"),
        (["--trainer.num_nodes=2"], "neither torchrun nor srun"),
        (["--data.num_workers=2"], "no /dev/shm"),
    ],
)
def test_what_this_machine_does_not_have_is_refused(sample_csv, tmp_path, monkeypatch, words, named):
    from genre_lightning.config.parser import parse
    from genre_lightning.training.setup import check_setup

    access = os.access
    monkeypatch.setattr(
        "os.access", lambda path, *more, **options: path != "/dev/shm" and access(path, *more, **options)
    )
    config, parser = parse("fit", [f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}", *SMALL, *words])
    with pytest.raises(ConfigError) as refused:
        check_setup(config, parser)
    assert named in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tpu", "hpu", "mps"])
def test_accelerators_that_are_not_there_are_refused(monkeypatch, name):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"trainer.accelerator is {name}, which this machine does not have"):
        accelerator_of(name)


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["--trainer.max_steps=3"], 3),
        (["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=3"], None),
        (["--trainer.max_epochs=1", "--trainer.val_check_interval=4"], None),
        (["--trainer.max_time=00:00:00:09", "--trainer.check_val_every_n_epoch=9"], 2),
    ],
)
def test_a_training_ends_with_a_validation(sample_csv, tmp_path, monkeypatch, words, steps):
    from genre_lightning.config.parser import parse
    from genre_lightning.training.setup import bind_model, build_trainer, check_setup

    config, parser = parse("fit", [f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}", *SMALL, *words])
    setup = check_setup(config, parser)
    bind_model(setup)
    trainer, checkpoints = build_trainer(setup)
    # time is up after the second step
    elapsed = lambda self, *stage: 10.0 * (trainer.global_step >= 2)  # noqa: E731
    monkeypatch.setattr("lightning.pytorch.callbacks.Timer.time_elapsed", elapsed)
    trainer.fit(setup.model, datamodule=setup.data)
    assert steps in (None, trainer.global_step)
    assert checkpoints.best_step is not None
    with setup.run.curves.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert int(rows[-1]["step"]) + 1 == trainer.global_step
