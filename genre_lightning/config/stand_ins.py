"""What stands for each model where torch is not loaded: a class of its import path that takes the same options."""

from __future__ import annotations

import importlib
from typing import Any

from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.constructors import takes, values
from genre_lightning.config.model import OPTIONS


class StandIn:
    """Base of the classes that stand for models."""

    options: ClassifierOptions

    def make(self) -> Any:
        """Import the model and make it of the same options."""
        kind = type(self)
        model = getattr(importlib.import_module(kind.__module__), kind.__name__)
        return model(**values(self.options))


def _stand_in(path: str, kind: type[ClassifierOptions]) -> type[StandIn]:
    module, _, name = path.rpartition(".")

    @takes(kind)
    def __init__(self: StandIn, options: ClassifierOptions) -> None:
        self.options = options

    about = {"__init__": __init__, "__doc__": kind.__doc__, "__module__": module, "__qualname__": name}
    return type(name, (StandIn,), about)


STAND_INS = {path: _stand_in(path, kind) for path, kind in OPTIONS.items()}
"""By class path; the first is the default."""

DEFAULT_MODEL = next(iter(STAND_INS))
"""The encoder."""

PUBLIC = {f"genre_lightning.{path.rpartition('.')[2]}": kind for path, kind in STAND_INS.items()}
"""By the path that a library's user imports."""


def class_path(name: str) -> str:
    """Return the path by which a run names a model; others than the package's own stay as they are."""
    short = name.removeprefix("genre_lightning.")
    return next((path for path in OPTIONS if path.rpartition(".")[2] == short), name)
