"""Every row of the table is a class of Lightning or of this project, of the type that its option asks for."""

import importlib
import inspect

import pytest
from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from genre_lightning.config.allowed import ALLOWED, class_names
from genre_lightning.models.base import GenreClassifier

TYPES = {
    "model": GenreClassifier,
    "trainer.accelerator": Accelerator,
    "trainer.strategy": Strategy,
    "trainer.logger": Logger,
    "trainer.callbacks": Callback,
    "trainer.profiler": Profiler,
    "trainer.plugins": (Precision, ClusterEnvironment),
}


def resolve(path):
    """Import the module by name and look the class up in it: no attribute of an attribute."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("option", ALLOWED)
def test_every_path(option):
    for path in filter(lambda name: "." in name, ALLOWED[option]):
        made = resolve(path)
        assert inspect.isclass(made)
        assert issubclass(made, TYPES[option])
        assert made.__module__.split(".")[0] in ("genre_lightning", "lightning")
        # the defining path is in the table too, or the parser would refuse the public one
        assert f"{made.__module__}.{made.__qualname__}" in ALLOWED[option]
        assert made.__name__ in class_names(option)


def test_no_class_of_the_table_needs_a_function():
    for option, names in ALLOWED.items():
        for path in filter(lambda name: "." in name, names):
            parameters = inspect.signature(resolve(path)).parameters.values()
            needed = [p for p in parameters if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
            assert not [p for p in needed if "Callable" in str(p.annotation)], (option, path)
