"""Trains the same model with this framework and with Hugging Face Trainer, in turns, and tells how fast each was.

    python tests/benchmarks/training/bench.py                    (make bench)
    python tests/benchmarks/training/bench.py --device cuda      (make gpu-bench)
    python tests/benchmarks/training/bench.py --quality 3200     one epoch of each side, judged on the validation films

MOVIES_CSV and ENCODER_DIR name the film file and the encoder on a CPU; without them the embedded sample and a small
encoder with random weights are used, and on a GPU always, in the shapes of DistilBERT and of a 7B Llama. Every turn is
a process of its own; loading, reading, tokenising and the first steps are not timed. The sides take turns within each
of several rounds, so that other work on the machine weighs on all of them; medians over the rounds are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from worker import OURS, PEER_FORMS

from genre_lightning.data.sample import write_sample

sys.path.append(str(Path(__file__).parent.parent))

from machine import processor  # a script's own folder is all that Python looks in

WORKER = Path(__file__).with_name("worker.py")
RESULTS = Path(__file__).parent.parent / "results"
CONFIGS = Path(__file__).parents[3] / "configs"

# the grouped form sorts fifty batches together: its time is that of them all, and the others' batches are all alike
STEPS = {OURS: 50, PEER_FORMS[0]: 12, PEER_FORMS[1]: 20, PEER_FORMS[2]: 50}
# where shapes differ, memory and oneDNN's kernels settle within a hundred steps; padded to 256 all steps are alike
WARMUP_STEPS = {OURS: 50, PEER_FORMS[0]: 3, PEER_FORMS[1]: 10, PEER_FORMS[2]: 50}
BOUNDS = {
    ("encoder", "cpu"): {PEER_FORMS[0]: 7.5, PEER_FORMS[1]: 3.2, PEER_FORMS[2]: 1.25},
    ("encoder", "cuda"): {PEER_FORMS[0]: 5.0, PEER_FORMS[2]: 1.5},
    ("llama", "cuda"): {PEER_FORMS[0]: 3.5, PEER_FORMS[2]: 1.3},
}
DISTILBERT = ["--model.architecture.layers=6", "--model.architecture.width=768", "--model.architecture.heads=12",
              "--model.architecture.inner_width=3072"]  # fmt: skip
LLAMA_7B = ["--model.backbone=random", "--model.architecture.layers=32", "--model.architecture.width=4096",
            "--model.architecture.heads=32", "--model.architecture.inner_width=11008",
            "--model.activation_checkpointing=true"]  # fmt: skip


def options_of(suite: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """The options of `genre-lightning fit` that describe a suite's model, data and precision."""
    csv, encoder = os.environ.get("MOVIES_CSV"), os.environ.get("ENCODER_DIR")
    if options.device == "cuda" or options.small or not csv:
        csv = str(write_sample(folder / "films.csv", films=400 if options.small else 8000, seed=0))
    precision = options.precision or ("16-mixed" if options.device == "cuda" else "bf16-mixed")
    words = [f"--data.csv={csv}", f"--data.cache_dir={folder / 'cache'}", f"--trainer.precision={precision}",
             f"--trainer.accelerator={options.device}", "--trainer.max_epochs=1", "--model.pos_weight=none",
             f"--data.global_batch_size={options.batch or (128 if options.device == 'cuda' else 16)}"]  # fmt: skip
    if suite == "llama":
        shape = ["--model.backbone=random"] if options.small else LLAMA_7B
        return [f"--config={CONFIGS / 'llama2_qlora.yaml'}", "--data.tokenizer=wordpiece", *shape, *words]
    if options.device == "cuda" or options.small or not encoder:
        shape = DISTILBERT if options.device == "cuda" and not options.small else []
        return [f"--config={CONFIGS / 'distilbert.yaml'}", "--model.backbone=small", *shape, *words]
    return [f"--config={CONFIGS / 'distilbert.yaml'}", f"--model.backbone={encoder}", *words]


