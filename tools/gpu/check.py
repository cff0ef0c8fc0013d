"""What only a GPU can show: `make gpu-check`, or `python tools/gpu/check.py --small` to try the script itself on a CPU.

Each check is a function of `Options` that returns the metrics it measured and raises AssertionError if something is
wrong. All run; a table is printed, one JSON object is the last line of the output; the exit status is 1 if any failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import loops
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.distributed.device_mesh import init_device_mesh

from genre_lightning import __version__
from genre_lightning.data.collate import Padding, pack_rows, pad_rows
from genre_lightning.distributed.checkpoint.files import write_checkpoint
from genre_lightning.distributed.checkpoint.io import read_checkpoint
from genre_lightning.distributed.sharded import ShardedPrecision, load_weights, shard
from genre_lightning.models.decoder import LlamaArchitecture
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.quantization import memory_of
from genre_lightning.planning.memory import memory
from genre_lightning.planning.setting import BatchShape, Setting
from genre_lightning.planning.shape import shape_of
from genre_lightning.types import DataSpec

SHAPES = {
    "7b": LlamaArchitecture(layers=32, width=4096, heads=32, inner_width=11008, vocab_size=32_000),
    # its blocks, and few of them, for what more of them would not show better
    "7b_blocks": LlamaArchitecture(layers=2, width=4096, heads=32, inner_width=11008, vocab_size=32_000),
    "small": LlamaArchitecture(layers=2, width=64, heads=4, inner_width=172, vocab_size=500),
}
GENRES, SEED = 20, 0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What is checked on.

    Attributes:
        shape: Name in SHAPES.
        device: "cuda", or "cpu" for a try of the script.
        precision: Precision of the trainer: 16-mixed on CUDA.
        tokens: Number of tokens of a micro-batch.
        steps: Optimizer steps that are timed, after two that are not.
    """

    shape: str
    device: torch.device
    precision: str
    tokens: int
    steps: int

    @property
    def half(self) -> torch.dtype:
        """The dtype of autocast."""
        return torch.float16 if self.precision == "16-mixed" else torch.bfloat16


def build(options: Options, *, sharded: bool = False, **settings: Any) -> LlamaQLoraClassifier:
    """Return a model of the shape with random weights, quantised on the device as it is drawn.

    Args:
        options: Options with the shape and the device.
        sharded: Leave the frozen weights to be put in as the model is sharded.
        settings: Settings of the model.
    """
    architecture = SHAPES[options.shape]
    model = LlamaQLoraClassifier(
        backbone="random", architecture=architecture, **{"activation_checkpointing": True, **settings}
    )
    model.runs_on(options.device.type, options.precision)
    model.check(512)
    model.bind(
        DataSpec(tuple(map(str, range(GENRES))), np.ones(GENRES, np.int64), 2, architecture.vocab_size or 0, 0, 512)
    )
    model.assemble(sharded=sharded)
    return model if sharded else model.to(options.device)


def texts(options: Options) -> list[np.ndarray]:
    """Return the random texts as long as overviews are, together as many tokens as a micro-batch takes."""
    numbers = np.random.default_rng(SEED)
    lengths = np.clip(numbers.lognormal(4.2, 0.5, size=options.tokens).astype(int), 8, 512)
    lengths = np.sort(lengths[: max(int(np.searchsorted(lengths.cumsum(), options.tokens)), 2)])[::-1]
    vocabulary = SHAPES[options.shape].vocab_size or 0
    return [numbers.integers(3, vocabulary, size=n).astype(np.int32) for n in lengths]


def batch_of(rows: list[np.ndarray], options: Options, *, packed: bool) -> dict[str, torch.Tensor]:
    """Return the texts as a batch on the device, with random labels."""
    arrays = (
        pack_rows(rows)
        if packed
        else dict(zip(("input_ids", "attention_mask"), pad_rows(rows, Padding(0)), strict=True))
    )
    labels = np.random.default_rng(SEED).integers(0, 2, size=(len(rows), GENRES)).astype(np.float32)
    arrays |= {"labels": labels, "weights": np.ones(len(rows), np.float32)}
    return {name: torch.from_numpy(values).to(options.device) for name, values in arrays.items()}


