"""How long a step on GPUs takes, on paper: its matmuls, launching its kernels, communication between ranks, planning.

    matmuls          t = FLOPs / (ranks x utilisation x dense peak)
    kernel launches  k = micro-batches x blocks x what launching those of a block takes, from Python, one after another
    communication    x = bytes / link + collectives x 2 log2(n) x 10 us, over n ranks
    bytes            DDP: 2 (n - 1) / n x gradients                    (ring all-reduce: Patarasuk and Yuan, 2009)
                     FSDP: (n - 1) / n x (2 micro-batches x weights + gradients)   (gathered forward and backward)
    a step           max(t, k) + max(0, x - h max(t, k)), and the planning of the next one

with h = 2/3 for DDP, which sends during the backward pass, and 1 for FSDP, which fetches ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

DENSE = 0.4
"""Utilisation of the dense peak by matmuls alone: assumed."""
NF4, CHECKPOINTED = 0.7, 0.8
"""What 4-bit weights and activation checkpointing leave of it: published pairs run at 0.62 to 0.78, and at 0.80."""

NVLINK, NODE_LINKS = 450e9, 400e9
"""Bytes a second in one direction: of a GPU inside a node (H100 data sheet: 900 GB/s both ways), and of a node's eight
adapters of 400 Gb/s together (DGX H100 data sheet), which as many rings share."""
_IN_A_NODE = 8
_HOP_SECONDS = 10e-6
"""Of a collective: assumed."""
_BUCKET = 25 * 2**20
"""Bytes of gradients that DDP sends together: its default."""
_LAUNCH_SECONDS = {"encoder": 4e-3, "decoder": 284 * 10e-6, "sharded decoder": 700 * 10e-6}
"""To launch the kernels of a block, forward and backward. Encoders: measured beside an H200, 25 to 31 ms a step of 6
blocks, all else included. Decoders: counted with checkpointing on a pretended GPU, at 10 us each, which is assumed."""
_PLAN_SECONDS, _PLANNED_AHEAD_SECONDS, _PLANNED_AHEAD = 1e-7, 1e-4, 8192
"""Of a film, in the training's own thread, and of any step of 8,192 films and more, which a thread plans ahead:
measured on a server's CPU."""
_AGREEMENT_SECONDS = 60e-6
"""Of each further rank, once a second: two hops of gloo's ring over the network, assumed."""


def usual_utilisation(*, quantised: bool, checkpointed: bool) -> float:
    """Return the part of the dense peak that training is taken to reach."""
    return round(DENSE * (NF4 if quantised else 1.0) * (CHECKPOINTED if checkpointed else 1.0), 3)


@dataclass(frozen=True)
class Work:
    """A step, as its time is reckoned from.

    Attributes:
        flops: Of a step, over all ranks.
        films: Of a step.
        micro_batches: Of a step, on each rank.
        blocks: Transformer blocks.
        decoder: Whether they are Llama's.
        weights: Bytes of the model on one device.
        gradients: Bytes of all gradients.
    """

    flops: float
    films: int
    micro_batches: int
    blocks: int
    decoder: bool
    weights: float
    gradients: float


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        matmuls: Of the GPU.
        kernels: To launch them.
        communication: Between the ranks.
        hidden: Of the communication, behind the matmuls or the kernels.
        planning: Of the next step.
        agreement: Fraction that the ranks spend on whether to stop.
    """

    matmuls: float
    kernels: float
    communication: float
    hidden: float
    planning: float
    agreement: float

    @property
    def seconds(self) -> float:
        """Of the step as a whole."""
        own = max(self.matmuls, self.kernels) + self.communication - self.hidden + self.planning
        return own * (1 + self.agreement)

    @property
    def limit(self) -> str:
        """Which of the parts takes longest: "matmuls", "kernels" or "communication"."""
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("matmuls", "kernels", "communication")}
        return max(parts, key=parts.__getitem__)


def step_time(work: Work, *, ranks: int, sharded: bool, peak: float, utilisation: float) -> StepTime:
    """Return how long a step takes.

    Args:
        work: The step.
        ranks: Devices in all.
        sharded: Whether the strategy is fsdp.
        peak: Dense peak of a device, in FLOPs a second.
        utilisation: Part of it that matmuls reach.
    """
    matmuls = work.flops / (ranks * peak * utilisation)
    kind = ("sharded decoder" if sharded else "decoder") if work.decoder else "encoder"
    kernels = work.micro_batches * work.blocks * _LAUNCH_SECONDS[kind]
    communication = _communication(work, ranks, sharded=sharded)
    own = max(matmuls, kernels)
    ahead = work.films >= _PLANNED_AHEAD
    return StepTime(
        matmuls=matmuls,
        kernels=kernels,
        communication=communication,
        hidden=min(communication, own * (1.0 if sharded else 2 / 3)),
        planning=_PLANNED_AHEAD_SECONDS if ahead else _PLAN_SECONDS * work.films,
        agreement=_AGREEMENT_SECONDS * (ranks - 1),
    )


def _communication(work: Work, ranks: int, *, sharded: bool) -> float:
    if ranks == 1:
        return 0.0
    if sharded:
        sent = 2 * work.micro_batches * work.weights + work.gradients
        collectives = (2 * work.micro_batches + 1) * (work.blocks + 1)
    else:
        sent, collectives = 2 * work.gradients, math.ceil(work.gradients / _BUCKET)
    link = NVLINK if ranks <= _IN_A_NODE else NODE_LINKS
    # and the sums of the step
    return (ranks - 1) / ranks * sent / link + (collectives + 1) * 2 * math.log2(ranks) * _HOP_SECONDS
