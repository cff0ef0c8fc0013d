"""PatientStopping: Lightning's early stopping, with the patience that is configured now."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import EarlyStopping
from typing_extensions import override


class PatientStopping(EarlyStopping):
    """Ends a training whose metric has stopped improving; a resumed one by its own patience.

    Lightning 2.4 to 2.6 takes the patience that the checkpoint was saved with.
    """

    @property
    @override
    def state_key(self) -> str:
        # that of Lightning's, by which checkpoints of earlier versions know its state
        return super().state_key.replace(type(self).__qualname__, EarlyStopping.__qualname__, 1)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})
