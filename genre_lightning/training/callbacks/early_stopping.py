"""PatientStopping: Lightning's early stopping, with the patience that is configured now."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import EarlyStopping
from typing_extensions import override


class PatientStopping(EarlyStopping):
    """Ends a training whose metric has stopped improving; a resumed one by its own patience.

    Lightning 2.4 to 2.6 takes the patience that the checkpoint was saved with.

    Args:
        reading_sha256: SHA-256 of the settings by which films become predictions: metrics under others do not compare.
        options: Of Lightning's callback.
    """

    def __init__(self, *, reading_sha256: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.reading_sha256 = reading_sha256

    @property
    @override
    def state_key(self) -> str:
        # that of Lightning's, by which checkpoints of earlier versions know its state
        return super().state_key.replace(type(self).__qualname__, EarlyStopping.__qualname__, 1)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "reading_sha256": self.reading_sha256}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("reading_sha256") in (None, self.reading_sha256):
            super().load_state_dict({**state_dict, "patience": self.patience})
