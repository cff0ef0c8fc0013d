"""The arguments of the commands that work with a run: options, help and one-line errors, without torch."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from genre_lightning.compat import importing_only
from genre_lightning.config.allowed import import_paths
from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.model import EncoderOptions
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions, WandbOptions
from genre_lightning.config.trainer import TrainerOptions
from genre_lightning.errors import ConfigError, one_line

T = TypeVar("T")


ABOUT = {
    "data inspect": "Prints the audit, the genres, the lengths in tokens and the splits of a movies file, named first.",
    "fit": "Trains a model, evaluates the best checkpoint on validation and test, and leaves a run directory.",
    "validate": "Evaluates the best checkpoint of a run on its validation split.",
    "test": "Evaluates the best checkpoint of a run on its test split.",
    "predict": "Tags every film of the file --data.csv with the best checkpoint of a run: predict RUN --data.csv FILE "
    "--out FILE. Each row stands in the table once and in its order; what cannot be tagged has a reason. Cut off, the "
    "same command goes on.",
}


FLAGS = {"--json": "true", "--override": "true", "--tensorboard": "true", "--raw_cells": "true", "--wandb": "{}"}
"""Options that may stand without a value, and the value that they then have."""


def add_run_options(parser: ArgumentParser) -> None:
    """Adds the options of every command that makes or opens a run."""
    parser.add_argument("--run_dir", type=Path | None, default=None, help="Directory of the run, made if needed.")
    parser.add_argument("--seed", type=int, default=0, help="Of new weights, dropout and the order of the films.")
    parser.add_argument(
        "--override", type=bool, default=False,
        help="Go on with a run although settings that change its training differ.",
    )  # fmt: skip
    parser.add_class_arguments(DecisionOptions, "decision")
    parser.add_argument("--json", type=bool, default=False, help="Print the results as JSON.")


def add_training_options(parser: ArgumentParser, command: str) -> None:
    """Adds the options of the commands that train a model or open one that was trained."""
    parser.add_class_arguments(CheckpointOptions, "checkpoint")
    parser.add_class_arguments(EarlyStoppingOptions, "early_stopping")
    parser.add_argument(
        "--wandb", type=WandbOptions | None, default=None,
        help="Keep curves and evaluation in Weights & Biases too, as configs/logger/wandb.yaml does.",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard", type=bool, default=False,
        help="Write curves and evaluation for TensorBoard too, into the run directory's folder tensorboard.",
    )  # fmt: skip
    if command == "predict":
        parser.add_argument(
            "--out", type=Path | None, default=None,
            help="The table to write: .parquet, .csv or .csv.gz; null is predictions.parquet in the run directory.",
        )  # fmt: skip
        parser.add_argument(
            "--raw_cells", type=bool, default=False,
            help="Leave texts in a CSV as they are. By default one that begins with =, +, -, @, a tab or a line break "
            "gets an apostrophe before it, as a spreadsheet program would compute it.",
        )  # fmt: skip


_COLUMNS = "--data.columns."


def column_options(arguments: Sequence[str]) -> list[str]:
    """Give each `--data.columns.ROLE NAME` as JSON, as the parser would read a name such as "Unnamed: 0" as YAML."""
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        role = name.removeprefix(_COLUMNS)
        if not name.startswith(_COLUMNS) or role not in _ROLES or not (equals or (value := next(rest, ""))):
            words.append(word)
            continue
        columns: Any = value
        if role == "genres" and value.startswith("["):
            with contextlib.suppress(yaml.YAMLError):
                columns = yaml.safe_load(value)
        words += ["--data.columns", json.dumps({role: columns})]
    return words


_ROLES = tuple(field.name for field in fields(ColumnNames))


def in_one_line(command: str, arguments: Sequence[str], parse: Callable[[list[str]], T]) -> T:
    """What `parse` makes of a command's arguments, its complaints as one line; it can import the allowed classes only.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), importing_only(import_paths()):
            return parse(for_parser(column_options(arguments)))
    except ArgumentError as error:
        message = one_line(error).removeprefix("Parser key ")
        hint = _nearest(message)
        raise ConfigError(f"{message[:600]}: {hint}'genre-lightning {command} --help' lists the options") from None
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise ConfigError(one_line(errors.getvalue())[:600]) from None


def for_parser(arguments: Sequence[str]) -> list[str]:
    """Write arguments so that the parser takes them as they stand.

    Configuration files come first, so that an option wins over them wherever it stands, and flags get their value.
    """
    files: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, _ = argument.partition("=")
        if name in FLAGS and not has_value and not (name == "--wandb" and rest and not rest[0].startswith("--")):
            others.append(f"{name}={FLAGS[name]}")
        elif name in _CONFIG_NAMES:
            files += [argument, *([] if has_value else rest[:1])]
            rest = rest if has_value else rest[1:]
        elif name.startswith("-c"):  # -cFILE
            files.append(argument)
        else:
            others.append(argument)
    return files + others


_CONFIG_NAMES = ("-c", "--config", "--confi", "--conf")  # the parser takes beginnings that no other option has


def _nearest(message: str) -> str:
    """Name the option that an unknown one is most like, by its last part: --model.lr for --lr."""
    found = re.match(r"unrecognized arguments: --([\w.]+)", message, re.IGNORECASE)
    if found is None:
        return ""
    by_last = {name: f"--{group}.{name}" for group, kind in _GROUPS.items() for name in _parameters(kind)}
    by_last |= {name: f"--{name}" for name in ("run_dir", "seed", "override", "json")}
    given = found.group(1).rpartition(".")[2]
    near = [name for name in by_last if name == given] or [name for name in by_last if f"_{given}" in name]
    near = near or difflib.get_close_matches(given, by_last, n=1)
    return f"did you mean {by_last[near[0]]}? " if near else ""


_GROUPS: dict[str, type] = {
    "early_stopping": EarlyStoppingOptions, "checkpoint": CheckpointOptions, "decision": DecisionOptions,
    "wandb": WandbOptions, "trainer": TrainerOptions, "data": DataOptions, "model": EncoderOptions,
}  # fmt: skip
"""Where an option is looked for; of two with one name the later group's is meant."""


def _parameters(kind: type) -> list[str]:
    owners = [owner for owner in kind.__mro__ if "__init__" in vars(owner) and owner is not object]
    return [name for owner in owners for name in inspect.signature(owner).parameters]
