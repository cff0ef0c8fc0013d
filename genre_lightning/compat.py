"""Private names of libraries, in one place: what each is needed for, and the version in which it was read."""

from __future__ import annotations

import copy
import gc
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import (
    _actions,
    _loaders_dumpers,
    _optionals,
    _typehints,
    _util,
    get_loader,
    set_loader,
    set_parsing_settings,
)
from jsonargparse._common import parsing_settings  # 4.53: its settings can be made but not taken back
from jsonargparse._paths import Path as ParserPath

from genre_lightning.errors import one_line
from genre_lightning.shared_cpus import sleep_early_if_shared
from genre_lightning.yaml_files import NOT_YAML, named_keys, parse_yaml, read_text, well_formed

if TYPE_CHECKING:
    import optuna
    from lightning.pytorch import Trainer
    from torch import nn

_SHORT = 200
"""Characters that cannot take long to parse, nor be nested so deep that libyaml overflows the stack."""


def _read_path(path: ParserPath) -> str:
    return read_text(Path(path.absolute))


def set_hyperparameters(module: Any, values: dict[str, Any], *, log: bool) -> None:
    """Set the `hparams` that a checkpoint keeps and `load_from_checkpoint` passes to the constructor.

    `save_hyperparameters` of Lightning 2.4 to 2.6 looks for the constructor's arguments in the local variables of its
    frame, and those of `config.constructors.takes` are in an object.

    Args:
        module: A LightningModule or LightningDataModule that is being constructed.
        values: By argument.
        log: Whether loggers get them.
    """
    module._set_hparams(dict(values))
    module._hparams_initial = copy.deepcopy(module._hparams)
    module._log_hyperparams = log


