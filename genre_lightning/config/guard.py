"""Refuses configurations that name a class outside `allowed`, or have an object write outside the run directory.

It is held three times over: the command line and every configuration file are read before anything is imported
(`check_arguments`), the parser can import the paths of the table alone (`compat.importing_only`), and what it made of
them is looked through before a class is called (`check_parsed`).
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from genre_lightning.config.allowed import ALLOWED, PASSED_ON, class_names
from genre_lightning.config.stand_ins import StandIn
from genre_lightning.config.trust import KINDS, check_class, imported, is_trusted, or_trust
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.yaml_files import NOT_YAML, TooLargeError, parse_yaml, read_yaml

FILE_OPTIONS = (
    *ALLOWED, "trainer", "data", "data.columns", "data.features", "data.join", "decision", "checkpoint",
    "early_stopping", "continue", "self_training", "pretrain",
)  # fmt: skip
"""Options for which the parser takes the name of a file with their settings."""

_MAX_DEPTH = 20  # of files that name files, and of YAML within strings of YAML
_MAX_FILES = 100  # that a configuration names, each as often as it does: the parser reads it as often
_PLAIN_FIELD = re.compile(r"\{[\w./ -]+(:[0-9]*(\.[0-9]+)?[defg%]?)?\}")
_NOTES = ("notes", "tags", "config", "group", "job_type")  # of W&B: texts that never become part of a path
_PATHS = ("dirpath", "save_dir", "dir", "root_dir", "sub_dir")  # arguments that name a folder to write to


@dataclass
class _Walk:
    """What has been seen of settings and of the files that they name."""

    files: list[Path] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)


def check_arguments(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Refuse configuration files that cannot be read, and classes that may not be named, without importing anything.

    Args:
        arguments: Of a command that takes the options of `fit`.

    Returns:
        The texts that are given for each option that may name a class, such as {"model": ["ZeroShotLlama"]}.

    Raises:
        ConfigError: One line with the file or flag, and the fix.
    """
    walk = _Walk()
    if wrong := [word for word in arguments if not _is_text(word)]:
        raise ConfigError(f"{wrong[0]} has a byte that is not UTF-8, which no configuration can keep: rename it")
    for name, value in _options(arguments):
        # the parser takes unambiguous beginnings of a name for it
        if name and "config".startswith(name):
            file = Path(value)
            # each file by itself, as the number of those that it names is limited
            walk.files.clear()
            _check(read_yaml(file), "", value, (Path(), file.parent), 0, walk)
        else:
            option = name.rstrip("+").removesuffix(".help")
            if option in FILE_OPTIONS or option.endswith(".class_path"):
                walk.files.clear()
                _check(value, option, f"--{name}", (Path(),), 0, walk)
    return walk.named


def _is_text(word: str) -> bool:
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:  # Python's surrogates for bytes of the command line
        return False
    return True


def check_settings(settings: Mapping[str, Any], where: str, folder: Path = Path()) -> None:
    """Refuse settings that name a class that they may not; files that they name are read as the parser does.

    Args:
        settings: Content of a configuration file.
        where: Its name, for messages.
        folder: It is in: files are looked for there and in the working directory.

    Raises:
        ConfigError: One line with the option, and the fix.
    """
    _check(settings, "", where, (Path(), folder), 0, _Walk())


def instantiate(parser: ArgumentParser, config: Namespace, run_dir: Path | None = None) -> Namespace:
    """Make the objects of a parsed configuration, once it has been looked through.

    Args:
        parser: That parsed it.
        config: As parsed.
        run_dir: Of the run; objects may write into it and nowhere else.

    Raises:
        ConfigError: See `check_parsed`; or a class refuses its arguments.
    """
    check_parsed(config, run_dir)
    try:
        made = parser.instantiate(config)
        if isinstance(model := made.get("model"), StandIn):
            made.model = model.make()
        return made
    except (AttributeError, ImportError, TypeError, ValueError) as error:  # of a class that does not like a value
        raise ConfigError(f"an object of the configuration cannot be made ({one_line(error)[:400]})") from error


