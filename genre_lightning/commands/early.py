"""Looks at a command line before the libraries behind it are loaded, which takes seconds: help, and most errors.

The options that are parsed are those of the classes that train, by parts of these that need no torch. What may be an
object of Lightning's, and what the machine decides, is left to the parser and the checks that come after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from genre_lightning.commands.baseline_options import baseline_parser
from genre_lightning.commands.export_options import export_parser
from genre_lightning.commands.predict_options import read_options
from genre_lightning.commands.words import default_run_dir, with_film_file, with_run_config, with_run_named
from genre_lightning.config.arguments import ABOUT, add_run_options, add_training_options, in_one_line
from genre_lightning.config.data import DataOptions
from genre_lightning.config.guard import check_arguments
from genre_lightning.config.model import OPTIONS, ClassifierOptions
from genre_lightning.config.trainer import TrainerOptions, option_problems
from genre_lightning.data.movies import check_data
from genre_lightning.errors import check_all
from genre_lightning.folders import check_new_folder
from genre_lightning.runs import RunDirectory, open_run
from genre_lightning.yaml_files import read_yaml

_OBJECTS = tuple(
    f"trainer.{name}" for name in ("accelerator", "strategy", "logger", "callbacks", "profiler", "plugins")
)
"""Options that may be objects of Lightning's."""


def check_early(command: str, arguments: Sequence[str]) -> None:
    """Refuses what a command cannot be done with, as far as that can be told now, and shows its help.

    Raises:
        ConfigError, DataError, CheckpointError: nothing has been written.
    """
    if command == "fit":
        _check_run(command, with_run_config(arguments), default_run_dir(arguments))
    elif command == "data inspect":
        _check_run(command, with_run_config(with_film_file(arguments)), Path("runs/inspect"))
    elif command in ("validate", "test"):
        config = _parse(command, with_run_config(with_run_named(command, arguments)))
        if config is not None:
            open_run(config.run_dir)
    elif command.startswith("baseline "):
        _check_baseline(command, with_run_config(arguments, command), default_run_dir(arguments))
    elif command == "export":
        check_new_folder(export_parser().parse_args(list(arguments)).dir.expanduser().absolute(), "the target")
    elif {"--help", "-h"} & set(arguments):
        _parse(command, ["--help"])
    else:  # predict
        read_options(arguments).check()


def _check_run(command: str, words: Sequence[str], run_dir: Path) -> None:
    config = _parse(command, words)
    if config is None:
        return
    run = RunDirectory(Path(config.run_dir or run_dir).expanduser().absolute())
    checks = [lambda: check_data(config.data), run.check_writable]
    if "model" in config:
        checks[:0] = [config.model.check_options, *([config.model.check_files] if command == "fit" else [])]
    check_all(checks, option_problems(config))


def _check_baseline(command: str, words: Sequence[str], run_dir: Path) -> None:
    check_arguments(words)
    parser = baseline_parser(command.removeprefix("baseline "))
    config = in_one_line(command, words, parser.parse_args)
    run = RunDirectory(Path(config.run_dir or run_dir).expanduser().absolute())
    made = in_one_line(command, [], lambda _: parser.instantiate(config))
    check_all((lambda: check_data(made.data), made.model.check, run.check_writable))


def _parse(command: str, words: Sequence[str]) -> Namespace | None:
    """The options, those of data and model made; None where only the command's own parser can read the words."""
    check_arguments(words)
    simple = _simplified(words)
    if simple is None:
        return None
    model, simple_words = simple
    parser = _parser(command, model)
    config = in_one_line(command, simple_words, parser.parse_args)
    objects = config.trainer
    del config["trainer"]
    made = in_one_line(command, [], lambda _: parser.instantiate(config))
    made.trainer = objects
    return made


def _parser(command: str, model: type[ClassifierOptions] | None) -> ArgumentParser:
    """A parser of the same options, those of the model standing straight under `model`."""
    names = ", ".join(path.rpartition(".")[2] for path in OPTIONS)
    about = (
        f"{ABOUT[command]} The model is one of {names}: --model names another than the first, and the options shown "
        "are then its own. Classes and functions of a package of your own may be named with --trust PACKAGE. What one "
        "of Lightning's classes takes is shown by --trainer.callbacks.help CLASS."
    )
    parser = ArgumentParser(prog=f"genre-lightning {command}", description=about, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="A YAML file of these options; later ones overlay.")
    add_run_options(parser)
    parser.add_class_arguments(TrainerOptions, "trainer")
    if model:
        parser.add_class_arguments(model, "model")
    parser.add_class_arguments(DataOptions, "data")
    add_training_options(parser, command)
    return parser


def _simplified(words: Sequence[str]) -> tuple[type[ClassifierOptions] | None, list[str]] | None:
    """The words with the model's options straight under `model` and without objects of Lightning's.

    Returns:
        the options of the one model that is named, or None where it is several or another, whose options are left out;
        and the words. Nothing where the words ask the command's own parser for something.
    """
    named: set[str] = set()
    simple: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        option = name.lstrip("-").rstrip("+")
        if option.startswith("print_config") or option.endswith(".help") or option == "model.dict_kwargs":
            return None
        if word.startswith("-c") and word != "-c" and not equals:
            option, value, equals = "config", word[2:], "="
        if word.startswith("-") and option and "config".startswith(option):
            content = read_yaml(Path(value if equals else next(rest, "")))
            if not _simplify(content, named):
                return None
            simple += ["--config", json.dumps(content, default=str)]
        elif option in ("model", "model.class_path"):
            named.add(value if equals else next(rest, ""))
        elif option.startswith(tuple(f"{name}." for name in _OBJECTS)) or (name.endswith("+") and option in _OBJECTS):
            if not equals:
                next(rest, None)
        else:
            simple.append(word.replace("--model.init_args.", "--model.", 1))
    models = {_options_of(name) for name in named or {next(iter(OPTIONS))}}
    model = models.pop() if len(models) == 1 else None
    return model, simple if model else _without_model(simple)


def _simplify(content: dict[str, Any], named: set[str]) -> bool:
    """Does to a configuration what `_simplified` does to words; False where it cannot be done."""
    if "config" in content or any("." in str(key) for key in content):
        return False
    if isinstance(model := content.get("model"), str):
        named.add(str(content.pop("model")))
    elif isinstance(model, dict):
        if "class_path" in model:
            named.add(str(model.pop("class_path")))
        model.update(model.pop("init_args", None) or {})
        if "dict_kwargs" in model:
            return False
    if isinstance(trainer := content.get("trainer"), dict):
        for name in _OBJECTS:
            trainer.pop(name.removeprefix("trainer."), None)
    return True


def _options_of(model: str) -> type[ClassifierOptions] | None:
    """The options of a model by its class path or its class's name."""
    names = {path: path.rpartition(".")[2] for path in OPTIONS}
    return next(
        (OPTIONS[path] for path, name in names.items() if model in (path, name, f"genre_lightning.{name}")), None
    )


def _without_model(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word.startswith("--model."):
            if "=" not in word:
                next(rest, None)
        elif kept[-1:] == ["--config"]:
            content = json.loads(word)
            content.pop("model", None)
            kept.append(json.dumps(content))
        else:
            kept.append(word)
    return kept
