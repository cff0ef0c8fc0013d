"""A run directory: its fixed names, its state, its lock, and whether a run may be resumed in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.files import check_folder, damaged, read_json, read_record, write_json, write_text
from genre_lightning.locks import HeldLock, is_held, locked
from genre_lightning.run_state import RunState, Status, is_job_id
from genre_lightning.shapes import Shape, number, require_shape
from genre_lightning.yaml_files import read_yaml

FEEDBACK_DATABASE = "feedback.db"
"""Where a run's feedback is stored unless another file is named."""

ENSEMBLE = "ensemble"
"""The section that the configuration of an ensemble has in place of all others."""

PRETRAINING = "pretrain"
"""The section that the configuration of a pretraining has beside those of a training."""

_OF_RUN = {ENSEMBLE, "baseline", "data", "model"}
"""Sections of which every run's configuration has one; many other programs have a config.yaml too."""

_DEEPEST_ENSEMBLE = 8
_JOB: Shape = {"job": is_job_id}
_WEIGHT_TOLERANCE = 1e-6
"""How far the weights of an ensemble may be from the sum 1: they are kept as decimals."""


@dataclass(frozen=True)
class EvaluationDirectory:
    """Names of what lies in the directory of a split's evaluation."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The metrics; written last, so that if it is there the others are too."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Labels, logits, probabilities and decided genres of each film."""
        return self.path / "predictions.parquet"

    @property
    def per_genre(self) -> Path:
        """The metrics of each genre."""
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
        """The words that add most to each genre, if `explain --top_words` has been run."""
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
    def splits(self) -> Path:
        """The side of each film, by id and by the digest of its text."""
        return self.path / "splits.parquet"

    @property
    def lineage(self) -> Path:
        """The run that this one continues from; only runs that continue from one have it."""
        return self.path / "lineage.json"

    @property
    def corrections(self) -> Path:
        """The feedback on films that the run learns from; only runs with --feedback have it."""
        return self.path / "feedback.jsonl"

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

    @property
    def backbone(self) -> Path:
        """The pretrained encoder; only runs of `pretrain` have it."""
        return self.path / "backbone"

    def evaluation(self, split: str) -> EvaluationDirectory:
        """Return the directory of a split's evaluation."""
        return EvaluationDirectory(self.path / "evaluation" / split)

    @property
    def status(self) -> Status:
        """How far the run has come; "new" if there is none yet."""
        return self.read_state().status

    @property
    def has_trained(self) -> bool:
        """Whether a step of its training is kept, after which each film stays on its side."""
        trained = self.baseline.is_file() or any(self.checkpoints.glob("*.ckpt"))
        return trained or self.status in ("evaluating", "finished")

    @property
    def again(self) -> str:
        """The command that writes the run's files again, as the fix of a message."""
        try:
            settings = self.settings()
        except CheckpointError:
            return "run the command that made the run again"
        kind, members = kind_of(settings), ""
        if kind == ENSEMBLE:
            weights = settings[ENSEMBLE].get("weights") if isinstance(settings[ENSEMBLE], Mapping) else None
            members = "".join(f" {path}" for path in weights) if isinstance(weights, Mapping) else " RUN RUN"
        return f"run 'genre-lightning {kind}{members} --run_dir {self.path}' again"

    def job(self) -> str | None:
        """Read the id of the job that `submit` queued last; None without one.

        Raises:
            CheckpointError: job.json is damaged.
        """
        path = self.batch / "job.json"
        if not path.is_file():
            return None
        fix = f"delete it: 'genre-lightning status {self.path}' then shows the run without its job"
        return str(read_json(path, _JOB, fix)["job"])

    def members(self) -> list[tuple[RunDirectory, float]]:
        """Read the runs of an ensemble and their weights.

        A member is where it was, or beside the ensemble when both have moved.

        Raises:
            CheckpointError: config.yaml does not hold an ensemble of different runs with weights from 0 on that add
                up to 1, or a member is not there.
        """
        settings = self.settings()
        try:
            require_shape(settings, {ENSEMBLE: {"weights": {"*": _weight}}})
            weights = {str(path): float(weight) for path, weight in settings[ENSEMBLE]["weights"].items()}
            if abs(sum(weights.values()) - 1) > _WEIGHT_TOLERANCE:
                raise ValueError(f"its weights add up to {sum(weights.values()):.6g}, not to 1")
            found = [(self._member(path), weight) for path, weight in weights.items()]
            if len({member.path.resolve() for member, _ in found}) < max(2, len(found)):
                raise ValueError("it does not name two or more different runs")
        except ValueError as error:
            raise damaged(self.config, error, "make the ensemble again in another --run_dir") from None
        return found

    @property
    def first_model(self) -> RunDirectory:
        """The run itself; of an ensemble its first member, and of that likewise.

        Raises:
            CheckpointError: An ensemble is damaged, or a member is not there.
        """
        return self.members()[0][0].first_model if kind_of(self.settings()) == ENSEMBLE else self

    def _member(self, path: str) -> RunDirectory:
        beside = self.path.parent / Path(path).name
        for place in (Path(path), beside):
            if RunDirectory(place).config.is_file():
                return RunDirectory(place)
        raise CheckpointError(
            f"{self.path} is an ensemble of {path}, which is not there: put it back, or copy it to {beside}"
        )

    def check_members(self, above: tuple[Path, ...] = ()) -> None:
        """Refuse an ensemble that is, at any depth, a member of itself.

        Args:
            above: Resolved directories of the ensembles that this run is a member of.

        Raises:
            CheckpointError: It is, a member is not there, or a configuration is damaged.
        """
        place = self.path.resolve()
        if place in above or len(above) > _DEEPEST_ENSEMBLE:
            reason = "is a member of itself" if place in above else f"is nested deeper than {_DEEPEST_ENSEMBLE} levels"
            raise CheckpointError(f"the ensemble {self.path} {reason}: make it again from other runs")
        if self.config.is_file() and kind_of(self.settings()) == ENSEMBLE:
            for member, _ in self.members():
                member.check_members((*above, place))

    def read_state(self) -> RunState:
        """Read how far the run has come, and what it keeps.

        Raises:
            CheckpointError: run_state.json is damaged.
        """
        if not self.state.is_file():
            return RunState()
        try:
            return read_record(self.state, RunState.from_json)
        except CheckpointError:  # the command that fixes it is in config.yaml, which takes long to parse
            return read_record(self.state, RunState.from_json, f"delete it, then {self.again}")

    def set_status(self, status: Status, **changes: Any) -> None:
        """Note how far the run has come; `changes` of the other fields of `RunState` stay until given again."""
        state = replace(self.read_state(), status=status, **changes)
        stored = read_json(self.state) if self.state.is_file() else {}
        # what another version keeps there stays
        others = {name: value for name, value in stored.items() if name not in RunState.__dataclass_fields__}
        write_json(self.state, {**others, **state.to_json()})

    def check_writable(self) -> None:
        """Refuse a place where no run directory can be, and leave nothing behind.

        Raises:
            ConfigError: No run directory can be there; the message names the fix.
            CheckpointError: The configuration of the run in it cannot be read.
        """
        check_folder(self.path, "--run_dir")
        self.check_links()
        # hidden files are what a start that was killed leaves; a submitted run has its batch script before it starts
        others = self.path.is_dir() and any(
            not file.name.startswith(".") and file != self.batch for file in self.path.iterdir()
        )
        if others and not self.config.is_file():
            raise ConfigError(
                f"run_dir {self.path} holds other files and no run: name another with --run_dir, or empty it"
            )
        if self.config.is_file() and not self.settings().keys() & _OF_RUN:
            raise ConfigError(f"run_dir {self.path} holds a config.yaml that is of no run: name another with --run_dir")

    def check_links(self) -> None:
        """Refuse links that lead out of the run directory, and what is neither a file nor a folder.

        Through such a link a command would write elsewhere, and at a pipe it would wait for ever. Below wandb/ there
        may be some: W&B writes into new folders there, and links its own logs to its cache.

        Raises:
            ConfigError: There is one.
        """
        root = os.path.realpath(self.path)
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                path = Path(folder, name)
                try:
                    mode = path.lstat().st_mode
                except FileNotFoundError:  # a command that is at work here has renamed it
                    continue
                if stat.S_ISLNK(mode):
                    if not Path(os.path.realpath(path)).is_relative_to(root):
                        raise ConfigError(
                            f"{path} is a link that leads out of the run directory: replace it with what it points to"
                        )
                elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise ConfigError(f"{path} is a pipe, a socket or a device, which no run has: delete it")
            if Path(folder) == self.path and "wandb" in folders:
                folders.remove("wandb")

    def locked(self, patience: float = 1.0) -> HeldLock:
        """Keep other processes out until it is released; the lock is dropped with its holder.

        Args:
            patience: Seconds to wait for another process to leave; `is_locked` is there for a moment.

        Raises:
            ConfigError: Another process is working here, or nothing can be locked here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        busy = f"another process is working in {self.path}: wait for it, stop it, or name another --run_dir"
        return locked(self.path / ".lock", patience, busy)

    def is_locked(self) -> bool:
        """Return whether a process is working here."""
        return is_held(self.path / ".lock")

    def require_run(self) -> None:
        """Refuse a directory that is not a run.

        Raises:
            CheckpointError: The directory is not a run; the message names the fix.
        """
        if not self.config.is_file():
            raise CheckpointError(
                f"{self.path} is not a run directory (it has no config.yaml): train one with "
                f"'genre-lightning fit --config distilbert --run_dir {self.path}'"
            )
        self.check_links()

    def require_trained(self) -> None:
        """Refuse a directory that is not a run, a pretraining, and a run whose training has not come to its end.

        Raises:
            CheckpointError: With the fix.
        """
        self.require_run()
        self.require_genres()
        if self.status not in ("evaluating", "finished"):
            raise CheckpointError(f"{self.path} has not finished training: {self.again}, to its end")

    def require_genres(self) -> None:
        """Refuse a pretraining, which knows no genres.

        Raises:
            CheckpointError: With what to do with it.
        """
        if self.config.is_file() and kind_of(self.settings()) == PRETRAINING:
            raise CheckpointError(
                f"{self.path} is a pretraining and knows no genres: train on it by 'genre-lightning fit "
                f"--model.backbone {self.path}/backbone', and name that run"
            )

    def settings(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values.

        Raises:
            CheckpointError: It cannot be read.
        """
        fix = "put it back, or name another --run_dir"
        try:
            return read_yaml(self.config)
        except ConfigError as error:
            raise damaged(self.config, error, fix) from None

    def trained_on(self) -> Iterator[Path]:
        """Yield the files that a run, or an ensemble's members, learnt from, as the configuration names them.

        Raises:
            CheckpointError: An ensemble is damaged, or a member is not there.
        """
        settings = self.settings()
        if ENSEMBLE in settings:
            self.check_members()
            for member, _ in self.members():
                yield from member.trained_on()
            return
        data = _mapping(settings.get("data"))
        joins = map(_mapping, _several(data.get("join")))
        named = (
            data.get("csv"),
            *_several(data.get("older_csv")),
            *_several(data.get("unlabelled")),
            data.get("unlabelled"),  # one name, or a list of names
            settings.get("labels"),
            settings.get("feedback"),
            *(join.get(n) for join in joins for n in ("file", "via")),
        )
        yield from (Path(name) for name in named if isinstance(name, str))

    def write_config(self, text: str) -> None:
        """Keep the resolved configuration."""
        write_text(self.config, text)


