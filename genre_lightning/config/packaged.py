"""The configurations that come with the package: found by name, so that an installed wheel is enough."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

CONFIGS = Path(str(resources.files("genre_lightning"))) / "configs"


def names() -> list[str]:
    """List the names, such as "distilbert" and "logger/wandb"."""
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))


def packaged(name: str) -> Path | None:
    """Return the file of a configuration of this name; None if there is none."""
    return CONFIGS / f"{name}.yaml" if name in names() else None


def about(name: str) -> str:
    """Return what a configuration is for: its first line."""
    with (CONFIGS / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def command_with(name: str, file: Path) -> str:
    """Return the command that a configuration names in its first lines, with another file in its place."""
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    command = next(line for line in lines if "genre-lightning" in line).lstrip("# ")
    words = re.sub(r"configs/(\S+)\.yaml", r"\1", command).split(" ")
    return " ".join(shlex.quote(str(file)) if word == name else word for word in words)


def with_packaged(arguments: Sequence[str]) -> list[str]:
    """Replace each `--config NAME` by the file that comes with the package; a file of the user's own wins."""
    return list(_replaced(arguments))


def _replaced(arguments: Sequence[str]) -> Iterator[str]:
    is_value = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if is_value:
            yield _file(argument)
        elif equals and option in _OPTIONS:
            yield f"{option}={_file(value)}"
        else:
            yield argument
        is_value = not is_value and argument in _OPTIONS


_OPTIONS = ("--config", "-c")


def _file(value: str) -> str:
    return value if Path(value).is_file() else str(packaged(value) or value)
