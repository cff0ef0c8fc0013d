"""Run the whole trainer of `fit` on pretended CUDA GPUs and print what would wait, break or be drawn elsewhere.

    PYTHONPATH=. python tools/gpu/fake/fake_gpu.py --suite encoder --strategy auto [options of fit]
    PYTHONPATH=. python tools/gpu/fake/fake_gpu.py --suite llama --strategy fsdp --world 64 --model.quantization=none

Needs g++ (fake_cuda.py builds a device guard of sixty lines) and no GPU. A run takes 15 to 25 seconds, 12 of them for imports:
`--serve` reads one run a line, as a JSON list of arguments, and forks for each. The exit status is 1 if something broke, if a
plain step waits for the device more often than --waits, or takes part in more collectives besides those of the gradients than
--collectives, or if anything is drawn by the GPU's generator.

What is pretended, and so not tested: DDP's reducer (C++ over real memory; a plain wrapper stands in), NF4 (its tensors are a
subclass that cannot be fake: use --model.quantization=none), attention kernels' choice, streams, the curves of a validation,
and every number.
"""

# ruff: noqa: E402, E501  # torch is imported late; lambdas stand in for functions of torch
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

words = argparse.ArgumentParser()
words.add_argument("--serve", action="store_true", help="read runs from stdin")
words.add_argument("--suite", choices=("encoder", "llama"), default="encoder")
words.add_argument("--strategy", choices=("auto", "ddp", "fsdp"), default="auto")
words.add_argument("--world", type=int, default=8)
words.add_argument("--rank", type=int, default=0)
words.add_argument("--steps", type=int, default=13)
words.add_argument("--waits", type=int, default=None, help="most waits that a step may have which is not logged")
words.add_argument("--collectives", type=int, default=None, help="most of a plain step besides those of the gradients")
words.add_argument("--task", choices=("fit", "validate", "predict"), default="fit")
words.add_argument("--small", action="store_true", help="two layers: the same operations in less time")
options, fit_words = words.parse_known_args()

import fake_cuda  # before torch
import torch
import torch.distributed as dist
import torch.distributed._tools.fake_collectives
from lightning.pytorch.callbacks import Callback
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.testing._internal.distributed.fake_pg import FakeStore

from genre_lightning.config.encoder import EncoderOptions
from genre_lightning.config.parser import parse
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed import sharded
from genre_lightning.distributed.preemption import StopAgreement
from genre_lightning.models import distilbert
from genre_lightning.models.validation import VALIDATION_METRICS, GenreMetrics
from genre_lightning.training.callbacks.checkpoints import RunCheckpoint
from genre_lightning.training.setup import bind_model, build_trainer, check_setup

warnings.filterwarnings("ignore")
collectives: list[tuple[Any, ...]] = []


class PlainDDP(torch.nn.Module):
    """In DDP's place."""

    static_graph = False

    def __init__(self, module: torch.nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        super().__init__()
        self.module, self.require_backward_grad_sync = module, True
        collectives.append(("DDP", kwargs))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self):
        yield

    def _get_ddp_logging_data(self) -> dict[str, Any]:
        return {}