def open_run(path: str | os.PathLike[str]) -> RunDirectory:
    """Open the directory of a run whose training has come to its end, whatever command made it.

    Raises:
        CheckpointError: It is not a run directory, or its training has not come to its end.
        ConfigError: A link in it leads out of it, or it holds a pipe or the like.
    """
    run = RunDirectory(Path(path).expanduser().absolute())
    run.require_trained()
    return run


def check_spare(path: Path, option: str, reads: Iterable[Path] = (), run: RunDirectory | None = None) -> None:
    """Refuse to write over a file that the command reads, one that the run was trained on, or one of a run.

    Args:
        path: The output; it need not exist.
        option: That names it, such as "--out".
        reads: Files that the command reads.
        run: The run that it uses.

    Raises:
        ConfigError: It is one of these.
    """
    if not path.exists():
        return
    trained_on = () if run is None else run.trained_on()
    for kind, files in (("of the films", reads), ("that the run was trained on", trained_on)):
        if any(file.exists() and path.samefile(file) for file in files):
            raise ConfigError(f"{option} {path} is the file {kind}: name another")
    for folder in path.resolve().parents:
        owner = RunDirectory(folder)
        if owner.config.is_file() and owner.state.is_file():
            raise ConfigError(f"{option} {path} is a file of the run {owner.path}: name another place")


def kind_of(settings: Mapping[str, Any]) -> str:
    """Name the command that made a run, "fit" or "ensemble" or "baseline tfidf_nb", by its settings."""
    if ENSEMBLE in settings:
        return ENSEMBLE
    if PRETRAINING in settings:
        return PRETRAINING
    return f"baseline {settings['baseline']}" if "baseline" in settings else "fit"


def _weight(value: Any) -> bool:
    """Check for a weight from 0 to 1."""
    return number(value) and 0 <= value <= 1


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping of a configuration that nobody has checked; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def _several(value: Any) -> list[Any]:
    """Return a list of such a configuration; an empty one in place of anything else."""
    return value if isinstance(value, list) else []
