"""Stopping on a signal: the ranks agree on the flag that its handler sets, where the state can be saved."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from genre_lightning.distributed.heartbeats import watch_heartbeats
from genre_lightning.distributed.signals import FLAG, StopFlag
from genre_lightning.errors import ConfigError, PreemptedError

_GLOO, _NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_ASK_SECONDS = 1.0
"""Between two agreements, at most: one over gloo is a ring of all ranks, 31 ms at 512 of them and 30 us a hop."""

_MOST_STEPS = 64
"""Between two agreements, whatever the clock says: steps may become longer than those before them."""


class NoSignalConnector:
    """Stands in for Lightning's signal connector, whose handlers save and run collectives inside the handler."""

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        """Leave the process's handlers as they are."""

    def teardown(self) -> None:
        """Do nothing: there is nothing to put back."""


def replace_signal_handling(trainer: Trainer) -> None:
    """Take Lightning's own signal handling out of a trainer, its broadcast before every micro-batch included."""
    trainer._signal_connector = NoSignalConnector()  # type: ignore[assignment]
    # it waits for the device before every micro-batch; RunCheckpoint asks at the end of steps and without the device
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def choose_interface() -> None:
    """Have gloo meet over the interface that NCCL was given, or else by this host's name.

    NCCL looks at the interfaces, gloo at the address of the host's name, which Debian makes 127.0.1.1: no other node
    reaches it, and the group would wait for half an hour.

    Raises:
        ConfigError: The name is of this host alone.
    """
    if _GLOO in os.environ:
        return
    given = os.environ.get(_NCCL, "")
    if given in {name for _, name in socket.if_nameindex()}:  # a prefix, a list or an exclusion is NCCL's own form
        os.environ[_GLOO] = given
        return
    host = socket.gethostname()
    with contextlib.suppress(OSError):
        if (address := socket.gethostbyname(host)).startswith("127."):
            raise ConfigError(
                f"{host} has the address {address}, where no other node reaches it: set {_GLOO} and {_NCCL} to the "
                "network interface between the nodes, such as ib0"
            )


class StopAgreement:
    """What the ranks of a trainer agree on: whether a signal has come to any of them.

    Args:
        flag: Stop flag of this process.
    """

    def __init__(self, flag: StopFlag = FLAG) -> None:
        self.flag = flag
        self._group: Any = None
        self._pause = self._to_go = 1
        self._asked: float | None = None

    def setup(self, trainer: Trainer) -> None:
        """Make the group that the ranks agree over, and start their heartbeats; a collective."""
        watch_heartbeats(trainer.global_rank, trainer.world_size)
        if trainer.world_size > 1 and self._group is None and torch.distributed.get_backend() != "gloo":
            if trainer.num_nodes > 1:
                choose_interface()
            # flags live on the host: over gloo their agreement never waits for the device
            self._group = torch.distributed.new_group(backend="gloo")

    def reached(self, trainer: Trainer) -> bool:
        """Return whether any rank's flag is up; a collective."""
        return self._agree(trainer, due=False)[0]

    def reached_or(self, trainer: Trainer, *, due: bool = False) -> tuple[bool, bool]:
        """Return whether any rank's flag is up, and whether something is due on any rank, asked about once a second.

        Call it after every step, or every batch, on all ranks. The calls between two agreements are counted, not
        timed: clocks differ between ranks, and one that asks alone would wait for ever. How many they are is agreed on
        too, from the slowest rank's steps.
        """
        if trainer.world_size == 1:
            return self.flag.raised(), due
        self._to_go -= 1
        return (False, False) if self._to_go > 0 else self._agree(trainer, due=due)

    def _agree(self, trainer: Trainer, *, due: bool) -> tuple[bool, bool]:
        if trainer.world_size == 1:
            return self.flag.raised(), due
        now = time.monotonic()
        calls = self._pause - self._to_go
        each = (now - self._asked) / max(calls, 1) if self._asked is not None else _ASK_SECONDS
        self._asked = now
        answers = torch.tensor([self.flag.raised(), due, round(1e6 * each)], dtype=torch.int64)
        torch.distributed.all_reduce(answers, op=torch.distributed.ReduceOp.MAX, group=self._group)
        stopping, due, microseconds = answers.tolist()
        # twice as many at most, as one short step says little of the next ones
        in_time = int(1e6 * _ASK_SECONDS) // max(microseconds, 1)
        self._pause = self._to_go = max(min(in_time, 2 * self._pause, _MOST_STEPS), 1)
        return bool(stopping), bool(due)

    def stopped(self, where: str) -> PreemptedError:
        """Return the error that ends the run."""
        who = self.flag.signal or "a signal to another rank"
        return PreemptedError(f"stopped by {who} {where}: run the same command again to resume")


class StopWithoutSaving(Callback):
    """Stops if there is nothing to save: before the first step, and between two batches of an evaluation.

    All ranks stop at the same place, so that none waits for one that has left.

    Args:
        agreement: Whether a signal has come to any rank.
    """

    def __init__(self, agreement: StopAgreement) -> None:
        super().__init__()
        self.agreement = agreement

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.agreement.setup(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.agreement.flag.waiting = True  # from here on a step ends, and its state is saved, before anything stops
        if self.agreement.reached(trainer):
            raise self.agreement.stopped("before its first step")

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.agreement.flag.waiting = False

    @override
    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.agreement.reached_or(trainer)[0]:
            raise self.agreement.stopped("during evaluation")