def training_step(options: Options, **settings: Any) -> Figures:
    """Check NF4 and LoRA under fp16 with a loss scaler: finite loss, finite gradients, memory and speed."""
    started = time.perf_counter()
    model = build(options, **settings)
    build_seconds = time.perf_counter() - started
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}, "trained parameters are float32"
    groups = [{"params": trained, "lr": 1e-4, "weight_decay": 0.0, "name": "all"}]
    optimizer = torch.optim.AdamW(groups) if model.options.optimizer == "adamw" else model.new_optimizer(groups)
    scaler = torch.amp.GradScaler(options.device.type, enabled=options.precision == "16-mixed")
    rows = texts(options)
    batch, tokens = batch_of(rows, options, packed=True), sum(map(len, rows))
    losses = []
    for step in range(options.steps + 2):
        if step == 2:
            synchronise(options)
            started = time.perf_counter()
        with torch.autocast(options.device.type, options.half):
            loss = model.model_step(batch).loss_sum / len(rows)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.detach())
    synchronise(options)
    seconds = (time.perf_counter() - started) / options.steps
    values = torch.stack(losses).tolist()
    assert np.isfinite(values).all(), f"losses are {values}"
    assert norm.isfinite(), "the last gradient is not finite: the loss scale did not settle"
    memory = memory_of(model)
    return {
        "losses": values,
        "build_seconds": build_seconds,
        "texts": len(rows),
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "weights_gb": memory["frozen"] / 1e9,
        "trained_gb": memory["trained"] / 1e9,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if options.device.type == "cuda" else None,
    }


def paged_optimizer(options: Options) -> Figures:
    """Check the same with moments of 8 bits, paged on CUDA."""
    kind = "paged_adamw_8bit" if options.device.type == "cuda" else "adamw_8bit"
    return {"optimizer": kind, **training_step(blocks_only(options), optimizer=kind)}


def packed_equals_padded(options: Options) -> Figures:
    """Compare logits of packed and padded texts in the device's own kernels, to the precision of halves."""
    model, rows = build(blocks_only(options), activation_checkpointing=False).eval(), texts(options)
    with torch.no_grad(), torch.autocast(options.device.type, options.half):
        logits = [model(batch_of(rows, options, packed=packed)) for packed in (True, False)]
    difference = (logits[0] - logits[1]).abs().max().item()
    scale = logits[1].std().item()
    assert difference < 0.05 * max(scale, 1.0), (
        f"packed and padded logits differ by {difference} where they spread {scale}"
    )
    return {"largest_difference": difference, "spread_of_logits": scale}


class Training:
    """Steps on one batch as a run takes them: autocast or sharded, loss scaler, clipping, AdamW.

    Args:
        model: Model on its device, sharded or not.
        options: See `Options`.
        precision: Precision of a sharded model; None trains under autocast.
    """

    def __init__(
        self, model: LlamaQLoraClassifier, options: Options, precision: ShardedPrecision | None = None
    ) -> None:
        self.model, self.options = model, options
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.half = options.half if precision is None else None
        # on a CPU, where half precision is bfloat16, it is tried all the same
        self.scaler = precision.scaler if precision else torch.amp.GradScaler(options.device.type)
        self.rows = texts(options)
        self.batch = batch_of(self.rows, options, packed=True)

    def step(self, number: int, *, overflow: bool = False) -> tuple[float, bool]:
        """Take one optimizer step; return its loss, and whether the scaler has skipped it."""
        torch.manual_seed(number)  # of dropout
        with torch.autocast(self.options.device.type, self.half, enabled=self.half is not None):
            loss = self.model.model_step(self.batch).loss_sum / len(self.rows)
        scale = self.scaler.get_scale() if self.scaler else 1.0
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        if overflow:
            gradient = self.trained[0].grad
            assert gradient is not None
            gradient.fill_(float("inf"))
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), self.scaler is not None and self.scaler.get_scale() < scale

    def settle(self) -> int:
        """Take steps until the loss scale fits, which starts high; return how many were skipped."""
        for skipped in range(20):
            if not self.step(skipped)[1]:
                return skipped
        raise AssertionError("20 steps in a row overflowed: the loss scale does not settle")


def blocks_only(options: Options) -> Options:
    """Return the shape with few blocks."""
    return replace(options, shape="7b_blocks") if options.shape == "7b" else options


