"""Run directories named by options: runs/lr-{model.lr}-seed-{seed}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from genre_lightning.config.changes import flatten
from genre_lightning.errors import ConfigError

_FIELD = re.compile(r"\{([\w.]+)\}")


def fill_run_dir(config: Namespace) -> None:
    """Replace the options in braces in `run_dir` by their values, in place.

    Raises:
        ConfigError: An option in braces is none of the configuration, or is a list or a mapping.
    """
    pattern = str(config.run_dir)
    if not _FIELD.search(pattern):
        return
    values = {name.replace(".init_args.", "."): value for name, value in flatten(_plain(config)).items()}

    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values or name == "run_dir" or isinstance(values[name], list):
            raise ConfigError(
                f"--run_dir {pattern} names {{{name}}}, which is not an option with one value: write the whole name of "
                "one, such as {model.lr} or {seed}"
            )
        # a value is part of one folder's name, and braces would be read again
        return re.sub(r"[/\\\s{}]+", "-", str(values[name]))

    config.run_dir = Path(_FIELD.sub(value_of, pattern))


def matching_runs(path: Path) -> list[Path]:
    """List the paths that a pattern of run directories matches, with options in braces or * and ?; else the path."""
    if path.exists():
        return [path]
    pattern = _FIELD.sub("*", str(path))
    root = Path(path.anchor)
    try:
        return sorted(root.glob(pattern[len(path.anchor) :])) or [path]
    except ValueError:  # such as a**
        return [path]


def require_no_pattern(run_dir: Path) -> None:
    """Refuse a run directory for a job, which would fill in its braces again.

    Raises:
        ConfigError: The whole path has an option in braces.
    """
    if found := _FIELD.search(str(run_dir)):
        raise ConfigError(f"{run_dir}: a job would read {found[0]} as an option: name a folder without braces")


def _plain(value: Any) -> dict[str, Any]:
    items: Mapping[str, Any] = vars(value) if isinstance(value, Namespace) else value
    return {name: _plain(inner) if isinstance(inner, Namespace | dict) else inner for name, inner in items.items()}
