"""The options of what accompanies a training: read without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from genre_lightning.bounds import Bounds, above, at_least
from genre_lightning.config.effects import UNCHANGED


@dataclass
class CheckpointOptions:
    """When checkpoints are written.

    Attributes:
        monitor: Metric of a validation by which the best checkpoint is chosen.
        every_minutes: Minutes between two saves within an epoch; null or 0 for no such rhythm.
        every_steps: Optimizer steps between two saves within an epoch; null for no such rhythm.
        keep_last: How many of the last checkpoints are kept; more than one for the case that the newest is damaged on
            disk.
        sharded: Under strategy fsdp, every rank writes its own shards into a directory, in place of one file that
            rank 0 gathers: for models that one host's memory does not hold. Other strategies write one file.
        on_failure: A save that fails (disk full, no permission) can "stop" the run, or "warn" and continue.
    """

    monitor: str = "val/f1_micro_tuned"
    every_minutes: Annotated[float | None, Bounds(0, 1e6), UNCHANGED] = 10.0
    every_steps: Annotated[int | None, at_least(1), UNCHANGED] = None
    keep_last: Annotated[int, at_least(1, 1000), UNCHANGED] = 2
    sharded: Annotated[bool, UNCHANGED] = False
    on_failure: Annotated[Literal["stop", "warn"], UNCHANGED] = "stop"


@dataclass
class EarlyStoppingOptions:
    """When training ends before its last epoch.

    Attributes:
        patience: Validations without a better `checkpoint.monitor` after which training stops; 0 never stops early.
        min_delta: How much better counts as better.
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
        entity: User or team; null is the key's default.
        name: Shown for the run; null is the name of the run directory.
        group: Group of runs that belong together, such as the seeds of one setting.
        tags: Tags to search by.
        notes: A longer description.
        mode: "auto" is online if there is a key and a server; "offline" asks for neither.
        log_model: Keep the best checkpoint as an artifact at the end, with the decision and the tokenizer.
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
        mask_fraction: Fraction of a text's tokens that the model predicts: of these, 8 in 10 are hidden, 1 in 10 is
            replaced by a random token, and 1 in 10 stays.
        unlabelled: Read the texts of films without genres too, beside those of the training split.
    """

    mask_fraction: Annotated[float, above(0, 0.9)] = 0.15
    unlabelled: bool = True
