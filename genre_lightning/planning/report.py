"""What a plan contains, as `genre-lightning plan` prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from genre_lightning.planning.setting import BatchShape


@dataclass(frozen=True)
class MachineReport:
    """What the run is planned for; gpu is None if none is given."""

    nodes: int
    devices: int
    ranks: int
    accelerator: str
    gpu: str | None
    gpu_bytes: int | None
    precision: str
    strategy: str


@dataclass(frozen=True)
class DataReport:
    """The films: rows of the file, those kept and used, films of each split, and the number of genres."""

    rows: int
    kept: int
    films_used: int
    splits: dict[str, int]
    genres: int


@dataclass(frozen=True)
class LengthsReport:
    """Tokens of the texts, after the cut at max_tokens; estimated is the reason why they were not counted."""

    mean: float
    median: int
    p95: int
    longest: int
    at_limit: int
    max_tokens: int
    estimated: str | None


@dataclass(frozen=True)
class StepsReport:
    """The steps, and the tokens of an epoch: real ones, and slots with the padding."""

    films: int
    global_batch_size: int
    steps_an_epoch: int
    epochs: int
    total_steps: int
    micro_batches: int
    micro_batch_tokens: int
    largest_micro_batch: BatchShape
    tokens_an_epoch: int
    slots_an_epoch: int
    padding: float


@dataclass(frozen=True)
class ParametersReport:
    """Numbers of parameters."""

    total: int
    trained: int
    quantised: int
    blocks: int


@dataclass(frozen=True)
class MemoryReport:
    """Bytes of each device under one strategy; fits is None if the GPU is not given."""

    parts: dict[str, int]
    tensors: int
    context_assumed: int
    reserve_assumed: int
    total: int
    host: int
    fits: bool | None = None
    largest_micro_batch_tokens: int | None = None


@dataclass(frozen=True)
class CpuTime:
    """Seconds of the training, from a measurement on this machine; see `CpuSpeed` for the first four."""

    tokens_per_second: float
    optimizer_seconds: float
    threads: int
    probe_seconds: float
    device: str
    seconds_a_step: float
    seconds_an_epoch: float
    seconds: float


@dataclass(frozen=True)
class GpuTime:
    """Seconds of the training, from its FLOPs."""

    utilisation: float
    dense_peak_flops: float
    flops_an_epoch: float
    step: dict[str, Any]
    """Seconds of a step's parts, and what limits it, as in `StepTime`."""
    seconds_an_epoch: float
    seconds: float


@dataclass
class PlanReport:
    """A plan, filled in as far as the configuration lets it be made."""

    machine: MachineReport
    data: DataReport | None = None
    lengths: LengthsReport | None = None
    steps: StepsReport | None = None
    parameters: ParametersReport | None = None
    memory: dict[str, MemoryReport] = field(default_factory=dict)
    """By strategy, the configured one first."""
    time: CpuTime | GpuTime | None = None
    no_time: str | None = None
    """Why there is no time."""
    notes: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """All that `fit` would refuse."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        for column in values["memory"].values():
            if column["fits"] is None:
                del column["fits"], column["largest_micro_batch_tokens"]
        return {**values, "memory": values["memory"] or None}
