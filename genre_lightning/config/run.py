"""The options of what accompanies a training: read without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from genre_lightning.bounds import Bounds, above, at_least


@dataclass
class CheckpointOptions:
    """When checkpoints are written.

    Attributes:
        monitor: metric of a validation that says which checkpoint is best.
        every_minutes: minutes between two saves within an epoch; null saves at its end only.
        every_steps: optimizer steps between two saves within an epoch; null for no such rhythm.
        keep_last: how many of the last checkpoints are kept; more than one for the case that the newest is damaged on
            disk.
        sharded: under strategy fsdp, every rank writes its own shards into a directory, in place of one file that the
            first rank gathers: for models that one host's memory does not hold. Other strategies write one file.
        on_failure: a save that fails (disk full, no permission) can "stop" the run, or "warn" and go on.
    """

    monitor: str = "val/f1_micro_tuned"
    every_minutes: Annotated[float | None, Bounds(0, 1e6)] = 10.0
    every_steps: Annotated[int | None, at_least(1)] = None
    keep_last: Annotated[int, at_least(1, 1000)] = 2
    sharded: bool = False
    on_failure: Literal["stop", "warn"] = "stop"


@dataclass
class EarlyStoppingOptions:
    """When training ends before its last epoch.

    Attributes:
        patience: validations without a better `checkpoint.monitor` after which training stops; 0 never stops early.
        min_delta: how much better counts as better.
    """

    patience: Annotated[int, at_least(0)] = 0
    min_delta: Annotated[float, Bounds(0, 1e9)] = 0.0


@dataclass
class WandbOptions:
    """How a run appears in Weights & Biases.

    The key comes from WANDB_API_KEY or ~/.netrc, never from here. Without one, or without an answer of the server,
    the run is kept offline in the run directory, to be sent later.

    Attributes:
        project: null is WANDB_PROJECT, or else "genre_lightning".
        entity: user or team; null is the key's default.
        name: shown for the run; null is the name of the run directory.
        group: of runs that belong together, such as the seeds of one setting.
        tags: to search by.
        notes: a longer description.
        mode: "auto" is online where there is a key and a server; "offline" asks for neither.
        log_model: keep the best checkpoint as an artifact at the end, with the decision and the tokenizer.
    """

    project: str | None = None
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: Literal["auto", "offline"] = "auto"
    log_model: bool = False


@dataclass
class PretrainOptions:
    """What a masked language model is pretrained on.

    Attributes:
        mask_fraction: fraction of a text's tokens that the model predicts: of these, 8 in 10 are hidden, 1 in 10 is
            replaced by a random token, and 1 in 10 stays.
        unlabelled: read the texts of films without genres too, beside those of the training split.
    """

    mask_fraction: Annotated[float, above(0, 0.9)] = 0.15
    unlabelled: bool = True
