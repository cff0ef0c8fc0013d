"""A run that continues from a finished one: its options, and the settings that it takes from there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from genre_lightning.bounds import Bounds, above, at_least, bound_problems
from genre_lightning.config.changes import flatten
from genre_lightning.config.rounds import round_directory
from genre_lightning.config.words import WANTS_HELP, option_values, with_run_config
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.runs import RunDirectory, kind_of

LR_FACTOR = 1 / 3
"""The peak learning rates of a continued training, as a fraction of the parent run's."""
EPOCHS_FACTOR = 1 / 2
"""Its epochs, likewise."""

_RATES = ("lr", "head_lr", "unfreeze_lr")
_OF_ONE_RUN = (
    "run_dir",
    "override",
    "require_no_worse",
    "json",
    "continue_from",
    "continue",
    "feedback",
    "labels",
    "config",
)
_KEPT_BY_WEIGHTS = (
    "class_path", "backbone", "revision", "random_weights", "architecture", "pooling", "attention", "lora", "adapter",
    "quantization", "fusion", "input_width",
)  # fmt: skip
_KEPT_BY_DATA = (
    "tokenizer", "revision", "vocab_size", "max_tokens", "features", "leave_out_after_release", "split",
    "merge_genre_case",
)  # fmt: skip


@dataclass
class ContinueOptions:
    """How a run continues from the one that `--continue_from` names.

    Attributes:
        replay: Fraction of the parent's training films that are trained on again, or "all" or "none".
        distillation: Weight of a loss that keeps the probabilities of the parent's genres on the training films as the
            parent has them; null is 1 if nothing is replayed, and else 0.
        feedback_weights: Weight in the loss of feedback by its source, such as {import: 1, tag: 0.5}; 1 for a source
            that is not named, and 0 leaves it out.
        trusted_users: Users whose newest opinion of a text decides; without one, the majority does.
        drop_genres: Leave out the genres of the parent that no film has any more; false, the default, refuses that.
    """

    replay: Annotated[Literal["all", "none"] | float, Bounds(0, 1)] = "all"
    distillation: Annotated[float | None, Bounds(0, 1e3)] = None
    feedback_weights: dict[str, float] | None = None
    trusted_users: list[str] = field(default_factory=list)
    drop_genres: bool = False

    def problems(self) -> list[str]:
        """List what is wrong with the options by themselves."""
        weights = self.feedback_weights or {}
        negative = [f"{name}: {weight}" for name, weight in weights.items() if not 0 <= weight < float("inf")]
        found = bound_problems(ContinueOptions, vars(self), "continue")
        return found + [f"continue.feedback_weights has {one}: give a number from 0 on" for one in negative]

    @property
    def distilled(self) -> float:
        """The weight of the loss that keeps the parent's probabilities."""
        return float(self.replayed == 0) if self.distillation is None else self.distillation

    @property
    def replayed(self) -> float:
        """The fraction of the parent's training films that are trained on again."""
        return {"all": 1.0, "none": 0.0}[self.replay] if isinstance(self.replay, str) else self.replay


@dataclass
class SelfTrainingOptions:
    """How the films of `data.unlabelled` are given genres by a trained run.

    A genre of a film is taken as present or absent if its calibrated probability is beyond a cut-off of that genre,
    fitted on the teacher's validation films; between the two cut-offs it is unknown.

    Attributes:
        teacher: Run or ensemble that gives the genres; null is the run that is continued.
        precision: Fraction of the films above a genre's upper cut-off on validation that has the genre.
        negative_precision: Fraction of the films below its lower cut-off that lacks it.
        weight: What a film with pseudo-labels counts in the loss, times the mean probability of the genres it gets.
        rounds: Trainings one after the other, each a run RUN_DIR/round-1, RUN_DIR/round-2 and so on that continues from
            the one before it and learns its pseudo-labels; 1 makes RUN_DIR the one run.
    """

    teacher: Path | None = None
    precision: Annotated[float, Bounds(0.5, 1)] = 0.9
    negative_precision: Annotated[float, Bounds(0.5, 1)] = 0.99
    weight: Annotated[float, above(0, 1e3)] = 1.0
    rounds: Annotated[int, at_least(1, 100)] = 1


def require_parent(path: Path) -> RunDirectory:
    """Open the run that another continues from, without loading anything of it.

    Raises:
        CheckpointError: It is not there, not a finished run of `fit`, or lacks what is carried over.
    """
    run = RunDirectory(path.expanduser().absolute())
    fix = "name a finished run of 'genre-lightning fit' with --continue_from"
    if not run.config.is_file():
        raise CheckpointError(f"--continue_from {path} is not a run directory (it has no config.yaml): {fix}")
    if (kind := kind_of(run.settings())) != "fit":
        raise CheckpointError(f"--continue_from {path} is a run of 'genre-lightning {kind}': {fix}")
    if run.status != "finished":
        raise CheckpointError(
            f"--continue_from {path} has not finished (it is {run.status}): run 'genre-lightning fit --run_dir {path}' "
            "to its end first"
        )
    predictions = run.evaluation("test").predictions
    kept = ((run.best, "weights"), (run.splits, "the side of each film"), (predictions, "the test predictions"))
    for file, holds in kept:
        if not file.exists():
            raise CheckpointError(f"{file} is missing, which holds {holds} of the run: copy the run directory again")
    return run


