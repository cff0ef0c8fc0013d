"""A run directory: its fixed names, its state, its lock, and whether a run may go on in it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.files import read_json, write_json, write_text

ENSEMBLE = "ensemble"
"""The section that the configuration of an ensemble has in place of all others."""

Status = Literal["new", "training", "evaluating", "finished"]

# Settings that change how or where a run is done, never what is trained; data.csv is compared by its content.
_WITHOUT_EFFECT = (
    "run_dir", "override", "json", "config", "checkpoint.every_minutes", "checkpoint.every_steps",
    "checkpoint.keep_last", "checkpoint.sharded", "checkpoint.on_failure", "decision", "wandb", "tensorboard",
    "data.csv", "data.micro_batch_tokens", "data.num_workers", "data.cache_dir", "data.cache_group_writable",
    "data.max_malformed",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.logger",
    "trainer.callbacks", "trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.enable_checkpointing",
    "trainer.enable_model_summary", "trainer.profiler", "trainer.default_root_dir", "trainer.num_sanity_val_steps",
    "trainer.max_time", "trainer.detect_anomaly", "trainer.benchmark", "trainer.plugins",
    "model.activation_checkpointing",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationDirectory:
    """Names of what lies in the directory of a split's evaluation."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The figures; written last, so that where it is the others are."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Labels, logits, probabilities and decided genres of each film."""
        return self.path / "predictions.parquet"

    @property
    def per_genre(self) -> Path:
        """The figures of each genre."""
        return self.path / "per_genre.csv"

    @property
    def thresholds(self) -> Path:
        """The paper's Table II."""
        return self.path / "thresholds.csv"

    @property
    def confusion(self) -> Path:
        """TN, FP, FN and TP of each policy and genre."""
        return self.path / "confusion.csv"

    @property
    def figures(self) -> Path:
        """Folder of the PNG files."""
        return self.path / "figures"

    @property
    def top_words(self) -> Path:
        """The words that speak most for each genre, where `explain --top_words` has been run."""
        return self.path / "top_words.json"


@dataclass(frozen=True)
class RunDirectory:
    """Names of what lies in a run directory."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def audit(self) -> Path:
        """The data audit, with the splits and each genre's count in them."""
        return self.path / "data_audit.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of last.ckpt and best.ckpt."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run starts from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint that is evaluated and used."""
        return self.checkpoints / "best.ckpt"

    @property
    def baseline(self) -> Path:
        """The model of a baseline, which has no checkpoints."""
        return self.path / "model.safetensors"

    @property
    def curves(self) -> Path:
        """One row for each logged step or epoch."""
        return self.path / "curves.csv"

    @property
    def decision(self) -> Path:
        """Temperature and thresholds."""
        return self.path / "decision.json"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's own files: what a run needs to read new texts without the hub."""
        return self.path / "tokenizer"

    @property
    def state(self) -> Path:
        """How far the run has come."""
        return self.path / "run_state.json"

    @property
    def batch(self) -> Path:
        """What `submit` leaves: the batch script, its configuration, and the logs of the jobs."""
        return self.path / "slurm"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def paper_report(self) -> Path:
        """The page of the paper's tables."""
        return self.path / "paper.html"

    def evaluation(self, split: str) -> EvaluationDirectory:
        """Where a split's evaluation lies."""
        return EvaluationDirectory(self.path / "evaluation" / split)

    @property
    def status(self) -> Status:
        """How far the run has come; "new" where there is none yet."""
        return self._read_state().get("status", "new") if self.state.is_file() else "new"

    def _read_state(self) -> dict[str, Any]:
        return read_json(self.state)

    def set_status(self, status: Status, **facts: Any) -> None:
        """Notes how far the run has come, and facts about it that stay until they are given anew."""
        before = self._read_state() if self.state.is_file() else {}
        write_json(self.state, {**before, **facts, "status": status})

    def facts(self) -> dict[str, Any]:
        """What `set_status` has kept."""
        return self._read_state() if self.state.is_file() else {}

    def check_writable(self) -> None:
        """Refuses a place where no run directory can be, and leaves nothing behind.

        Raises:
            ConfigError: with the cure.
        """
        place = self.path
        try:
            while not place.exists() and place.parent != place:
                place = place.parent
            if not place.is_dir():
                raise ConfigError(f"run_dir {self.path} cannot be made: {place} is a file: name another with --run_dir")
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise ConfigError(
                f"run_dir {self.path} cannot be written ({error.strerror}): name another with --run_dir"
            ) from None
        # hidden files are what a start that was killed leaves; a submitted run has its batch script before it starts
        others = self.path.is_dir() and any(
            not file.name.startswith(".") and file != self.batch for file in self.path.iterdir()
        )
        if others and not self.config.is_file():
            raise ConfigError(
                f"run_dir {self.path} holds other files and no run: name another with --run_dir, or empty it"
            )

    def locked(self, patience: float = 1.0) -> FileLock:
        """Keeps other processes out until it is released; the system drops the lock with its holder.

        Args:
            patience: seconds to wait for another process to leave; `is_locked` is there for a moment.

        Raises:
            ConfigError: another process is working here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=patience)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(
                f"another process is working in {self.path}: wait for it, stop it, or name another --run_dir"
            ) from None
        return lock

    def is_locked(self) -> bool:
        """Whether a process is working here."""
        if not (self.path / ".lock").is_file():
            return False
        try:
            self.locked().release()
        except ConfigError:
            return True
        return False

    def require_run(self) -> None:
        """Refuses a directory that is no run.

        Raises:
            CheckpointError: with the cure.
        """
        if not self.config.is_file():
            raise CheckpointError(
                f"{self.path} is no run directory (it has no config.yaml): train one with "
                f"'genre-lightning fit --config configs/distilbert.yaml --run_dir {self.path}'"
            )

    def require_trained(self) -> None:
        """Refuses a directory that is no run, and a run whose training has not come to its end.

        Raises:
            CheckpointError: with the cure.
        """
        self.require_run()
        if self.status not in ("evaluating", "finished"):
            raise CheckpointError(
                f"{self.path} has not finished training: run 'genre-lightning fit --run_dir {self.path}' to its end "
                "first"
            )

    def settings(self) -> dict[str, Any]:
        """The resolved configuration as plain values.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            content = None
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.config} is damaged: put it back, or name another --run_dir")
        return content

    def write_config(self, text: str) -> None:
        """Keeps the resolved configuration."""
        write_text(self.config, text)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{key}."))
        else:
            flat[key] = value
    return flat


