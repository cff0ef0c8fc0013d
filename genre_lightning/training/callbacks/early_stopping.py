"""EarlyStopping: Lightning's, with the patience that is configured now."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import callbacks
from typing_extensions import override


class EarlyStopping(callbacks.EarlyStopping):
    """Ends a training whose metric has stopped improving; a resumed one by its own patience.

    Lightning 2.4 to 2.6 goes back to the patience that the checkpoint was saved with. The class has Lightning's name
    since checkpoints know a callback's state by it.
    """

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})