@contextmanager
def continued_words(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Put the settings that a run takes from its parent, or from its own earlier start, before those of a command line.

    Of several `--data.csv`, those behind the first are older files.

    Args:
        arguments: Of `genre-lightning fit`.

    Raises:
        ConfigError, CheckpointError: The parent or the run directory cannot be used.
    """
    given = option_values(arguments, "--continue_from")
    if not given or WANTS_HELP & set(arguments):
        yield with_run_config(arguments)
        return
    run_dirs = option_values(arguments, "--run_dir")
    if not run_dirs:
        raise ConfigError("--continue_from makes a new run: name its directory with --run_dir")
    run, parent_path = RunDirectory(Path(run_dirs[-1]).expanduser()), Path(given[-1]).expanduser()
    if run.path.resolve() == parent_path.resolve():
        raise ConfigError(f"--continue_from and --run_dir are both {run.path}: name another --run_dir for the new run")
    words = _with_older_files(arguments)
    first = round_directory(run.path, 1)
    if first.config.is_file() and not run.config.is_file():
        run = first
    if run.config.is_file():
        with_run_config(["--run_dir", str(run.path), *words])  # refuses runs of other commands
        yield ["--config", str(run.config), *words]
        return
    parent = require_parent(parent_path)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / f"{parent.path.name}.yaml"
        base.write_text(yaml.safe_dump(_inherited(parent), allow_unicode=True, sort_keys=False), encoding="utf-8")
        yield ["--config", str(base), *words]


def _with_older_files(arguments: Sequence[str]) -> list[str]:
    """Write `--data.csv NEW --data.csv OLD` as data.csv and data.older_csv."""
    words: list[str] = []
    files: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name != "--data.csv" or not (equals or rest):
            words.append(word)
            continue
        files.append(value if equals else rest.pop(0))
    if files:
        words += ["--data.csv", files[0]]
    if len(files) > 1:
        words += ["--data.older_csv", yaml.safe_dump(files[1:], default_flow_style=True, width=10**9).strip()]
    return words


def _inherited(parent: RunDirectory) -> dict[str, Any]:
    """Return the parent's settings as the new run starts from them."""
    settings = {name: value for name, value in parent.settings().items() if name not in _OF_ONE_RUN}
    data, model, trainer = (dict(settings.get(name) or {}) for name in ("data", "model", "trainer"))
    data["older_csv"] = [str(data["csv"]), *map(str, data.get("older_csv") or ())]
    data["max_films"] = data["fold"] = None
    options, training = dict(model.get("init_args") or {}), parent.read_state().training or {}
    rates = training.get("learning_rate"), training.get("head_learning_rate"), None
    for name, settled in zip(_RATES, rates, strict=True):
        rate = options.get(name) or settled
        if name in options or settled:
            options[name] = rate and float(f"{rate * LR_FACTOR:.3g}")
    if "teacher" in options:  # of the parent's films
        options["teacher"] = None
    model["init_args"] = options
    if (epochs := trainer.get("max_epochs") or 0) > 0:
        trainer["max_epochs"] = max(1, round(epochs * EPOCHS_FACTOR))
    if isinstance(wandb := settings.get("wandb"), Mapping):
        settings["wandb"] = {**wandb, "name": None}
    return {**settings, "continue_from": str(parent.path), "data": data, "model": model, "trainer": trainer}


def leave_out_missing(data: Any, options: ContinueOptions, parent: Path) -> None:
    """Leave out the older files that are gone, if nothing of them is replayed, in place.

    Args:
        data: The parser's namespace of the options of the data.
        options: Of the continuation.
        parent: The run that is continued, for messages.

    Raises:
        ConfigError: A file is gone whose films are to be replayed.
    """
    missing = [str(file) for file in data.older_csv or () if not Path(file).exists()]
    if missing and options.replayed:
        raise ConfigError(
            f"{missing[0]}, with films of {parent}, is gone: give the file by a second --data.csv, or set "
            "--continue.replay none, which distils from that run in place of its films"
        )
    data.older_csv = [file for file in data.older_csv or () if str(file) not in missing] or None


def check_same_model(parent: RunDirectory, settings: Mapping[str, Any]) -> None:
    """Refuse settings under which the parent's weights, tokenizer or inputs would mean something else.

    Args:
        parent: The run that is continued.
        settings: Of the new run, resolved.

    Raises:
        ConfigError: With the settings that differ.
    """
    before, now = (flatten(_of_weights(one)) for one in (parent.settings(), settings))
    changed = [
        f"{name} is {now.get(name)!r}, the parent's is {before.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ConfigError(
            f"--continue_from {parent.path} starts from that run's weights and tokenizer ({'; '.join(changed)[:400]}): "
            "leave these settings out, or train a new run without --continue_from"
        )


def _of_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the settings that weights, tokenizer and inputs depend on; options that are not set are left out."""
    model, data = settings.get("model") or {}, settings.get("data") or {}
    options = {**(model.get("init_args") or {}), "class_path": model.get("class_path")}
    kept = {"model": {name: options.get(name) for name in _KEPT_BY_WEIGHTS}}
    kept["data"] = {name: data.get(name) for name in _KEPT_BY_DATA}
    return {part: {n: v for n, v in values.items() if v not in (None, False)} for part, values in kept.items()}