def run_worker(job: dict[str, Any]) -> dict[str, Any]:
    """The figures of one side."""
    done = subprocess.run([sys.executable, str(WORKER), json.dumps(job)], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if done.returncode or not lines:
        raise SystemExit(f"the side {job['side']!r} failed:\n{done.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("FIGURES "))


def product_rate(device: str, precision: str) -> float:
    """The machine's rate of matrix products in FLOPs a second: the best of several large ones, in the dtype trained."""
    dtype = {"16": torch.float16, "bf": torch.bfloat16}.get(precision[:2], torch.float32)
    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, dtype=dtype, device=device)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import transformers

    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def compare(suite: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rounds of all sides, and what they come to."""
    words = options_of(suite, options, folder)
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in STEPS}
    before = machine(options.device)
    # reads, splits and tokenises the films for all sides, so that no round does it beside its own work
    run_worker({"side": OURS, "words": words, "warmup_steps": 1, "steps": 1, "seed": 0, "threads": options.threads})
    for number in range(options.rounds):
        for side, steps in STEPS.items():
            job = {"side": side, "words": words, "warmup_steps": 1 if options.small else WARMUP_STEPS[side],
                   "steps": 2 if options.small else steps, "seed": number, "threads": options.threads}  # fmt: skip
            figures = run_worker(job)
            found[side].append(figures)
            print(f"  round {number + 1}  {side:16} {figures['tokens_per_second']:9,.0f} tokens/s", flush=True)
    precision = next(word.partition("=")[2] for word in words if "precision" in word)
    rate = product_rate(options.device, precision)
    cost = found[OURS][0]["flops_per_token"]
    names = ("tokens_per_second", "films_per_second", "padding", "peak_gib")
    table = {side: {n: statistics.median(row[n] for row in rows) for n in names} for side, rows in found.items()}
    ours = table[OURS]["tokens_per_second"]
    ratios = {
        side: statistics.median(
            o["tokens_per_second"] / p["tokens_per_second"] for o, p in zip(found[OURS], found[side], strict=True)
        )
        for side in PEER_FORMS
    }
    return {"suite": suite, "date": date.today().isoformat(), "machine": before, "precision": precision,
            "real_data": "MOVIES_CSV" in os.environ and options.device == "cpu" and not options.small,
            "rounds": found, "medians": table, "ratios": ratios,
            "bounds": {} if options.small else BOUNDS.get((suite, options.device), {}),
            "product_flops_per_second": rate, "flops_per_token": cost,
            "share_of_products": ours * cost / rate}  # fmt: skip


def table_of(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{'side':32} {'real tokens/s':>13} {'films/s':>8} {'padding':>8} {'peak GiB':>9} {'ratio':>6} {'goal':>6}"
    ]
    for side, row in result["medians"].items():
        ratio = f"{result['ratios'][side]:.2f}" if side in result["ratios"] else ""
        bound = result["bounds"].get(side)
        name = side if side == OURS else f"Trainer, {side}"
        lines.append(
            f"{name:32} {row['tokens_per_second']:13,.0f} {row['films_per_second']:8.1f} {row['padding']:8.1%} "
            f"{row['peak_gib']:9.2f} {ratio:>6} {bound or '':>6}"
        )
    rate, cost = result["product_flops_per_second"], result["flops_per_token"]
    lines.append(
        f"the products of a real token are {cost / 1e6:,.0f} MFLOP; at the {rate / 1e9:,.0f} GFLOP/s of large products "
        f"they alone would allow {rate / cost:,.0f} tokens/s, of which {result['share_of_products']:.0%} is reached"
    )
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Real tokens a second of each side, every round a point."""
    figure = Figure(figsize=(7, 2.8), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sides = list(result["medians"])[::-1]
    for place, side in enumerate(sides):
        rates = [row["tokens_per_second"] for row in result["rounds"][side]]
        axes.barh(place, statistics.median(rates), color="#2a6f97" if side == OURS else "#b8b8b8", height=0.6)
        axes.plot(rates, [place] * len(rates), "o", color="#333333", markersize=4)
        ratio = f"   (here {result['ratios'][side]:.2f} times as fast)" if side in result["ratios"] else ""
        axes.annotate(f"{statistics.median(rates):,.0f}{ratio}", (max(rates), place),
                      textcoords="offset points", xytext=(8, 0), va="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(sides)), [side if side == OURS else f"Trainer, {side}" for side in sides])
    axes.set_xlim(0, max(row["tokens_per_second"] for rows in result["rounds"].values() for row in rows) * 1.5)
    axes.set_xlabel("real tokens a second")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def judge(options: argparse.Namespace, folder: Path) -> None:
    """Prints the validation mAP of each side after an epoch, for each seed."""
    words = [*options_of("encoder", options, folder), f"--data.max_films={options.quality * 5 // 4}"]
    for seed in range(options.rounds):
        for side in options.sides or STEPS:
            job = {"side": side, "words": words, "warmup_steps": 1, "steps": 0, "seed": seed,
                   "threads": options.threads}  # fmt: skip
            figures = run_worker(job)
            print(f"seed {seed}  {side:16} {figures['steps']} steps  mAP {figures['map_macro']:.4f}", flush=True)


def main() -> int:
    """Runs the suites and keeps their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--suite", choices=("encoder", "llama"), nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, help="films of a step; 16 on a CPU, 128 on a GPU")
    parser.add_argument("--precision", help="of the trainer; bf16-mixed on a CPU, 16-mixed on a GPU")
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--small", action="store_true", help="a try of the script itself: tiny models, two steps")
    parser.add_argument("--quality", type=int, metavar="FILMS", help="judge an epoch of so many films instead")
    parser.add_argument("--sides", nargs="+", choices=list(STEPS), help="of --quality; all unless named")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.quality:
            judge(options, Path(folder))
            return 0
        suites = options.suite or (["encoder", "llama"] if options.device == "cuda" else ["encoder"])
        results = []
        for suite in suites:
            print(f"{suite} on {machine(options.device)['processor']}", flush=True)
            result = compare(suite, options, Path(folder))
            print(table_of(result), flush=True)
            results.append(result)
            options.out.mkdir(parents=True, exist_ok=True)
            stem = options.out / f"training_{suite}_{options.device}"
            stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            stem.with_suffix(".md").write_text(f"# {stem.name}, {result['date']}\n\n```\n{table_of(result)}\n```\n")
            draw(result, stem.with_suffix(".png"))
        print(
            json.dumps(
                {result["suite"]: {"medians": result["medians"], "ratios": result["ratios"]} for result in results}
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
