"""From a checked configuration to the plan of its run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genre_lightning.config.trainer import length_problems
from genre_lightning.data.datamodule import default_micro_batch_tokens
from genre_lightning.distributed.strategies import SHARDED, check_strategy, is_sharded
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.hardware import Gpu, Precision, dense_peak
from genre_lightning.models.backbones import backbone_config
from genre_lightning.planning.memory import Memory, evaluation_memory, largest_micro_batch, memory
from genre_lightning.planning.probe import MOST_PARAMETERS, measure_cpu
from genre_lightning.planning.report import (
    CpuTime,
    DataReport,
    GpuTime,
    MachineReport,
    MemoryReport,
    ParametersReport,
    PlanReport,
    StepsReport,
)
from genre_lightning.planning.setting import BatchShape, Setting, Strategy
from genre_lightning.planning.shape import ModelShape, build_empty, shape_of
from genre_lightning.planning.speed import StepTime, Work, step_time, usual_utilisation
from genre_lightning.planning.steps import StepPlan, Texts, plan_steps, read_texts
from genre_lightning.provenance import device_name
from genre_lightning.training.setup import Setup
from genre_lightning.types import DataSpec

_GENRES = 20
"""Of the real file: for a plan whose films cannot be read."""


@dataclass(frozen=True)
class Machine:
    """What a run is planned for.

    Attributes:
        nodes: Machines.
        devices: Number of devices of each node.
        kind: "cuda" or "cpu".
        gpu: Which one; None if it is not given.
        utilisation: Fraction of the GPU's dense peak that training reaches; None for the usual one of the model.
    """

    nodes: int
    devices: int
    kind: Literal["cpu", "cuda"]
    gpu: Gpu | None
    utilisation: float | None

    @property
    def ranks(self) -> int:
        """Devices in all."""
        return self.nodes * self.devices


class Plan:
    """The plan of a run, which `report` holds.

    Args:
        setup: Setup of the run, checked.
        machine: What it is planned for.
        conflicts: Found by the checks.
    """

    def __init__(self, setup: Setup, machine: Machine, conflicts: Sequence[str]) -> None:
        self.setup = setup
        self.machine = machine
        self.conflicts = list(conflicts)
        self.notes: list[str] = []
        config = setup.config
        self.precision = str(config.trainer.precision)
        self.strategy = _strategy(config.trainer.strategy, machine.ranks)
        self.report = PlanReport(self._machine())
        if self._matmul_precision == "bf16" and machine.gpu and dense_peak(machine.gpu.device, "bf16") is None:
            self.conflicts.append(
                f"trainer.precision is {self.precision}, but {machine.gpu.name} has no bfloat16 units: "
                "set trainer.precision=16-mixed or auto"
            )
        texts = self._texts()
        steps = self._steps(texts) if texts and setup.model.trains else None
        if (shape := self._shape(texts)) is not None:
            self._memory(shape, steps)
            self._time(shape, texts, steps)
        self.report.notes, self.report.conflicts = self.notes, _each_once(self.conflicts)

    @property
    def _matmul_precision(self) -> Precision:
        return "bf16" if self.precision.startswith("bf16") else "fp16" if self.precision.startswith("16") else "fp32"

    @property
    def _budget(self) -> int:
        data = self.setup.data
        return data.options.micro_batch_tokens or default_micro_batch_tokens(self.machine.kind, self.setup.model.layout)

    def _machine(self) -> MachineReport:
        machine = self.machine
        return MachineReport(
            nodes=machine.nodes,
            devices=machine.devices,
            ranks=machine.ranks,
            accelerator=machine.kind,
            gpu=machine.gpu.name if machine.gpu else None,
            gpu_bytes=machine.gpu.memory if machine.gpu else None,
            precision=self.precision,
            strategy=self.strategy,
        )

    def _texts(self) -> Texts | None:
        data, model = self.setup.data, self.setup.model
        try:
            texts = read_texts(data, decoder=model.decoder)
        except (ConfigError, DataError) as error:
            self.conflicts.append(str(error))
            return None
        audit = texts.films.audit
        self.report.data = DataReport(
            rows=audit["rows"],
            kept=audit["kept"],
            films_used=audit["films_used"],
            splits={name: len(split.films) for name, split in texts.films.splits.items()},
            genres=len(texts.films.vocabulary),
        )
        self.report.lengths = texts.report(data.options.max_tokens)
        if texts.estimated and _is_local(str(data.tokenizer_name)):
            self.conflicts.append(texts.estimated)
        elif texts.estimated:
            self.notes.append(
                f"the tokenizer of {data.tokenizer_name} is not here: lengths are estimated from characters; "
                "--data.tokenizer DIRECTORY counts tokens"
            )
        return texts

    def _steps(self, texts: Texts) -> StepPlan | None:
        setup, trainer = self.setup, self.setup.config.trainer
        data, model = setup.data.options, setup.model
        if self.conflicts and (min(data.global_batch_size, self._budget) < 1 or length_problems(trainer)):
            return None
        plan = plan_steps(
            texts.lengths[texts.films.splits["train"].films],
            global_batch_size=data.global_batch_size,
            budget=self._budget,
            ranks=self.machine.ranks,
            seed=setup.data.order_seed,
            max_epochs=trainer.max_epochs,
            max_steps=trainer.max_steps,
            packed=model.layout == "packed",
            encoder=not model.decoder,
            in_groups=self.machine.kind == "cpu",
        )
        self.report.steps = StepsReport(
            films=plan.films,
            global_batch_size=data.global_batch_size,
            steps_an_epoch=plan.steps,
            epochs=plan.epochs,
            total_steps=plan.total_steps,
            micro_batches=plan.micro_batches,
            micro_batch_tokens=self._budget,
            largest_micro_batch=plan.largest[0],
            tokens_an_epoch=plan.tokens,
            slots_an_epoch=plan.slots,
            padding=round(plan.padding, 4),
        )
        if data.global_batch_size < self.machine.ranks:
            self.notes.append(
                f"{self.machine.ranks} ranks share steps of {data.global_batch_size} films, so that some have nothing "
                "to do: use fewer, or a larger data.global_batch_size"
            )
        return plan

    def _shape(self, texts: Texts | None) -> ModelShape | None:
        setup, model = self.setup, self.setup.model
        genres = texts.films.vocabulary.names if texts else tuple(map(str, range(_GENRES)))
        try:
            vocab_size = texts.vocab_size if texts else None
            spec = DataSpec(
                genres=genres,
                positives=np.ones(len(genres), dtype=np.int64),
                films=2 * len(genres),
                vocab_size=vocab_size or self._own_vocabulary(),
                pad_token_id=texts.pad_token_id if texts else 0,
                max_tokens=setup.data.options.max_tokens,
                inputs=texts.films.inputs if texts else (),
            )
            build_empty(model, spec)
        except ConfigError as error:
            self.conflicts.append(str(error))
            return None
        if getattr(model, "backbone_config", None) is None:
            self.notes.append(
                f"memory and time are not planned for {type(model).__name__}: they need the shape of a transformers "
                "backbone, model.backbone_config"
            )
            return None
        shape = shape_of(model)
        if model.lora is not None and model.lora.dora:
            self.notes.append("the norms that DoRA takes of whole weights in every step are not part of the memory")
        if getattr(model.options, "adapter", None) is not None:
            self.notes.append("what the adapters of model.adapter keep for their gradients is not part of the memory")
        self.report.parameters = ParametersReport(shape.total, shape.trained, shape.quantised, shape.blocks)
        return shape

    def _own_vocabulary(self) -> int:
        model: Any = self.setup.model
        if model.tokenizer_source is None:
            return self.setup.data.options.vocab_size
        return backbone_config(model.tokenizer_source, model.tokenizer_revision, weights=False).vocab_size

    def _memory(self, shape: ModelShape, steps: StepPlan | None) -> None:
        setup, machine, data = self.setup, self.machine, self.setup.data.options
        model: Any = setup.model
        packed = model.layout == "packed"
        full = BatchShape.full(self._budget, data.max_tokens, packed=packed, encoder=not shape.decoder)
        batches = steps.largest if steps else (full,)
        configured = Setting(
            strategy=self.strategy,
            ranks=machine.ranks,
            device=machine.kind,
            half=self._matmul_precision != "fp32",
            optimizer=getattr(model.options, "optimizer", "adamw"),
            fused=True,  # as GenreClassifier.new_optimizer makes it
            micro_batches=steps.micro_batches if steps else 1,
            offload=_offloads(setup.config.trainer.strategy),
            averaged=model.options.ema_decay is not None,
        )
        if not model.trains:
            taken = evaluation_memory(shape, configured, model.options.batch_tokens)
            self.report.memory = {_title(configured): _memory_report(taken, machine, None)}
            return
        columns: dict[str, MemoryReport] = {}
        for setting in self._settings(configured):
            taken = max((memory(shape, setting, batch) for batch in batches), key=lambda taken: taken.total)
            largest = None
            if machine.gpu:
                largest = largest_micro_batch(
                    shape, setting, available=machine.gpu.memory, longest=data.max_tokens, packed=packed
                )
            columns[_title(setting)] = _memory_report(taken, machine, largest)
        self.report.memory = columns

    def _settings(self, configured: Setting) -> list[Setting]:
        """Return what is configured, and beside it the other ways to share a model among several devices."""
        settings = [configured]
        if configured.ranks == 1:
            return settings
        if configured.strategy != "ddp":
            settings.append(replace(configured, strategy="ddp", offload=False))
        if configured.strategy != "fsdp" or configured.offload:
            model: Any = self.setup.model
            try:
                check_strategy(
                    SHARDED,
                    self.precision,
                    self.machine.kind,
                    optimizer=configured.optimizer,
                    quantization=getattr(model.options, "quantization", "none"),
                    compute_dtype=getattr(model.options, "compute_dtype", "auto"),
                )
                settings.append(replace(configured, strategy="fsdp", offload=False))
            except ConfigError as error:
                self.notes.append(str(error))
        return settings

    def _time(self, shape: ModelShape, texts: Texts | None, steps: StepPlan | None) -> None:
        """Estimate the time of the training, or note in one line why there is no estimate."""
        if not self.setup.model.trains:
            self.report.no_time = "not estimated: nothing is trained"
        elif texts is None or steps is None or self.conflicts:
            self.report.no_time = "not estimated while there are conflicts"
        elif self.machine.kind == "cpu":
            self._cpu_time(shape, texts, steps)
        elif self.machine.gpu is None:
            self.report.no_time = (
                "not estimated: name the GPU with --gpu, or set --trainer.accelerator cpu to measure this machine's CPU"
            )
        else:
            self._gpu_time(self.machine.gpu, shape, steps)

    def _cpu_time(self, shape: ModelShape, texts: Texts, steps: StepPlan) -> None:
        model, data, machine = self.setup.model, self.setup.data, self.machine
        if machine.ranks > 1 or model.decoder or shape.quantised or shape.total > MOST_PARAMETERS:
            self.report.no_time = (
                f"not estimated: on a CPU it is measured for one device and encoders of at most {MOST_PARAMETERS:,} "
                "parameters"
            )
            return
        speed = measure_cpu(
            model,
            texts.lengths[texts.films.splits["train"].films],
            global_batch_size=data.options.global_batch_size,
            micro_batches=steps.micro_batches,
            seed=data.order_seed,
            layout=model.layout,
            precision=self.precision,
        )
        seconds = speed.seconds_an_epoch(steps.tokens, steps.steps)
        self.report.time = CpuTime(
            **asdict(speed),
            device=device_name(),
            seconds_a_step=seconds / steps.steps,
            seconds_an_epoch=seconds,
            seconds=seconds * steps.total_steps / steps.steps,
        )

    def _gpu_time(self, gpu: Gpu, shape: ModelShape, steps: StepPlan) -> None:
        machine, cost = self.machine, self.setup.model.training_cost()
        peak = dense_peak(gpu.device, self._matmul_precision)
        if not peak or cost is None:
            what = "the model's FLOPs are" if cost is None else f"the peak of {gpu.name} in {self.precision} is"
            self.report.no_time = f"not estimated: {what} not known"
            return
        flops = cost.flops(steps.tokens, steps.tokens_squared)
        utilisation = machine.utilisation or usual_utilisation(
            quantised=shape.quantised > 0, checkpointed=shape.checkpointed
        )
        work = Work(
            flops=flops / steps.steps,
            films=self.setup.data.options.global_batch_size,
            micro_batches=steps.micro_batches,
            blocks=shape.blocks,
            decoder=shape.decoder,
            weights=sum(weight.stored + weight.scales for weight in shape.weights),
            gradients=4 * shape.trained,
        )
        sharded = self.strategy == SHARDED
        step = step_time(work, ranks=machine.ranks, sharded=sharded, peak=peak, utilisation=utilisation)
        seconds = step.seconds * steps.steps
        self.report.time = GpuTime(
            utilisation=utilisation,
            dense_peak_flops=peak,
            flops_an_epoch=flops,
            step={**asdict(step), "seconds": step.seconds, "limit": step.limit},
            seconds_an_epoch=seconds,
            seconds=seconds * steps.total_steps / steps.steps,
        )
        self.notes += _notes_of(step, machine.ranks)


def _notes_of(step: StepTime, ranks: int) -> list[str]:
    """Return what keeps the GPUs from their matmuls, if anything does."""
    parts = (
        f"a step is {1000 * step.seconds:,.3g} ms: matmuls {1000 * step.matmuls:,.3g}, kernel launches "
        f"{1000 * step.kernels:,.3g}, communication between ranks {1000 * step.communication:,.3g}"
    )
    if step.limit == "kernels":
        fewer = ", or use fewer devices" if ranks > 1 else ""
        return [f"{parts}; the host limits it: raise data.global_batch_size{fewer}"]
    if step.limit == "communication":
        return [f"{parts}; communication limits it: raise data.global_batch_size"]
    return []


def _memory_report(taken: Memory, machine: Machine, largest: int | None) -> MemoryReport:
    return MemoryReport(
        parts=taken.tensors,
        tensors=taken.allocated,
        context_assumed=taken.context,
        reserve_assumed=taken.reserve,
        total=taken.total,
        host=taken.host,
        fits=taken.total <= machine.gpu.memory if machine.gpu else None,
        largest_micro_batch_tokens=largest,
    )


def _each_once(conflicts: Sequence[str]) -> list[str]:
    """Leave out what is listed already, with paths as they were given: later checks have absolute ones."""
    found: dict[str, str] = {}
    for conflict in conflicts:
        found.setdefault(conflict.replace(f"{Path.cwd()}{os.sep}", ""), conflict)
    return list(found.values())


def _strategy(strategy: Any, ranks: int) -> Strategy:
    if is_sharded(strategy):
        return "fsdp"
    return "ddp" if ranks > 1 else "single"


def _offloads(strategy: Any) -> bool:
    options = getattr(strategy, "init_args", None)
    return bool(getattr(options, "cpu_offload", False))


def _title(setting: Setting) -> str:
    return f"{setting.strategy} offloaded" if setting.offload else setting.strategy


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
