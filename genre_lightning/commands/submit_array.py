"""`submit --array lr=1e-5,2e-5 --array seed=0,1,2`: one run for each combination, as the tasks of a job array."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from genre_lightning.config.words import default_run_dir, full_name, option_values
from genre_lightning.errors import ConfigError

_MOST_TASKS = 1000
"""SLURM's MaxArraySize is 1,001 unless a site has set another."""


def array_words(arrays: Sequence[str], words: Sequence[str]) -> list[list[str]]:
    """Return the arguments of `fit` for each combination.

    Args:
        arrays: Each an option and its values, such as "lr=1e-5,2e-5".
        words: Arguments that all have.

    Raises:
        ConfigError: An array cannot be read, or they are too many.
    """
    named: dict[str, list[str]] = {}
    for text in arrays:
        option, equals, values = text.partition("=")
        name = full_name(option.lstrip("-"))
        # values with commas of their own are lists and mappings
        parts = [part for part in re.split(r",(?![^\[{]*[\]}])", values) if part]
        if not equals or not parts or len(set(parts)) < len(parts):
            raise ConfigError(f"--array {text}: give an option and its values, each once, such as lr=1e-5,2e-5")
        if name in named:
            raise ConfigError(f"--array {text}: {name} has its values already: give all of them at once")
        named[name] = parts
    points = list(itertools.product(*named.values()))
    if len(points) > _MOST_TASKS:
        raise ConfigError(f"--array makes {len(points):,} runs, more than {_MOST_TASKS:,}: leave out values")
    common = list(words)
    if not option_values(words, "--run_dir"):
        parts = [f"{name.rpartition('.')[2]}-{{{name}}}" for name in named]
        common += ["--run_dir", str(default_run_dir(words) / "-".join(parts))]
    return [[*common, *(f"--{name}={value}" for name, value in zip(named, point, strict=True))] for point in points]


def require_different(run_dirs: Sequence[Path]) -> None:
    """Refuse tasks that would work in one run directory.

    Raises:
        ConfigError: Two of them are the same.
    """
    for first, second in itertools.pairwise(sorted(run_dirs)):
        if first == second:
            raise ConfigError(
                f"--run_dir {first} is the same for several runs of --array: put the options into it, such as "
                "runs/lr-{model.lr}-seed-{seed}"
            )