def training_digest(config_text: str) -> str:
    """SHA-256 of the settings that the training depends on, of a resolved configuration in YAML."""
    settings = flatten(yaml.safe_load(config_text))
    kept = {key: value for key, value in sorted(settings.items()) if not _is_ignored(key, _WITHOUT_EFFECT)}
    return hashlib.sha256(json.dumps(kept, default=str, sort_keys=True).encode()).hexdigest()


def _is_ignored(key: str, ignored: Sequence[str]) -> bool:
    short = key.replace(".init_args.", ".")
    return any(short == name or short.startswith(f"{name}.") for name in ignored)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], without_effect: Sequence[str] = ()) -> list[str]:
    """The settings that would change a training, as "model.lr: 0.0003 → 0.001", sorted.

    Args:
        before: the configuration that the run was started with.
        now: the one that it would go on with.
        without_effect: settings that this kind of run does not read, beside those that none does.
    """
    ignored = (*_WITHOUT_EFFECT, *without_effect)
    old, new = flatten(before), flatten(now)
    changed = []
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key) and not _is_ignored(key, ignored):
            short = key.replace(".init_args.", ".")
            changed.append(f"{short}: {_shown(old.get(key))} → {_shown(new.get(key))}")
    return changed


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def check_same_training(
    run: RunDirectory, config_text: str, *, override: bool, without_effect: Sequence[str] = ()
) -> list[str]:
    """Compares a configuration with the one that the run directory was started with.

    Args:
        run: the directory.
        config_text: the configuration that it would go on with.
        override: let differences pass.
        without_effect: settings that this kind of run does not read.

    Returns:
        the differences that `override` lets pass.

    Raises:
        ConfigError: settings that would change the training differ, and `override` is not set.
        CheckpointError: the run's configuration cannot be read.
    """
    if not run.config.is_file():
        return []
    changed = differences(run.settings(), yaml.safe_load(config_text), without_effect)
    if changed and not override:
        raise ConfigError(
            f"{run.path} was started with other settings ({'; '.join(changed)}): "
            "take those back, name another --run_dir, or go on with the new ones by --override"
        )
    return changed
