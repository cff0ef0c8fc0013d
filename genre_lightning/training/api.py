"""`train`: the whole run of `genre-lightning fit` as one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.config.packaged import packaged
from genre_lightning.config.parser import parse
from genre_lightning.config.run_pattern import fill_run_dir
from genre_lightning.config.trust import trust as trust_packages
from genre_lightning.config.words import option_word
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory
from genre_lightning.training.fit import fit_run

if TYPE_CHECKING:
    from genre_lightning.inference.tagger import Tagger

_NESTED = ("model", "data", "trainer", "checkpoint", "decision", "early_stopping")


@dataclass(frozen=True)
class TrainedRun:
    """A run that is trained and evaluated.

    Attributes:
        path: Its directory.
        metrics: By split, "validation" and "test", what its metrics.json holds; nothing on other ranks than rank 0.
    """

    path: Path
    metrics: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint, which `load_from_checkpoint` reads."""
        return RunDirectory(self.path).best

    @property
    def report(self) -> Path:
        """The page about the run."""
        return RunDirectory(self.path).report

    def tagger(self, **options: Any) -> Tagger:
        """Open the run to tag texts; see `Tagger` for the options."""
        from genre_lightning.inference.tagger import Tagger

        return Tagger(self.path, **options)


def train(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    csv: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    trust: Iterable[str] = (),
) -> TrainedRun:
    """Train and evaluate a run as `genre-lightning fit` does; called again, resume it or read its results.

    Args:
        config: Name of a packaged configuration such as "distilbert", path of a YAML file, or settings as nested
            mappings, as the YAML file has them.
        csv: The movies file; None leaves it to the configuration.
        run_dir: Directory of the run; None leaves it to the configuration.
        options: Options of the command line by their names, such as {"model.lr": 1e-4, "trainer.max_epochs": 1}.
        trust: Packages of your own whose classes and functions the configuration may name.

    Raises:
        ConfigError, DataError, CheckpointError: A setting, the file, or the run directory cannot be used; nothing has
            been changed.
    """
    if isinstance(config, Mapping):
        arguments = list(_arguments(config))
    else:
        file = config if Path(config).is_file() else packaged(str(config))
        if file is None:
            raise ConfigError(
                f"no such configuration: {config}: name a file, or one of those that 'genre-lightning configs' lists"
            )
        arguments = ["--config", str(file)]
    given = {"data.csv": csv, "run_dir": run_dir, **(options or {})}
    arguments += [option_word(name, value) for name, value in given.items() if value is not None]
    trust_packages(trust)
    parsed, parser = parse("fit", arguments)
    if parsed.run_dir is None:
        raise ConfigError("no run directory is named: give run_dir=, such as run_dir='runs/first'")
    fill_run_dir(parsed)
    run, results = fit_run(parsed, parser)
    return TrainedRun(run.path, results)


def _arguments(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and (key in _NESTED or key == "model.init_args"):
            yield from _arguments(value, f"{key}.")
        else:
            yield option_word(key, value)