def pretend_ranks() -> None:
    """Act as one rank of many, as torchrun starts it, over torch's 'fake' group, whose collectives do nothing."""
    os.environ |= {"TORCHELASTIC_RUN_ID": "fake", "WORLD_SIZE": str(options.world), "RANK": str(options.rank),
                   "LOCAL_WORLD_SIZE": str(min(options.world, 8)), "LOCAL_RANK": str(options.rank % 8),
                   "GROUP_WORLD_SIZE": str(max(options.world // 8, 1)), "GROUP_RANK": str(options.rank // 8),
                   "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}  # fmt: skip
    import lightning.pytorch.strategies.ddp as ddp
    import lightning.pytorch.strategies.model_parallel as model_parallel

    dist.init_process_group("fake", store=FakeStore(), rank=options.rank, world_size=options.world)
    StopAgreement.setup = lambda self, trainer: None  # a gloo group would wait for the others
    ddp.DistributedDataParallel, ddp._sync_module_states = PlainDDP, lambda module: None
    ddp._register_ddp_comm_hook = lambda **kwargs: None
    make_mesh, shard = model_parallel._setup_device_mesh, sharded.shard

    def mesh(*args: Any) -> Any:
        with unset_fake_temporarily():  # it reads its ranks
            return make_mesh(*args)

    def shard_moved(backbone: Any, head: Any, *args: Any, materialise: Any, **kwargs: Any) -> None:
        materialise(backbone)  # torch moves real parameters by itself, by setting .data
        shard(backbone.to("cuda:0"), head.to("cuda:0"), *args, materialise=lambda part: None, **kwargs)

    model_parallel._setup_device_mesh, sharded.shard = mesh, shard_moved

    objects = ("barrier", "broadcast_object_list", "all_gather_object")  # they need no device to be pretended

    def noted(name: str, waits: bool, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            ledger = fake_cuda.CURRENT[0]
            if ledger.on:
                tensor = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
                shown = "" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype} {tensor.device}"
                collectives.append((ledger.step, name, shown))
                if waits:
                    ledger.note(f"{name}: under NCCL the host waits")
            if name == "all_gather_object":
                args[0][:] = [args[1]] * len(args[0])  # the other ranks have found the same
            return None if name in objects else real(*args, **kwargs)

        return call

    for name, waits in {"barrier": True, "broadcast_object_list": True, "all_gather_object": True, "all_reduce": False,
                        "broadcast": False, "all_gather_single": False, "reduce_scatter_single": False}.items():  # fmt: skip
        setattr(dist, name, noted(name, waits, getattr(dist, name)))


class Steps(Callback):
    """Tells the ledger where the training is."""

    def __init__(self, ledger: Any) -> None:
        self.ledger, self.kernels, self.before, self.batches = ledger, Counter(), Counter(), 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.ledger.step = trainer.global_step
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.before = self.ledger.kernels.copy()
        self.parts, self.tokens = trainer.accumulate_grad_batches, batch["input_ids"].numel()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.kernels = self.ledger.kernels - self.before

    def _on_batch(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.ledger.step, self.batches = batch_idx, batch_idx + 1

    on_validation_batch_start = on_predict_batch_start = _on_batch

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.ledger.step = -1

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.ledger.step = -1


def no_curves() -> None:
    """Leave out the metrics of a validation's end: how many points a curve has depends on the numbers."""
    GenreMetrics.compute = lambda self: {name: torch.zeros((), device="cuda") for name in VALIDATION_METRICS}
    GenreMetrics.per_genre = lambda self: {}


def adapt_random_weights() -> None:
    """Have LoRA adapt an encoder with random weights, which `fit` refuses: files of weights cannot be read here."""
    check = EncoderOptions.check_options

    def checked(self: EncoderOptions) -> None:
        lora, self.lora = self.lora, None
        check(self)
        self.lora = lora

    EncoderOptions.check_options = checked
    distilbert.weight_files, distilbert.weights_digest = lambda *args: [], lambda files: "0" * 64


def main() -> int:
    many = options.strategy != "auto"
    layers = 2 if options.small else 6
    root = Path(sys.modules["genre_lightning"].__file__).parents[1]
    shapes = {
        "encoder": ["--config", f"{root}/configs/distilbert.yaml", "--model.backbone=small", f"--model.architecture.layers={layers}",
                    "--model.architecture.width=768", "--model.architecture.heads=12",
                    "--model.architecture.inner_width=3072"],
        # narrow, as its random weights are drawn: kernels and waits do not depend on it
        "llama": ["--config", f"{root}/configs/llama2_qlora.yaml", "--data.tokenizer=wordpiece", "--model.backbone=random",
                  "--model.architecture.layers=2", "--model.architecture.width=256", "--model.architecture.heads=8",
                  "--model.architecture.kv_heads=4", "--model.architecture.inner_width=688",
                  "--model.architecture.vocab_size=8000"],
    }  # fmt: skip
    if many:
        pretend_ranks()
    no_curves()
    adapt_random_weights()
    RunCheckpoint._write = lambda self, trainer, path: ""  # fake tensors have nothing to write
    with tempfile.TemporaryDirectory() as folder, fake_cuda.FakeCuda(devices=8 if many else 1) as gpu:
        csv = write_sample(Path(folder) / "films.csv", 3000, seed=0)
        config, parser = parse("fit", [
            *shapes[options.suite], f"--data.csv={csv}", f"--data.cache_dir={folder}/cache", f"--run_dir={folder}/run",
            "--data.max_tokens=256", "--data.global_batch_size=128", "--model.pos_weight=none", "--early_stopping.patience=0",
            "--trainer.accelerator=cuda", "--trainer.max_epochs=1", f"--trainer.max_steps={options.steps}",
            "--trainer.enable_progress_bar=false", f"--trainer.strategy={options.strategy}",
            *([] if many else ["--trainer.devices=1"]), *fit_words,
        ])  # fmt: skip
        setup = check_setup(config, parser)
        bind_model(setup)
        steps = Steps(gpu.ledger)
        setup.trainer_options |= {"callbacks": [steps], "limit_val_batches": 0 if options.task == "fit" else 1.0}
        setup.trainer_options["inference_mode"] = False  # in it fake tensors look for real kernels
        trainer, _ = build_trainer(setup)
        gpu.ledger.on = True
        getattr(trainer, options.task)(setup.model, datamodule=setup.data)
        gpu.ledger.on = False
    if options.task != "fit":
        return evaluated(gpu.ledger, steps)
    waits: dict[int, Counter[str]] = {}
    for sync in gpu.ledger.syncs:
        waits.setdefault(sync.step, Counter())[f"{sync.what}   {sync.where}"] += 1
    last = options.steps - 2  # the last one of the epoch does more
    print(
        f"{options.suite}, {options.strategy}, {options.world if many else 1} ranks, {trainer.precision}: "
        f"{steps.parts} micro-batches a step, the last of {steps.tokens} tokens"
    )
    print(f"kernels a step, each foreach operation of the optimizer split by tensor: {sum(steps.kernels.values())}")
    print(f"random numbers drawn on {dict(gpu.ledger.draws)}")
    for step in (3, last):
        print(f"step {step}: {sum(waits.get(step, {}).values())} waits")
        for what, count in waits.get(step, Counter()).items():
            print(f"   {count} x {what}")
    if many:
        print("collectives of step 3:", dict(Counter(str(c[1:]) for c in collectives if c[0] == 3)))
    plain = [step for step in range(1, last + 1) if (step + 1) % 10]
    others = Counter(
        c[0] for c in collectives if c[0] in plain and c[1] not in _OF_SHARDS and not c[2].endswith(" cpu")
    )
    agreements = sum(c[0] in plain and str(c[2]).endswith(" cpu") for c in collectives)
    most = max((others[step] for step in plain), default=0)
    print(f"most collectives of such a step on the GPU besides those of weights and gradients: {most}")
    print(f"agreements over gloo in {len(plain)} such steps: {agreements}")
    worst = max(sum(waits.get(step, {}).values()) for step in plain)
    print(f"most waits of a step that is not logged: {worst}")
    drawn_there = gpu.ledger.draws.get("cuda", 0)
    too_many = options.collectives is not None and most > options.collectives
    return int((options.waits is not None and (worst > options.waits or drawn_there > 0)) or too_many)


_OF_SHARDS = ("all_gather_single", "reduce_scatter_single", "DDP")


def evaluated(ledger: Any, steps: Steps) -> int:
    """Print what the batches of an evaluation wait for."""
    waits = Counter(f"{sync.what}   {sync.where}" for sync in ledger.syncs if sync.step >= 0)
    most = max(Counter(sync.step for sync in ledger.syncs if sync.step >= 0).values(), default=0)
    print(f"{options.suite}, {options.strategy}, {options.task}: {steps.batches} batches")
    for what, count in waits.items():
        print(f"   {count} x {what}")
    print(f"most waits of a batch: {most}")
    return int(not steps.batches or (options.waits is not None and most > options.waits))


def run(arguments: list[str]) -> int:
    """Do one run in a process of its own; its output goes to this one's."""
    global options, fit_words
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        options, fit_words = words.parse_known_args(arguments)
        status = main()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    finally:
        sys.stdout.flush()
        os._exit(status)


def serve() -> None:
    """Answer each line of stdin with the run's output, and a line of its exit status."""
    os.dup2(1, 2)
    for line in sys.stdin:
        print(f"status {run(json.loads(line))}", flush=True)


if __name__ == "__main__":
    sys.exit(serve() if options.serve else main())
