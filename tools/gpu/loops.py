"""Checks with an encoder, and with Lightning's loop around it: what `check.py` adds to those of a quantised decoder."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
from lightning.pytorch.callbacks import Callback

from genre_lightning.config.parser import parse
from genre_lightning.data.collate import Padding, pack_rows, pad_rows
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.models.distilbert import Architecture, DistilBertClassifier
from genre_lightning.models.layers import packing
from genre_lightning.training.setup import bind_model, build_trainer, check_setup
from genre_lightning.types import DataSpec

if TYPE_CHECKING:
    from check import Figures, Options

ROOT = Path(__file__).parents[2]
ENCODERS = {"7b": Architecture(6, 768, 12, 3072), "small": Architecture(2, 64, 4, 128)}
"""By the name of the decoder's shape: DistilBERT's, and a small one."""
VOCABULARY, GENRES = 8000, 20


def _encoder(options: Options, device: str) -> DistilBertClassifier:
    model = DistilBertClassifier(backbone="small", dropout=0.0, architecture=ENCODERS[options.shape])
    model.bind(DataSpec(tuple(map(str, range(GENRES))), np.ones(GENRES, np.int64), 2, VOCABULARY, 0, 256))
    with torch.device(device):  # as Lightning builds a model on one device
        model.configure_model()
    return model.to(device).train()


def new_weights(options: Options) -> Figures:
    """Check that one seed draws the same new weights, whatever device Lightning makes the default one."""
    weights = [_encoder(options, device).cpu().state_dict() for device in ("cpu", options.device.type)]
    differ = [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    assert not differ, f"{len(differ)} tensors differ, the first is {differ[0]}"
    return {"tensors": len(weights[0])}


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def packed_encoder(options: Options) -> Figures:
    """Compare logits and gradients of packed and padded texts, in float32 and in half precision."""
    numbers = np.random.default_rng(0)
    lengths = np.clip(numbers.lognormal(4.2, 0.5, size=max(options.tokens // 70, 4)).astype(int), 2, 256)
    rows = [numbers.integers(3, VOCABULARY, size=n).astype(np.int32) for n in lengths]
    padded = pad_rows(rows, Padding(0))
    batches = [
        {name: torch.from_numpy(values).to(options.device) for name, values in arrays.items()}
        for arrays in (pack_rows(rows), dict(zip(("input_ids", "attention_mask"), padded, strict=True)))
    ]
    targets = torch.from_numpy(numbers.integers(0, 2, size=(len(rows), GENRES)).astype(np.float32)).to(options.device)
    model = _encoder(options, options.device.type)
    figures: Figures = {"texts": len(rows), "tokens": int(lengths.sum())}
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 would round packed and padded matmuls in other ways
    try:
        for name, half, tolerance in (("float32", None, 1e-3), ("half", options.half, 2e-2)):
            logits, gradients = [], []
            with mock.patch.object(packing, "flash_attention", wraps=packing.flash_attention) as flash:
                for batch in batches:
                    model.zero_grad()
                    with torch.autocast(options.device.type, half, enabled=half is not None):
                        found = model(batch)
                    torch.nn.functional.binary_cross_entropy_with_logits(found, targets).mul(1024).backward()
                    logits.append(found.detach())
                    gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
            wanted = half is not None and options.device.type == "cuda"
            assert bool(flash.call_count) == wanted, f"{flash.call_count} calls of the flash kernel in {name}"
            figures[f"logits_differ_{name}"] = _relative(*logits)
            figures[f"gradients_differ_{name}"] = _relative(*gradients)
            assert figures[f"logits_differ_{name}"] < tolerance, figures
            assert figures[f"gradients_differ_{name}"] < 2 * tolerance, figures
    finally:
        torch.set_float32_matmul_precision(precision)
    return figures


def _fit_words(options: Options, folder: Path, run: str, *more: str) -> list[str]:
    csv_file = folder / "films.csv"
    if not csv_file.exists():
        write_sample(csv_file, 1500, seed=0)
    return [
        "fit", f"--config={ROOT / 'configs' / 'quickstart.yaml'}", f"--data.csv={csv_file}",
        f"--data.cache_dir={folder / 'cache'}", f"--run_dir={folder / run}", "--trainer.devices=1",
        f"--trainer.accelerator={options.device.type}", f"--trainer.precision={options.precision}", *more,
    ]  # fmt: skip


def _command(*words: str) -> str:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "genre_lightning", *words], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words[:2])} ended with {done.returncode}: {done.stderr[-1500:]}"
    return done.stderr


def fit_then_predict(options: Options) -> Figures:
    """Run `fit` of the quickstart configuration on one device, then `predict` there and on the CPU in 32 bits."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = ("--data.max_films=200", "--trainer.max_epochs=2") if options.shape == "small" else ()
        _command(*_fit_words(options, folder, "run", "--trainer.log_every_n_steps=5", *size))
        with (folder / "run" / "curves.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
        losses = [float(row["train/loss"]) for row in rows]
        found = []
        for place, precision in ((options.device.type, options.precision), ("cpu", "32-true")):
            out = folder / f"{place}-{precision}.parquet"
            _command(
                "predict", str(folder / "run"), f"--data.csv={folder / 'films.csv'}", f"--out={out}",
                f"--trainer.accelerator={place}", f"--trainer.precision={precision}",
            )  # fmt: skip
            table = pq.read_table(out).to_pylist()
            found.append([np.array([row[name] for row in table if row[name]]) for name in ("logits", "probabilities")])
    (logits, calibrated), (logits_there, calibrated_there) = found
    plain = [1 / (1 + np.exp(-values)) for values in (logits, logits_there)]
    difference = float(np.abs(plain[0] - plain[1]).max())
    assert losses[-1] < losses[0], f"nothing is learnt: {losses}"
    assert difference < 0.01, f"probabilities differ by {difference} between {options.device.type} and the CPU"
    skipped = [row.get("train/skipped_steps") for row in rows]
    return {
        "first_loss": losses[0], "last_loss": losses[-1], "skipped_steps": skipped[-1] or 0,
        "films": len(logits), "probabilities_differ": difference,
        # a calibration with steep slopes, as of a model that has hardly learnt, makes more of it
        "calibrated_probabilities_differ": float(np.abs(calibrated - calibrated_there).max()),
    }  # fmt: skip


def strategies_agree(options: Options) -> Figures:
    """Check ten steps from one seed on one device, DDP and FSDP: the same losses to the precision of halves."""
    steps = ("--data.max_films=200", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--model.dropout=0")
    losses = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for strategy in ("auto", "ddp", "fsdp"):
            _command(*_fit_words(options, folder, strategy, *steps, f"--trainer.strategy={strategy}"))
            with (folder / strategy / "curves.csv").open(newline="") as file:
                losses[strategy] = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert all(len(values) == 10 for values in losses.values()), losses
    largest = {
        strategy: max(abs(a / b - 1) for a, b in zip(losses[strategy], losses["auto"], strict=True))
        for strategy in ("ddp", "fsdp")
    }
    assert max(largest.values()) < 0.02, f"losses differ: {losses}"
    return {f"loss_differs_{strategy}": value for strategy, value in largest.items()}


class _Waits(Callback):
    """Notes what the host waits for in steps that are not logged."""

    FIRST, LAST = 12, 18

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._catching: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.FIRST and self._catching is None:
            self._catching = warnings.catch_warnings(record=True)
            self._caught = self._catching.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.LAST and self._catching is not None:
            torch.cuda.set_sync_debug_mode("default")
            self._catching.__exit__(None, None, None)
            self._catching = None
            self.found.update(
                f"{Path(w.filename).parent.name}/{Path(w.filename).name}:{w.lineno}"
                for w in self._caught
                if "called a synchronizing" in str(w.message)
            )


def no_waits(options: Options) -> Figures:
    """Check that steps that are not logged never have the host wait for the device."""
    if options.device.type != "cuda":
        return {"skipped": "a CPU has nothing to wait for"}
    with tempfile.TemporaryDirectory() as name:
        words = _fit_words(
            options, Path(name), "run", "--trainer.max_epochs=1", "--trainer.max_steps=20",
            "--trainer.num_sanity_val_steps=0", "--early_stopping.patience=0",
            "--trainer.log_every_n_steps=10",
        )  # fmt: skip
        setup = check_setup(*parse("fit", words[1:]))
        bind_model(setup)
        waits = _Waits()
        setup.trainer_options |= {"callbacks": [waits], "limit_val_batches": 0}
        trainer, _ = build_trainer(setup)
        trainer.fit(setup.model, datamodule=setup.data)
    steps = waits.LAST - waits.FIRST
    assert not waits.found, f"in {steps} steps the host waited at {dict(waits.found)}"
    return {"steps": steps, "waits": 0}
