"""A study: its directory, its settings, and its trials in Optuna's storage."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.errors import ConfigError
from genre_lightning.files import check_folder, read_json, read_record, write_json
from genre_lightning.locks import HeldLock, locked
from genre_lightning.metrics import better_is_higher
from genre_lightning.shapes import Shape, count, number, one_of, require_shape, text
from genre_lightning.tuning.sampling import PRUNINGS, SAMPLERS, Pruning, Sampler, make_pruner, make_sampler
from genre_lightning.tuning.space import Space, read_space
from genre_lightning.tuning.storage import PATIENCE_SECONDS, open_storage

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class StudySettings:
    """What all workers of a study share; study.json.

    Attributes:
        name: In the storage.
        monitor: Validation metric that the trials are compared by.
        sampler: How the options of a trial are chosen.
        pruning: How a trial is ended early.
        trials: How many there are to be.
        seed: Of the sampler.
        epochs: That a trial has at most.
        storage: URL of a database; None is the journal in the study's directory.
        films: Digest of the films.
        splits: SHA-256 of the ids of each split.
        genres: Names, in order.
    """

    name: str
    monitor: str
    sampler: Sampler
    pruning: Pruning
    trials: int
    seed: int
    epochs: int
    storage: str | None
    films: str
    splits: dict[str, str]
    genres: list[str]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StudySettings:
        """Read the settings of a file.

        Raises:
            ValueError: Naming the first value that is not what it should be.
        """
        shape: dict[str, Shape] = {
            "name": text, "monitor": text, "sampler": one_of(*SAMPLERS), "pruning": one_of(*PRUNINGS), "trials": count,
            "seed": count, "epochs": count, "storage?": text, "films": text,
            "splits": {"*": text}, "genres": [text],
        }  # fmt: skip
        require_shape(values, shape)
        known: dict[str, Any] = {field.name: values.get(field.name) for field in dataclasses.fields(cls)}
        return cls(**known)


@dataclass(frozen=True)
class StudyDirectory:
    """Names of what lies in a study's directory, and its trials.

    Attributes:
        path: Of the directory, absolute; every worker sees it.
    """

    path: Path

    @property
    def file(self) -> Path:
        """The settings; written last, so that a directory that has it is whole."""
        return self.path / "study.json"

    @property
    def base(self) -> Path:
        """The resolved configuration of all trials, without the options that are searched."""
        return self.path / "base.yaml"

    @property
    def space_file(self) -> Path:
        """The space, as it was given."""
        return self.path / "space.yaml"

    @property
    def page(self) -> Path:
        """The page about the study."""
        return self.path / "study.html"

    @property
    def table(self) -> Path:
        """One row for each trial."""
        return self.path / "trials.csv"

    @property
    def choice(self) -> Path:
        """Which trial the test split was evaluated for."""
        return self.path / "chosen.json"

    def further_seeds(self) -> dict[int, dict[int, float]]:
        """Return the metric of each further seed of each finalist."""
        path = self.path / "finalists.json"
        kept = read_json(path, {"*": {"*": number}}) if path.is_file() else {}
        return {int(trial): {int(seed): value for seed, value in seeds.items()} for trial, seeds in kept.items()}

    def keep_seed(self, trial: int, seed: int, value: float) -> None:
        """Keep the metric of a finalist's further seed."""
        with self.locked():
            seeds = self.further_seeds()
            seeds.setdefault(trial, {})[seed] = value
            write_json(self.path / "finalists.json", seeds)

    def trial(self, number: int) -> Path:
        """Return the run directory of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def finalist(self, number: int, seed: int) -> Path:
        """Return the run directory of a trial's configuration with another seed."""
        return self.path / "finalists" / f"{number:04d}-seed-{seed}"

    def failure(self, number: int) -> Path:
        """Return the file with the traceback of a trial that failed."""
        return self.path / "failures" / f"{number:04d}.txt"

    @cached_property
    def settings(self) -> StudySettings:
        """The settings.

        Raises:
            CheckpointError: study.json is damaged.
        """
        return read_record(self.file, StudySettings.from_json, "put it back, or name another --study")

    @cached_property
    def space(self) -> Space:
        """The space."""
        return read_space(self.space_file)

    @cached_property
    def _storage(self) -> optuna.storages.BaseStorage:
        return open_storage(self.path, self.settings.storage)

    @property
    def maximises(self) -> bool:
        """Whether a higher metric is better."""
        return better_is_higher(self.settings.monitor)

    def require(self) -> None:
        """Refuse a directory without a study.

        Raises:
            ConfigError: With the fix.
        """
        if not self.file.is_file():
            raise ConfigError(
                f"--study {self.path} is not a study (it has no study.json): start one with --config, --space and "
                "--trials"
            )

    def check_writable(self) -> None:
        """Refuse a place where no study can be.

        Raises:
            ConfigError: With the fix.
        """
        check_folder(self.path, "--study")
        if self.path.is_dir() and not self.file.is_file() and (self.path / "config.yaml").exists():
            raise ConfigError(f"--study {self.path} is a run directory: name another")

    def write(self, settings: StudySettings) -> None:
        """Keep the settings."""
        write_json(self.file, asdict(settings))
        self.__dict__.pop("settings", None)

    def raise_trials(self, trials: int) -> None:
        """Keep how many trials there are to be."""
        self.write(dataclasses.replace(self.settings, trials=trials))

    def locked(self) -> HeldLock:
        """Keep other workers from taking a trial, or keeping a seed, meanwhile."""
        self.path.mkdir(parents=True, exist_ok=True)
        return locked(self.path / ".lock", PATIENCE_SECONDS, f"another worker holds {self.path}/.lock: stop it")

    def claimed(self, number: int, seed: int | None = None) -> HeldLock | None:
        """Take a trial, or its configuration with a further seed, for this process; None if another process has it."""
        folder = self.path / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            name = f"{number:04d}" if seed is None else self.finalist(number, seed).name
            return locked(folder / f"{name}.lock", 0, "taken")
        except ConfigError as error:
            if str(error) != "taken":
                raise
            return None

    def open(self, number: int | None = None) -> optuna.Study:
        """Open the study in its storage.

        Args:
            number: Of the trial that is to be sampled next: it seeds the sampler, so that a resumed study samples as
                one that was not interrupted.

        Raises:
            ConfigError: The storage cannot be reached, or does not have the study.
        """
        import optuna

        settings = self.settings
        try:
            return optuna.load_study(
                study_name=settings.name,
                storage=self._storage,
                sampler=make_sampler(settings.sampler, (settings.seed * 1_000_003 + (number or 0)) % 2**32),
                pruner=make_pruner(settings.pruning, settings.epochs),
            )
        except KeyError:
            place = settings.storage or self.path / "journal.log"
            raise ConfigError(
                f"{place} does not have the trials of {self.path}: put it back, or name another --study"
            ) from None


def create(folder: Path, settings: StudySettings) -> None:
    """Make the study in its storage; a second time does nothing."""
    import optuna

    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if better_is_higher(settings.monitor) else directions.MINIMIZE
    optuna.create_study(
        study_name=settings.name,
        storage=open_storage(folder, settings.storage),
        direction=direction,
        load_if_exists=True,
    )


def study_name(folder: Path, storage: str | None) -> str:
    """Return a name for a study, of which a database may hold several from one folder name."""
    return folder.name if storage is None else f"{folder.name}-{uuid.uuid4().hex[:8]}"