def overflow_is_skipped(options: Options) -> Figures:
    """Check a real loss scaler: a step with an infinite gradient changes no weight, halves the scale, is counted."""
    training = Training(build(blocks_only(options)), options)
    settled = training.settle()
    scaler = training.scaler
    assert scaler is not None
    before, scale = [p.detach().clone() for p in training.trained], scaler.get_scale()
    skipped = [training.step(step, overflow=step == 1)[1] for step in range(3)]
    assert skipped == [False, True, False], f"skipped: {skipped}"
    assert scaler.get_scale() == scale / 2, f"the scale went from {scale} to {scaler.get_scale()}"
    training.step(3)
    kept = [p.detach().clone() for p in training.trained]
    training.step(4, overflow=True)
    assert all(torch.equal(a, b) for a, b in zip(kept, training.trained, strict=True)), "a skipped step moved weights"
    assert not all(torch.equal(a, b) for a, b in zip(before, kept, strict=True)), "no step moved weights"
    return {"skipped_until_settled": settled, "skipped_of_5": sum(skipped) + 1, "scale": scaler.get_scale()}


def resumed_run(options: Options) -> Figures:
    """Check that steps from a checkpoint, read by a fresh model, have the losses of the first ones."""
    few = blocks_only(options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        training = Training(build(few), options)
        training.settle()
        assert training.scaler is not None
        content: dict[str, Any] = {"state_dict": training.model.state_dict(), "global_step": 1}
        training.model.on_save_checkpoint(content)
        content |= {"optimizer": training.optimizer.state_dict(), "scaler": training.scaler.state_dict()}
        write_checkpoint(content, path)
        size = path.stat().st_size
        expected = [training.step(step)[0] for step in range(1, 1 + options.steps)]
        del training, content
        again = Training(build(few), options)
        content = read_checkpoint(path)
        again.model.on_load_checkpoint(content)
        load_weights(again.model, content["state_dict"])
        again.optimizer.load_state_dict(content["optimizer"])
        assert again.scaler is not None
        again.scaler.load_state_dict(content["scaler"])
        got = [again.step(step)[0] for step in range(1, 1 + options.steps)]
    difference = max(abs(a - b) / abs(a) for a, b in zip(expected, got, strict=True))
    # a GPU's kernels add in no fixed order
    assert difference <= (1e-3 if options.device.type == "cuda" else 0), f"losses {expected}, resumed {got}"
    return {"losses": got, "largest_relative_difference": difference, "checkpoint_mb": size / 1e6}


def sharded_training(options: Options) -> Figures:
    """Check NF4 under fully_shard in a world of one: built block by block, trained as without sharding."""
    cuda = options.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1
        )
        try:
            return _sharded_training(options, cuda)
        finally:
            torch.distributed.destroy_process_group()


def _sharded_training(options: Options, cuda: bool) -> Figures:
    started = time.perf_counter()
    # before 2.13 torch shards no integers
    storage = "uint8" if torch.__version__ >= "2.13" else str(options.half).removeprefix("torch.")
    model = build(options, sharded=True, quant_storage=storage)
    precision = ShardedPrecision(options.precision, options.device.type)  # type: ignore[arg-type]
    mesh = init_device_mesh(options.device.type, (1,))
    shard(model.backbone, model.head, mesh, compute_dtype=options.half, materialise=model.materialise)
    model.to(options.device)
    build_seconds = time.perf_counter() - started
    stored = sum(memory_of(model).values())
    shape = SHAPES[options.shape]
    block = 2 * (4 * shape.width**2 + 3 * shape.width * shape.inner_width)
    peak = torch.cuda.max_memory_allocated() if cuda else None
    scales = sum(p.numel() for p in model.parameters()) // 16  # of NF4: they stand beside the shards
    if peak is not None:
        assert peak < stored + scales + 2 * block + 5e8, f"the build peaked at {peak / 1e9:.1f} GB"
    training = Training(model, options, precision)
    skipped = training.settle()
    losses = [training.step(step)[0] for step in range(options.steps + 1)]
    assert np.isfinite(losses).all(), f"losses are {losses}"
    assert losses[-1] < losses[0], f"nothing is learnt: {losses}"
    return {
        "losses": losses,
        "skipped_until_settled": skipped,
        "build_seconds": build_seconds,
        "weights_gb": stored / 1e9,
        "build_peak_gb": peak / 1e9 if peak is not None else None,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }


