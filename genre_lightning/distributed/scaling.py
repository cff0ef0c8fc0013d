"""fp16 with a loss scaler that never has the host wait for the device."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.optim import Optimizer
from typing_extensions import override

_KEY = "loss_scaler"
_OLDER_KEYS = ("MixedPrecision", "ShardedPrecision")
"""Where Lightning keeps the scale: under the name of the plugin's class, which is another one for each strategy."""


class ScaledPrecision(MixedPrecision):
    """fp16 under autocast, on one device or with a copy of the model on each.

    Gradients are unscaled before they are clipped or their norm is taken. A fused optimizer then reads on the device
    whether one of them is infinite; of any other the scaler asks the host, which waits for the answer in every step.

    Args:
        device: Type of the device that trains.
    """

    def __init__(self, device: str) -> None:
        super().__init__("16-mixed", device)

    @override
    def optimizer_step(  # type: ignore[override]  # as Lightning's own plugins do
        self, optimizer: Any, model: LightningModule, closure: Any, **kwargs: Any
    ) -> Any:
        if self.scaler is None:
            return super().optimizer_step(optimizer, model=model, closure=closure, **kwargs)
        result = closure()
        self.scaler.unscale_(optimizer)
        self.agree_on_overflow(optimizer)
        self._after_closure(model, optimizer)
        self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return result

    def agree_on_overflow(self, optimizer: Optimizer) -> None:
        """Make an infinity known to all ranks: averaged gradients are the same on all of them anyway."""

    @override
    def state_dict(self) -> dict[str, Any]:
        return {}  # see on_save_checkpoint

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `on_load_checkpoint`."""

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.scaler is not None:
            checkpoint[_KEY] = self.scaler.state_dict()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the loss scale, whatever strategy has saved it."""
        state = next((checkpoint[key] for key in (_KEY, *_OLDER_KEYS) if checkpoint.get(key)), None)
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
