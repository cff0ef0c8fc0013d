"""A study: its directory, its settings, and its trials in Optuna's storage."""

from __future__ import annotations

import dataclasses
import importlib.util
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from genre_lightning.errors import ConfigError, one_line
from genre_lightning.files import check_folder, read_json, read_record, write_json
from genre_lightning.locks import HeldLock, locked
from genre_lightning.metrics import better_is_higher
from genre_lightning.shapes import Shape, count, number, one_of, require_shape, text
from genre_lightning.tuning.space import Space, read_space

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random", "grid", "cmaes"]
Pruning = Literal["none", "median", "asha", "hyperband"]
SAMPLERS: tuple[Sampler, ...] = ("tpe", "random", "grid", "cmaes")
PRUNINGS: tuple[Pruning, ...] = ("none", "median", "asha", "hyperband")

_PATIENCE_SECONDS = 60.0
"""How long a worker waits for another that is at the storage or takes a trial, which is a matter of milliseconds."""
REDUCTION = 3
"""ASHA and Hyperband let one trial of so many go past each of their epochs 1, 3, 9, ..."""
_DRIVERS = {"postgresql": "psycopg2", "mysql": "pymysql"}


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
        """Keep other workers from taking a trial meanwhile."""
        self.path.mkdir(parents=True, exist_ok=True)
        return locked(self.path / ".lock", _PATIENCE_SECONDS, f"another worker holds {self.path}/.lock: stop it")

    def claimed(self, number: int) -> HeldLock | None:
        """Take a trial for this process; None if another process has it."""
        folder = self.path / "claims"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return locked(folder / f"{number:04d}.lock", 0, "taken")
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
                sampler=_sampler(settings, number or 0),
                pruner=_pruner(settings),
            )
        except KeyError:
            place = settings.storage or self.path / "journal.log"
            raise ConfigError(
                f"{place} does not have the trials of {self.path}: put it back, or name another --study"
            ) from None


def require_optuna(sampler: str = "") -> None:
    """Refuse to search without the packages for it.

    Raises:
        ConfigError: With the fix.
    """
    for package in ("optuna", *(["cmaes"] if sampler == "cmaes" else [])):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed: run pip install 'genre-lightning[tune]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def checked_storage(url: str | None) -> str | None:
    """Return a storage as every worker can open it; refuse one that is not a URL, or that holds a password.

    Raises:
        ConfigError: With the fix.
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        raise ConfigError(f"--storage {url} is not a URL: give one such as sqlite:///study.db") from None
    if "://" not in url:
        raise ConfigError(f"--storage {url} is not a URL: give one such as sqlite:///study.db, or leave it out")
    if password is not None:
        raise ConfigError(
            "--storage has a password in its URL, which study.json would hold: leave it out of the URL, and give it by "
            "~/.pgpass or PGPASSWORD"
        )
    driver = _DRIVERS.get(parts.scheme)
    if driver and importlib.util.find_spec(driver) is None:
        raise ConfigError(f"--storage {url} needs the package {driver}: run pip install {driver}, or use the journal")
    if parts.scheme == "sqlite":
        return f"sqlite:///{Path(url.removeprefix('sqlite:///')).expanduser().absolute()}"
    return url


def open_storage(folder: Path, url: str | None) -> optuna.storages.BaseStorage:
    """Open the storage of a study's trials.

    Args:
        folder: Of the study.
        url: Of a database; None is the journal in the folder.

    Raises:
        ConfigError: It cannot be reached.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if url is None:
        lock: Any = _JournalLock(folder / ".journal.lock")
        backend = JournalFileBackend(str(folder / "journal.log"), lock_obj=lock)
        return optuna.storages.JournalStorage(backend)
    import sqlalchemy

    try:
        return optuna.storages.RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise ConfigError(
            f"--storage {url} cannot be reached ({one_line(error)[:160]}): check the URL and that the server runs, or "
            "leave it out to keep the trials in the study's directory"
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


class _JournalLock:
    """A lock for Optuna's journal that ends with its process; Optuna's own would outlive one that is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: HeldLock | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held = locked(self._path, _PATIENCE_SECONDS, f"another process holds {self._path}: stop it")
        return True

    def release(self) -> None:
        """Let other processes in."""
        if self._held is not None:
            self._held.release()


def _sampler(settings: StudySettings, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    seed = (settings.seed * 1_000_003 + number) % 2**32
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if settings.sampler == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)  # the points of a grid are given


def _pruner(settings: StudySettings) -> optuna.pruners.BasePruner:
    import optuna

    if settings.pruning == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if settings.pruning == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if settings.pruning == "hyperband":
        return optuna.pruners.HyperbandPruner(1, max(settings.epochs, 1), REDUCTION)
    return optuna.pruners.NopPruner()
