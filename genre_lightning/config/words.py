"""The words of a command line: which run they name, and how the parser takes them, without loading torch."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.encoder import EncoderOptions
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions, WandbOptions
from genre_lightning.config.trainer import TrainerOptions
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory, kind_of

WANTS_HELP = {"-h", "--help"}

FLAGS = {
    "--json": "true",
    "--override": "true",
    "--require_no_worse": "true",
    "--tensorboard": "true",
    "--raw_cells": "true",
    "--wandb": "{}",
}
"""Options that may stand without a value, and the value that they then have."""


def with_run_named(command: str, arguments: Sequence[str]) -> list[str]:
    """Put `--run_dir` before a run that is named first and bare, and look that there is a run.

    Args:
        command: Name of the command, for messages.
        arguments: Arguments of the command.

    Raises:
        ConfigError, CheckpointError: No run directory is named, or no run is in it.
    """
    words = list(arguments)
    if words and not words[0].startswith("-"):
        words[:1] = ["--run_dir", words[0]]
    given = option_values(words, "--run_dir")
    if not given and not WANTS_HELP & set(words):
        raise ConfigError(f"{command} needs a run: genre-lightning {command} --run_dir runs/NAME")
    if given:
        RunDirectory(Path(given[-1]).expanduser()).require_run()
    return words


def option_values(words: Sequence[str], *names: str) -> list[str]:
    """List the values of options, as `--name value` or `--name=value`; an empty text stands for a missing one."""
    found = []
    for word, after in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in names:
            found.append(value if equals else after)
    return found


def option_word(name: str, value: object) -> str:
    """Write an option and its value as one argument, such as "--model.lr=0.0001"."""
    text = str(value) if isinstance(value, str | os.PathLike) else json.dumps(value, default=str)
    return f"--{name}={text}"


def with_film_file(arguments: Sequence[str]) -> list[str]:
    """Put `--data.csv` before a file that is named first and bare, and take a small model if none is named."""
    words = list(arguments)
    if words and not words[0].startswith("-"):
        words[:1] = ["--data.csv", words[0]]
    if not any(word.startswith(("--model", "--config", "-c", "--run_dir")) for word in words):
        words = ["--model.backbone", "small", *words]  # its tokenizer is trained here: no model is needed for a look
    return words


def with_run_config(arguments: Sequence[str], kind: str = "fit") -> list[str]:
    """Put the run's own configuration in front if no other is named: a run directory alone is enough to resume.

    Args:
        arguments: Arguments of the command.
        kind: Kind of the runs that the command can resume: "fit", "baseline tfidf_nb", …

    Raises:
        ConfigError: The directory holds a run of another kind.
    """
    words = list(arguments)
    for value in option_values(words, "--run_dir")[-1:]:
        run = RunDirectory(Path(value).expanduser())
        if run.config.is_file():
            _check_kind(run, kind)
            return words if option_values(words, *_CONFIG_OPTIONS) else ["--config", str(run.config), *words]
    return words


def _check_kind(run: RunDirectory, kind: str) -> None:
    found = kind_of(run.settings())
    if found != kind:
        raise ConfigError(
            f"{run.path} holds a run of 'genre-lightning {found}': use that command, or name another --run_dir"
        )


def default_run_dir(arguments: Sequence[str]) -> Path:
    """Return `runs/NAME` after the first configuration file that the arguments name."""
    files = [file for file in option_values(arguments, *_CONFIG_OPTIONS) if file]
    return Path("runs") / (Path(files[0]).stem if files else "default")


_CONFIG_OPTIONS = ("--config", "-c")
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


def for_parser(arguments: Sequence[str]) -> list[str]:
    """Write arguments so that the parser takes them as they stand.

    Configuration files come first, so that an option wins over them wherever it stands, and flags get their value.
    """
    files: list[str] = []
    others: list[str] = []
    rest = column_options(arguments)
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


def nearest(message: str) -> str:
    """Name the option that an unknown one is most like, by its last part: --model.lr for --lr."""
    if message == "unrecognized arguments: --trust":  # those of the command line are read before
        return "packages are trusted on the command line, not in a file: "
    found = re.match(r"unrecognized arguments: --([\w.]+)", message, re.IGNORECASE)
    if found is None:
        return ""
    by_last = {name: f"--{group}.{name}" for group, kind in _GROUPS.items() for name in _parameters(kind)}
    by_last |= {name: f"--{name}" for name in ("run_dir", "seed", "override", "json")}
    given = found.group(1).rpartition(".")[2]
    near = [name for name in by_last if name == given] or [name for name in by_last if f"_{given}" in name]
    near = near or difflib.get_close_matches(given, by_last, n=1)
    return f"did you mean {by_last[near[0]]}? " if near and by_last[near[0]] != f"--{found.group(1)}" else ""


def full_name(option: str) -> str:
    """Return the whole name of an option by its last part, "model.lr" for "lr"; any other as it is."""
    names = [f"{group}.{option}" for group, kind in _GROUPS.items() if option in _parameters(kind)]
    return names[-1] if names and option != "seed" else option


_GROUPS: dict[str, type] = {
    "early_stopping": EarlyStoppingOptions, "checkpoint": CheckpointOptions, "decision": DecisionOptions,
    "wandb": WandbOptions, "trainer": TrainerOptions, "data": DataOptions, "model": EncoderOptions,
}  # fmt: skip
"""Where an option is looked for; of two with one name the later group's is meant."""


def _parameters(kind: type) -> list[str]:
    owners = [owner for owner in kind.__mro__ if "__init__" in vars(owner) and owner is not object]
    return [name for owner in owners for name in inspect.signature(owner).parameters]
