"""The classes that a configuration may name, by the option that may name them.

Naming a class imports and calls it, so a file from a stranger could run anything that a class path reaches. This is
the whole list: exact names of classes that take plain values, never a package or a function. Classes are left out that
call functions given to them (`LambdaCallback`), that change which films make a step
(`GradientAccumulationScheduler`, `BatchSizeFinder`), and loggers that send data to a server that the file names.
"""

from __future__ import annotations

from genre_lightning.config.model import OPTIONS
from genre_lightning.config.trust import trusted_classes

_LIGHTNING = {
    "trainer.accelerator": ("accelerators", {"cpu": ["CPUAccelerator"], "cuda": ["CUDAAccelerator"],
                                             "mps": ["MPSAccelerator"]}),
    "trainer.strategy": ("strategies", {"ddp": ["DDPStrategy"], "single_device": ["SingleDeviceStrategy"]}),
    "trainer.logger": ("loggers", {"csv_logs": ["CSVLogger"], "tensorboard": ["TensorBoardLogger"],
                                   "wandb": ["WandbLogger"]}),
    "trainer.callbacks": ("callbacks", {
        "device_stats_monitor": ["DeviceStatsMonitor"],
        "early_stopping": ["EarlyStopping"],
        "lr_monitor": ["LearningRateMonitor"],
        "model_checkpoint": ["ModelCheckpoint"],
        "model_summary": ["ModelSummary"],
        "rich_model_summary": ["RichModelSummary"],
        "stochastic_weight_avg": ["StochasticWeightAveraging"],
        "timer": ["Timer"],
        "weight_averaging": ["EMAWeightAveraging", "WeightAveraging"],
    }),
    "trainer.profiler": ("profilers", {"advanced": ["AdvancedProfiler"], "base": ["PassThroughProfiler"],
                                       "pytorch": ["PyTorchProfiler"], "simple": ["SimpleProfiler"]}),
    "trainer.plugins": ("plugins", {"precision.double": ["DoublePrecision"], "precision.half": ["HalfPrecision"],
                                    "precision.amp": ["MixedPrecision"]}),
}  # fmt: skip
"""By option: the package under lightning.pytorch, and the classes of each module in it."""

_ENVIRONMENTS = {
    "kubeflow": "KubeflowEnvironment", "lightning": "LightningEnvironment", "lsf": "LSFEnvironment",
    "mpi": "MPIEnvironment", "slurm": "SLURMEnvironment", "torchelastic": "TorchElasticEnvironment",
}  # fmt: skip


def _table() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {"model": set()}
    for path in OPTIONS:
        name = path.rpartition(".")[2]
        table["model"] |= {path, name, f"genre_lightning.{name}"}
    for option, (package, modules) in _LIGHTNING.items():
        table[option] = set()
        for module, names in modules.items():
            for name in names:
                public = f"lightning.pytorch.{package}.{name}"
                table[option] |= {name, public, f"lightning.pytorch.{package}.{module}.{name}"}
    for module, name in _ENVIRONMENTS.items():
        public = f"lightning.pytorch.plugins.environments.{name}"
        table["trainer.plugins"] |= {name, public, f"lightning.fabric.plugins.environments.{module}.{name}"}
    ours = "genre_lightning.distributed.sharded.ShardedStrategy"
    table["trainer.strategy"] |= {ours, "ShardedStrategy"}
    return {option: frozenset(names) for option, names in table.items()}


ALLOWED = _table()
"""By option: the import paths that it may name, public and defining, and the classes' bare names."""


PASSED_ON = {
    "TensorBoardLogger": ("comment", "filename_suffix"),
    "WandbLogger": ("config", "entity", "group", "job_type", "mode", "notes", "tags"),
}
"""By class: the arguments, other than numbers, that it hands on to another library and a configuration may set.

The others hold what that library calls, or whom it sends data to: the `settings` of W&B name a server, which is then
sent the user's key.
"""


_GROUPS = (
    "genre_lightning.config.run.WandbOptions",
    "genre_lightning.config.columns.ColumnNames",
    "genre_lightning.config.adapters.AdapterOptions",
    "genre_lightning.config.features.Feature",
    "genre_lightning.config.features.JoinedFile",
    "genre_lightning.config.architectures.Architecture",
    "genre_lightning.config.architectures.LlamaArchitecture",
    "genre_lightning.config.adapters.LoraOptions",
)
"""Groups of plain options, such as model.lora: the parser imports their classes by path, a configuration names none."""


def import_paths() -> list[str]:
    """List every path that the parser may import."""
    return sorted(
        [*_GROUPS, *trusted_classes(), *(name for names in ALLOWED.values() for name in names if "." in name)]
    )


def class_names(option: str) -> list[str]:
    """List the bare names of the classes that an option may name."""
    return sorted(name for name in ALLOWED[option] if "." not in name)
