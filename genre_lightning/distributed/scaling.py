"""fp16 with a loss scaler that never has the host wait for the device."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.optim import Optimizer
from typing_extensions import override

_KEY = "loss_scaler"
_OLDER_KEYS = ("MixedPrecision", "ShardedPrecision")  # of Lightning, by the plugin's class


class LossScaling:
    """The part of a precision plugin that scales the loss: shared by training on whole and on sharded weights.

    Gradients are unscaled before they are clipped. A fused optimizer then takes the device's own word for whether one
    is infinite, where any other is asked about by the host, which waits for the answer in every step.
    """

    scaler: torch.amp.GradScaler | None

    def optimizer_step(self, optimizer: Any, model: LightningModule, closure: Any, **kwargs: Any) -> Any:
        """Take a step, unless a gradient is infinite."""
        if self.scaler is None:
            return super().optimizer_step(optimizer, model=model, closure=closure, **kwargs)  # type: ignore[misc]
        result = closure()
        self.scaler.unscale_(optimizer)
        self.agree_on_overflow(optimizer)
        self._after_closure(model, optimizer)  # type: ignore[attr-defined]
        self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return result

    def agree_on_overflow(self, optimizer: Optimizer) -> None:
        """Make an infinity known to all ranks; averaged gradients are the same on all of them anyway."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning keeps it under the class's name, and a run may move between strategies."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loss scale."""
        if self.scaler is not None:
            checkpoint[_KEY] = self.scaler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the loss scale, under whatever strategy it was saved."""
        state = next((checkpoint[key] for key in (_KEY, *_OLDER_KEYS) if checkpoint.get(key)), None)
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)


class ScaledPrecision(LossScaling, MixedPrecision):
    """fp16 under autocast, on one device or with a copy of the model on each.

    Args:
        device: Type of the device that trains.
    """

    def __init__(self, device: str) -> None:
        super().__init__("16-mixed", device)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `on_load_checkpoint`."""