def keep_buffers_per_rank(module: nn.Module) -> None:
    """Have DDP leave a module's buffers alone: they are equal on all ranks, or sums over the rank's own films.

    DDP broadcasts those of rank 0 in every forward pass unless it was made otherwise, as a plain Trainer's is not. The
    names are read by DDP of torch 2.6 to 2.13.
    """
    from torch.nn.parallel import DistributedDataParallel

    names = [name for name, _ in module.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


def use_own_sampler(trainer: Trainer) -> None:
    """Have a trainer take the samplers as they are: they give each rank its own films already.

    A plain Trainer of several ranks would wrap them in another, which drops films. Lightning 2.4 to 2.6 have no public
    way to turn that off but an argument of the Trainer.
    """
    trainer._accelerator_connector.use_distributed_sampler = False


class _ImportedLater(ModuleType):
    """A module that is imported when one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def import_lightning() -> None:
    """Import Lightning, without what only plots, audio and images need, and with the garbage collector paused.

    For commands, whose process is their own: call it before anything imports Lightning. The collector finds nothing in
    the objects that modules are made of, and takes a tenth of the time; it never looks at them again. How torch's
    threads wait is set too.
    """
    sleep_early_if_shared()
    collects = gc.isenabled()
    gc.disable()
    try:
        if "torchmetrics" not in sys.modules:
            _import_torchmetrics()
        if "transformers.loss" not in sys.modules:
            _import_losses_of_transformers()
        importlib.import_module("lightning.pytorch")
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def _import_torchmetrics() -> None:
    """Import torchmetrics without matplotlib and scipy.signal, which take longer to load than torch.

    torchmetrics 1.9 imports both with itself if they are installed, and Lightning 2.4 to 2.6 imports torchmetrics. Here
    it is answered that they are not, by what it asks: two names of lightning_utilities 0.15. Its metrics that need
    SciPy ask again when they compute, and its plots import matplotlib when one is drawn; they have the program's style
    then, in place of matplotlib's default.
    """
    imports: Any = importlib.import_module("lightning_utilities.core.imports")
    left_out = ("matplotlib", "scipy")
    is_installed, is_met = imports.package_available, imports.RequirementCache.__bool__
    # neither keeps the answer
    imports.package_available = lambda name: name not in left_out and is_installed(name)
    imports.RequirementCache.__bool__ = lambda cache: cache.requirement not in left_out and is_met(cache)
    try:
        plot: Any = importlib.import_module("torchmetrics.utilities.plot")
    finally:
        imports.package_available, imports.RequirementCache.__bool__ = is_installed, is_met
    plot.plt = _ImportedLater("matplotlib.pyplot")


def _import_losses_of_transformers() -> None:
    """Import the losses of transformers, which come with any model, as if there were no SciPy.

    Those of object detection in transformers 5.17 to 5.23 ask for it by this function, and its import takes half a
    second. This program does not use them.
    """
    utils: Any = importlib.import_module("transformers.utils")
    is_available = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        importlib.import_module("transformers.loss.loss_utils")
    finally:
        utils.is_scipy_available = is_available


class _DefiningPaths(_util.ResolvedImportPaths):
    """Import paths of this project's classes as configurations have them: of the module that defines the class.

    jsonargparse 4.53 takes the shortest, which is that of the package once it exports the class.
    """

    def get(self, instance: Any) -> str | None:
        if isinstance(instance, type) and instance.__module__.startswith(f"{__package__}."):
            return f"{instance.__module__}.{instance.__qualname__}"
        return super().get(instance)


class _NestedArg(_util.NestedArg):
    """The value of an option within two groups, such as model.lora.targets, which jsonargparse 4.53 reads twice.

    It writes the None of a "null" in Python's way for the second time, which no option takes.
    """

    def __new__(cls, key: str, val: Any) -> _NestedArg:
        return super().__new__(cls, key, "null" if val is None else val)


@contextmanager
def importing_only(paths: Iterable[str], stand_ins: Mapping[str, type] = MappingProxyType({})) -> Iterator[None]:
    """Have jsonargparse import these paths alone, make no objects of untyped arguments, and parse small texts only.

    A path that a class stands in for is not imported: the parser is given that class.

    A text that YAML reads as nothing, such as "#" or "~", stays that text; only null is null. Files are read from this
    machine alone, with the limits of configuration files: Lightning lets the parser fetch them by any protocol.

    The settings are the process's own: they are put back, since a program that imports this library may parse with
    jsonargparse too.
    """
    before, load = dict(parsing_settings), get_loader("yaml")
    load_basic = _loaders_dumpers.yaml_load  # of numbers and truth values, whatever loader is set
    mode, read = _optionals._config_read_mode, ParserPath.read_text
    remembered, import_object = _util.resolved_import_paths, _typehints.import_object  # of _actions too

    def load_text(text: str) -> Any:
        if "*" in text or len(text) > _SHORT:
            try:
                parse_yaml(text)
            except NOT_YAML as error:
                raise yaml.YAMLError(one_line(error)[:200]) from None
        with well_formed():
            loaded = load(text)
        return text if loaded is None else named_keys(loaded)

    def import_or_stand_in(name: Any, check_path: bool = True) -> Any:
        return stand_ins[name] if name in stand_ins else import_object(name, check_path)

    parsing_settings["import_path_verdicts"] = {}  # a list of denied paths of the program's would be joined to ours
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(paths), instantiate_subclass_spec_in_any=False
    )
    set_loader("yaml", load_text, (yaml.YAMLError,))
    _loaders_dumpers.yaml_load = load_text
    _optionals._config_read_mode = "fr"
    _util.resolved_import_paths = _DefiningPaths()
    util: Any = _util
    typehints: Any = _typehints
    nested = util.NestedArg
    util.NestedArg = typehints.NestedArg = _NestedArg
    _typehints.import_object = _actions.import_object = import_or_stand_in
    ParserPath.read_text = _read_path  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        _typehints.import_object = _actions.import_object = import_object
        _util.resolved_import_paths = remembered
        util.NestedArg = typehints.NestedArg = nested
        ParserPath.read_text = read  # type: ignore[method-assign]
        _optionals._config_read_mode = mode
        _loaders_dumpers.yaml_load = load_basic
        set_loader("yaml", load, (yaml.YAMLError,))
        parsing_settings.update(before)


def running_trial(study: optuna.Study, frozen: optuna.trial.FrozenTrial) -> optuna.Trial:
    """Return a trial that an earlier process began, to be continued; its options are those that it has.

    Optuna 5.0 makes such objects only for trials that it begins itself, and keeps a trial's id in a private name.
    """
    import optuna

    return optuna.Trial(study, frozen._trial_id)


def onednn_linear() -> Callable[..., Any] | None:
    """Return oneDNN's linear layer, which adds the bias within its matmul; None if this torch or CPU lacks it.

    The operation is what torch.compile calls on a CPU; it has no derivative. Read in torch 2.11 and 2.13.
    """
    import torch

    operations = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operations, "_linear_pointwise")):
        return None
    return operations._linear_pointwise if operations._is_mkldnn_bf16_supported() else None
