"""Trains the same model with this framework and with Hugging Face Trainer, in turns, and tells how fast each was.

    python benchmarks/training/bench.py                    (make bench)
    python benchmarks/training/bench.py --device cuda      (make gpu-bench)

MOVIES_CSV and ENCODER_DIR name the film file and the encoder on a CPU; without them the embedded sample and a small
encoder with random weights are used, and nothing is kept unless --out names a folder. On a GPU it is always the sample
with random weights in the shapes of DistilBERT, but for its vocabulary of 8,000, and of a 7B Llama. Every turn is a
process of its own; loading, reading, tokenising and the first steps are not timed. The sides take turns within each of
several rounds, so that other work on the machine weighs on all of them; medians over the rounds are reported. Peak
memory is that of the side's own way: micro-batches here, all films of a step at once with Trainer. Whether the sides
learn equally well is shown by quality.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from results import FOLDER, draw, keep, summary, table
from suites import (
    OURS,
    SIDES,
    Job,
    aims_of,
    files_of,
    is_whole,
    options_of,
    precision_of,
    prepare_films,
    run_worker,
    turns_of,
)

from genre_lightning.hardware import dense_peak

sys.path.append(str(Path(__file__).parent.parent))

from machine import machine  # a script's own folder is all that Python looks in


def product_rate(device: str, precision: str) -> float:
    """Return the machine's rate of large matrix products in FLOPs a second: the best of ten, in the dtype trained.

    On a CPU that has no units for the dtype one product takes seconds: then the best of those within five seconds.
    """
    dtype = {"16": torch.float16, "bf": torch.bfloat16}.get(precision[:2], torch.float32)
    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, dtype=dtype, device=device)
    best, begun = 0.0, time.perf_counter()
    for _ in range(10):
        started = time.perf_counter()
        if started - begun > 5:
            break
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def share_of_peak(flops_per_second: float, device: str, precision: str) -> float | None:
    """Return what part of a GPU's dense peak is reached; None on a CPU, and if the peak is not known."""
    name = {"16": "fp16", "bf": "bf16"}.get(precision[:2], "fp32")
    peak = dense_peak(torch.cuda.get_device_name(), name) if device == "cuda" else None
    return flops_per_second / peak if peak else None


def compare(suite: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rounds of all sides; return them with their summary."""
    words, precision = options_of(suite, options, folder), precision_of(options)
    before = machine(options.device)
    prepare_films(words)
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side, turn in turns_of(suite, options).items():
            job = Job(side, words, turn.warmup_steps, turn.steps, seed=number, threads=options.threads)
            figures = run_worker(job)
            rounds[side].append(figures)
            print(f"  round {number + 1}  {side:16} {figures['tokens_per_second']:9,.0f} tokens/s", flush=True)
    found = summary(rounds)
    rate, cost = product_rate(options.device, precision), rounds[OURS][0]["flops_per_token"]
    used = found["medians"][OURS]["tokens_per_second"] * cost
    return {"suite": suite, "date": date.today().isoformat(), "machine": before, "precision": precision,
            "files": files_of(options), "rounds": rounds, **found, "product_flops_per_second": rate,
            "flops_per_token": cost, "share_of_products": used / rate,
            "share_of_peak": share_of_peak(used, options.device, precision)}  # fmt: skip


def main() -> int:
    """Run the suites and keep their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--suite", choices=("encoder", "llama"), nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, help="films of a step; 16 on a CPU, 128 on a GPU")
    parser.add_argument(
        "--precision",
        choices=("bf16-mixed", "16-mixed", "32-true"),
        help="bf16-mixed on a CPU, 16-mixed on a GPU; 32-true suits a CPU without units for bf16",
    )
    parser.add_argument("--compile", action="store_true", help="this framework with model.compile, on a GPU")
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--small", action="store_true", help="a try of the script itself: tiny models, two steps")
    parser.add_argument("--out", type=Path, help="folder of the results; the project's for the whole benchmark alone")
    options = parser.parse_args()
    out = options.out or (FOLDER if is_whole(options) else None)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench: no CUDA GPU is visible: run it on a machine that has one, or on the CPU", file=sys.stderr)
        return 2
    suites = options.suite or (["encoder", "llama"] if options.device == "cuda" else ["encoder"])
    if "llama" in suites and options.device == "cpu" and not options.small:
        print("bench: a 7B Llama is trained on a GPU only: add --device cuda, or --small to try it", file=sys.stderr)
        return 2
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for suite in suites:
            print(f"{suite} on {machine(options.device)['processor']}", flush=True)
            result = compare(suite, options, Path(folder))
            text = table(result, aims_of(suite, options))
            if out:
                stem = out / f"training_{suite}_{options.device}"
                keep(stem, f"Training beside Hugging Face Trainer: {suite}", result, text)
                draw(result, stem.with_suffix(".png"))
            results[suite] = result, text
    for suite, (_, text) in results.items():
        print(f"\n{suite}\n{text}")
    kept = ("medians", "ratios", "share_of_products", "share_of_peak")
    print(json.dumps({suite: {name: result[name] for name in kept} for suite, (result, _) in results.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
