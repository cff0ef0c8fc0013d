"""run_state.json: how far a run has come, and what it keeps between its starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from genre_lightning.provenance import TRAINING
from genre_lightning.shapes import Shape, count, number, one_of, require_shape, text

Status = Literal["new", "training", "evaluating", "finished"]


def is_job_id(value: Any) -> bool:
    """Check for the id of a job, such as "1234" or "1234_5"."""
    return isinstance(value, str) and all(part.isdecimal() for part in value.split("_", 1))


_SHAPE: Shape = {
    "status": one_of(*get_args(Status)),
    "data?": {"films": text, "reading?": count, "splits?": {"*": text}},
    "overridden?": [text],
    "overrides?": [text],
    "train_seconds?": number,
    "trainable_parameters?": count,
    "steps?": count,
    "starts?": count,
    "start?": {"time": number, "step": count, "job?": is_job_id},
    "training?": TRAINING,
    "wandb_id?": text,
}


@dataclass(frozen=True)
class FilmsOfRun:
    """Which films a run was started with."""

    films: str
    """Digest of all films of the file."""
    reading: int | None = None
    """Version of the reader, on which the digests depend; None in runs of early versions."""
    splits: dict[str, str] | None = None
    """SHA-256 of the ids of each split."""


@dataclass(frozen=True)
class Start:
    """The last start of a run's training."""

    time: float
    """Seconds since the epoch, to compare with the times of files."""
    step: int
    """Optimizer steps that were done already."""
    job: str | None = None
    """Id of the SLURM job; None outside of one."""


@dataclass(frozen=True)
class RunState:
    """What run_state.json holds; None for what is not known yet."""

    status: Status = "new"
    data: FilmsOfRun | None = None
    overridden: list[str] = field(default_factory=list)
    """Digests of the settings that `--override` has left behind."""
    overrides: list[str] = field(default_factory=list)
    """What `--override` has changed within the training, as "after step 8: model.lr: 0.001 → 0.002"."""
    train_seconds: float | None = None
    """Of all starts together."""
    trainable_parameters: int | None = None
    steps: int | None = None
    """Optimizer steps of the whole training."""
    starts: int = 0
    """How often the training was started."""
    start: Start | None = None
    training: dict[str, Any] | None = None
    """What the training settled and what trained it, as metrics.json repeats it."""
    wandb_id: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunState:
        """Read the state from the values of a file; names that are not known are passed over.

        Raises:
            ValueError: Naming the first value that is not what it should be.
        """
        require_shape(values, _SHAPE)
        known = {name: values[name] for name in cls.__dataclass_fields__ if values.get(name) is not None}
        for name, kind in (("data", FilmsOfRun), ("start", Start)):
            if name in known:
                known[name] = kind(**{part: known[name].get(part) for part in kind.__dataclass_fields__})
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """Return the values of the file, those that are known."""
        unknown = {**asdict(RunState()), "status": None}
        values = {name: value for name, value in asdict(self).items() if value != unknown[name]}
        for name in values.keys() & {"data", "start"}:
            if isinstance(values[name], dict):
                values[name] = {part: value for part, value in values[name].items() if value is not None}
        return values
