"""How fast this machine's CPU trains a model: a few micro-batches of the run, with random weights and tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from genre_lightning.data.collate import Padding, pack_rows, pad_rows
from genre_lightning.data.steps import epoch_order, films_of_step, partition
from genre_lightning.models.layers.cpu_memory import keep_freed_memory
from genre_lightning.models.layers.fusion import blank_inputs
from genre_lightning.models.optimizer import parameter_groups

if TYPE_CHECKING:
    from genre_lightning.models.base import GenreClassifier
    from genre_lightning.types import Batch, Layout

MOST_PARAMETERS = 300_000_000
"""Of a model that is probed: weights, gradients and AdamW's moments are 16 bytes each, and stay below 5 GB."""

_SECONDS = 2.0
"""Time of the measured micro-batches: the first to pass it is the last."""


@dataclass(frozen=True)
class CpuSpeed:
    """What a probe has measured.

    Attributes:
        tokens_per_second: Real tokens through forward and backward passes.
        optimizer_seconds: Time of one optimizer step.
        threads: Of torch.
        probe_seconds: Time that the measurement took, building the model included.
    """

    tokens_per_second: float
    optimizer_seconds: float
    threads: int
    probe_seconds: float

    def seconds_an_epoch(self, tokens: int, steps: int) -> float:
        """Return the time of an epoch's training, without validation and saving."""
        return tokens / self.tokens_per_second + steps * self.optimizer_seconds


def measure_cpu(
    model: GenreClassifier,
    lengths: NDArray[np.int32],
    *,
    global_batch_size: int,
    micro_batches: int,
    seed: int,
    layout: Layout,
    precision: str,
) -> CpuSpeed:
    """Train a model for about two seconds on this CPU, and forget it.

    Args:
        model: An encoder that is bound and set to `shape_only`, so that its weights are not read.
        lengths: Tokens of each film of the training split.
        global_batch_size: Films of a step.
        micro_batches: Of a step.
        seed: Of the order of the films.
        layout: "padded" or "packed".
        precision: Of the trainer.
    """
    started = time.perf_counter()
    state = torch.random.get_rng_state()
    model.configure_model()
    keep_freed_memory()  # as a training does
    groups = parameter_groups(
        model.backbone.named_parameters(), model.head.named_parameters(), lr=1e-6, head_lr=1e-6, weight_decay=0.0
    )
    optimizer = model.new_optimizer(groups)
    tokens, seconds = 0, 0.0
    for number, rows in enumerate(_micro_batches(lengths, global_batch_size, micro_batches, seed, layout)):
        warming_up = number == 0
        # the first micro-batch is slower than the others; a quarter of one is enough for that
        rows = rows[: -(-len(rows) // 4)] if warming_up else rows
        batch = _batch(model, rows, layout)
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision.startswith("bf16")):
            loss = model.model_step(batch).loss_sum
        loss.backward()
        if not warming_up:
            seconds += time.perf_counter() - begun
            tokens += int(rows.sum())
        if seconds > _SECONDS:
            break
    optimizer.step()  # makes the moments
    begun = time.perf_counter()
    optimizer.step()
    optimizer_seconds = time.perf_counter() - begun
    torch.random.set_rng_state(state)
    now = time.perf_counter()
    return CpuSpeed(tokens / seconds, optimizer_seconds, torch.get_num_threads(), now - started)


def _micro_batches(
    lengths: NDArray[np.int32], global_batch_size: int, micro_batches: int, seed: int, layout: Layout
) -> Iterator[NDArray[np.int32]]:
    """Yield the lengths of the texts of micro-batches as a rank alone would have them, without end."""
    epoch = 0
    while True:
        order = epoch_order(len(lengths), seed, epoch)
        for step in range(max(1, len(lengths) // global_batch_size)):
            films = films_of_step(order, global_batch_size, step)
            for group in partition(lengths[films], micro_batches, layout):
                if len(group):
                    yield lengths[films[group]]
        epoch += 1


def _batch(model: GenreClassifier, lengths: NDArray[np.int32], layout: Layout) -> Batch:
    assert model.spec is not None
    dice = np.random.default_rng(0)
    rows = [dice.integers(0, model.spec.vocab_size, length).astype(np.int32) for length in lengths]
    if layout == "packed":
        arrays = pack_rows(rows)
    else:
        arrays = dict(zip(("input_ids", "attention_mask"), pad_rows(rows, Padding(token=0)), strict=True))
    return {
        **{name: torch.from_numpy(values) for name, values in arrays.items()},
        "labels": torch.zeros(len(rows), len(model.spec.genres)),
        "weights": torch.ones(len(rows)),
        **blank_inputs(model.spec.inputs, len(rows)),
    }