def check_parsed(config: Namespace, run_dir: Path | None) -> None:
    """Refuse what no object of a parsed configuration may be or do, before any is made.

    Args:
        config: Of the parser, not instantiated.
        run_dir: Of the run; objects may write into it and nowhere else.

    Raises:
        ConfigError: A class that is not in the table, a function, or a path outside the run directory.
    """
    folder = (run_dir or Path("runs")).expanduser().absolute()
    for option, value in vars(config).items():
        _check_value(value, option, folder)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give every (option, value) that the parser may see; an argument that could be either is taken both ways."""
    waiting = None
    for argument in arguments:
        if waiting is not None and not argument.startswith("--"):
            yield waiting, argument
        if not argument.startswith("-"):
            waiting = None
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        waiting = None if equals else name
        if equals:
            yield name, value
        if argument.startswith("-c") and len(argument) > 2:  # the value of a short option may stand next to it
            yield "config", argument[2:].removeprefix("=")


def _check(content: Any, key: str, where: str, folders: tuple[Path, ...], depth: int, walk: _Walk) -> None:
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{where}: files and texts stand in one another more than {_MAX_DEPTH} deep: write them out")
    if isinstance(content, Mapping):
        for name, value in content.items():
            _check(value, f"{key}.{name}".strip(". ").rstrip("+"), where, folders, depth, walk)
    elif isinstance(content, list):
        for value in content:
            _check(value, key, where, folders, depth, walk)
    elif isinstance(content, str):
        option, _, last = key.rpartition(".")
        if last == "class_path":
            walk.named.setdefault(option, []).append(content)
            _check_class(content, option, key, where)
            return
        inner = _inner(content, where)
        if inner is not content:
            _check(inner, key, where, folders, depth + 1, walk)
        elif key in (*FILE_OPTIONS, "config"):
            if _check_file(content, key, where, folders, depth, walk) or key not in ALLOWED:
                return
            walk.named.setdefault(key, []).append(content)
            # other texts without a dot are names such as ddp, and the parser's to judge
            if "." in content or key == "model":
                _check_class(content, key, key, where)


def _inner(text: str, where: str) -> Any:
    """Give what the parser makes of a text that is YAML of more than one value; the text itself if it is none."""
    if not any(sign in text for sign in "{[:&"):
        return text
    try:
        value = parse_yaml(text)
    except TooLargeError as error:
        raise ConfigError(f"{where}: {error}") from None
    except NOT_YAML:
        return text
    return value if isinstance(value, dict | list) else text


def _check_file(name: str, key: str, where: str, folders: tuple[Path, ...], depth: int, walk: _Walk) -> bool:
    """Check the files that a value may name; False if there is none."""
    found = False
    for folder in dict.fromkeys(folders):
        file = folder / name
        if _exists(file):
            found = True
            walk.files.append(file)
            if len(walk.files) > _MAX_FILES:
                raise ConfigError(
                    f"{where}: more than {_MAX_FILES} files are named in it and in one another: name fewer"
                )
            _check(read_yaml(file), "" if key == "config" else key, str(file), (Path(), file.parent), depth + 1, walk)
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # a text that cannot be a path: too long, or with a null character
        return False


def _check_class(path: str, option: str, key: str, where: str) -> None:
    allowed = ALLOWED.get(option)
    if option in KINDS and is_trusted(path):
        check_class(path, option)
        return
    if allowed is None:
        raise ConfigError(
            f"{where}: {key} is {path}: only classes of genre_lightning and lightning may be named, and only as "
            f"{', '.join(ALLOWED)}: leave it out"
        )
    if path.strip() not in allowed:
        raise ConfigError(
            f"{where}: {key} is {path}: only classes of genre_lightning and lightning that take plain values may be "
            f"named there: use one of {', '.join(class_names(option))}{or_trust(path) if option in KINDS else ''}"
        )


def _check_value(value: Any, key: str, folder: Path, *, writes: bool = False) -> None:
    """Look through a parsed value.

    Args:
        value: Not instantiated.
        key: Its option.
        folder: The run directory.
        writes: Whether it is an argument of an object that may write files.
    """
    if isinstance(value, Namespace | Mapping):
        settings = _as_mapping(value)
        if "class_path" in settings:
            path = str(settings["class_path"])
            _check_class(path, key, f"{key}.class_path", "the configuration")
            settings = {**_as_mapping(settings.get("init_args")), **_as_mapping(settings.get("dict_kwargs"))}
            if key != "model" and not is_trusted(path):
                _check_passed_on(path, key, settings)
            key, writes = f"{key}.init_args", key != "model"  # a model reads what its arguments name
        for name, inner in settings.items():
            _check_value(inner, f"{key}.{name}", folder, writes=writes)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            _check_value(inner, key, folder, writes=writes)
    elif inspect.isroutine(value) or isinstance(value, type | functools.partial):
        raise ConfigError(f"{key} is {value!r}: a configuration may not name a function or a type there: leave it out")
    elif writes and isinstance(value, str | os.PathLike):
        _check_path(value, key, folder)


def _check_passed_on(path: str, key: str, settings: Mapping[str, Any]) -> None:
    """Refuse arguments that a class hands on to another library: numbers and a few texts may be set."""
    public = next(allowed for allowed in ALLOWED[key] if allowed == path or allowed.endswith(f".{path}"))
    kind: type = imported(public)
    initialisers = [vars(owner)["__init__"] for owner in kind.__mro__[:-1] if "__init__" in vars(owner)]
    parameters = [p for function in initialisers for p in inspect.signature(function).parameters.values()]
    own = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    for name, value in settings.items():
        names_nothing = value is None or isinstance(value, bool | int | float)
        if not names_nothing and name not in own and name not in PASSED_ON.get(kind.__name__, ()):
            raise ConfigError(
                f"{key}.init_args.{name}: {kind.__name__} passes it on to another library, where a configuration may "
                "not set it: leave it out"
            )


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return vars(value) if isinstance(value, Namespace) else value if isinstance(value, Mapping) else {}


def _check_path(value: str | os.PathLike[str], key: str, folder: Path) -> None:
    """Refuse a text that leads out of the run directory, and a folder to write to that is not in it."""
    name, text = key.rpartition(".")[2], os.fspath(value)
    if ".init_args.config." in key or name in _NOTES:
        return
    # Lightning expands variables, opens paths by any protocol ("file:", "ssh://"), and formats names with objects
    plain = not re.search(r"[$\0]|::|://|^[A-Za-z]\w*:", text) and not re.search(r"[{}]", _PLAIN_FIELD.sub("", text))
    path = Path(text)
    leads_out = text.startswith("~") or path.is_absolute() or ".." in path.parts
    if not plain or ((name in _PATHS or leads_out) and not _is_within(path, folder)):
        raise ConfigError(
            f"{key} is {value}, which leads or may lead outside the run directory {folder}: leave it out, or give a "
            "plain name in it"
        )


def _is_within(path: Path, folder: Path) -> bool:
    # links are followed: a folder that leads elsewhere is not in the run directory
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