def planned_memory(options: Options) -> Figures:
    """Compare what `genre-lightning plan` estimates for a step with the largest memory that its tensors take."""
    training = Training(build(options), options)
    training.settle()
    if cuda := options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    training.step(1)
    tokens, longest = sum(map(len, training.rows)), len(training.rows[0])
    batch = BatchShape(tokens, longest * len(training.rows), longest, masked=False)
    setting = Setting("single", 1, "cuda" if cuda else "cpu", half=True)
    planned = memory(shape_of(training.model), setting, batch).allocated
    if not cuda:
        return {"planned_gb": planned / 1e9}
    peak = torch.cuda.max_memory_allocated()
    assert abs(planned / peak - 1) <= 0.15, f"planned {planned / 1e9:.2f} GB, measured {peak / 1e9:.2f} GB"
    return {"planned_gb": planned / 1e9, "peak_gb": peak / 1e9, "difference": planned / peak - 1}


CHECKS: dict[str, Callable[[Options], Figures]] = {
    "new_weights_by_seed": loops.new_weights,
    "packed_encoder": loops.packed_encoder,
    "no_waits_in_a_step": loops.no_waits,
    "fit_then_predict": loops.fit_then_predict,
    "strategies_agree": loops.strategies_agree,
    "nf4_training_step": training_step,
    "paged_8bit_optimizer": paged_optimizer,
    "packed_equals_padded": packed_equals_padded,
    "overflow_is_skipped": overflow_is_skipped,
    "resumed_run": resumed_run,
    "nf4_sharded_training": sharded_training,
    "planned_memory": planned_memory,
}


def synchronise(options: Options) -> None:
    """Wait for the device: its work is asynchronous."""
    if options.device.type == "cuda":
        torch.cuda.synchronize()


def run(options: Options, names: Sequence[str], out: Path | None) -> dict[str, Any]:
    """Run the checks, and keep what each has found at once: a later one may run into a limit of time."""
    name = torch.cuda.get_device_name() if options.device.type == "cuda" else platform.processor() or "CPU"
    results: dict[str, Any] = {}
    report = {
        "version": __version__,
        "torch": torch.__version__,
        "device": name,
        "shape": options.shape,
        "precision": options.precision,
        "checks": results,
    }
    for name in names:
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        try:
            results[name] = {"passed": True, **CHECKS[name](options)}
        except Exception as error:  # the other checks still run, and the reader sees which failed
            results[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        results[name]["seconds"] = round(time.perf_counter() - started, 1)
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
        if out:
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def show(report: dict[str, Any]) -> None:
    """Print a row for each metric."""
    title = f"{report['shape']} shape, {report['precision']}, on {report['device']}"
    table = Table("check", "figure", "value", title=title)
    for name, figures in report["checks"].items():
        for place, (figure, value) in enumerate(figures.items()):
            table.add_row(
                name if place == 0 else "", figure, f"{value:.4g}" if isinstance(value, float) else str(value)
            )
    Console(stderr=True).print(table)


def main() -> int:
    """Run the checks that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small", action="store_true", help="a model of two layers, on a CPU too: tries the script")
    parser.add_argument("--tokens", type=int, default=None, help="of a micro-batch (default: 4096, small: 256)")
    parser.add_argument("--steps", type=int, default=5, help="timed optimizer steps (default: 5)")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), help="checks to run")
    parser.add_argument("--out", type=Path, default=None, help="file for the JSON object, beside printing it")
    words = parser.parse_args()
    cuda = torch.cuda.is_available()
    if not cuda and not words.small:
        print("gpu-check: no CUDA GPU is visible: run it where there is one, or try it with --small", file=sys.stderr)
        return 2
    options = Options(
        shape="small" if words.small else "7b",
        device=torch.device("cuda" if cuda else "cpu"),
        precision="16-mixed" if cuda else "bf16-mixed",
        tokens=words.tokens or (256 if words.small else 4096),
        steps=words.steps,
    )
    report = run(options, words.only, words.out)
    show(report)
    print(json.dumps(report))
    return 0 if all(figures["passed"] for figures in report["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
