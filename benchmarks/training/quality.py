"""Trains one epoch with each side and judges it on the validation films: whether what is faster learns as well.

    python benchmarks/training/quality.py [--films 8000] [--seeds 3]        (make bench-quality)

MOVIES_CSV and ENCODER_DIR as in bench.py. The sides start from the same weights and train on the same films with the
same optimizer; a seed gives each its order of films and its dropout. The noise is what seeds make: intervals of the
difference between two sides' means are Welch's, for 95%. Seeds that the kept result has are not trained again. Padded
to 256 the peer sees the films of dynamic padding in the same steps, and takes hours for it, so it is judged only if
--sides names it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from results import FOLDER, keep, name_of
from scipy import stats
from suites import (
    DYNAMIC,
    GROUPED,
    OURS,
    SIDES,
    Job,
    files_of,
    is_whole,
    options_of,
    precision_of,
    prepare_films,
    run_worker,
)

sys.path.append(str(Path(__file__).parent.parent))

from machine import machine  # a script's own folder is all that Python looks in

NAME = "training_quality_cpu"


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the difference of two sides' means and its 95% interval (Welch, 1947); at least two seeds of each."""
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return statistics.mean(ours) - statistics.mean(theirs), float(interval.low), float(interval.high)


def table(found: dict[str, list[float]], steps: int) -> str:
    """Return the validation mAP of each seed and side, and how far this framework's mean is from the others'."""
    lines = [f"validation mAP after an epoch of {steps:,} steps", f"{'side':32} {'mean':>7} {'sd':>7}  seeds"]
    for side, values in found.items():
        spread = f"{statistics.stdev(values):7.4f}" if len(values) > 1 else " " * 7
        seeds = " ".join(f"{value:.4f}" for value in values)
        lines.append(f"{name_of(side):32} {statistics.mean(values):7.4f} {spread}  {seeds}")
    for side, values in found.items():
        if side != OURS and len(values) > 1 and len(found.get(OURS, [])) > 1:
            gap, low, high = difference(found[OURS], values)
            lines.append(f"{OURS} is {gap:+.4f} [{low:+.4f}, {high:+.4f}] from {name_of(side)}")
    return "\n".join(lines)


def read_kept(path: Path, like: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the mAP of each side and seed of a kept result; none if it was made in another way, or on another CPU."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = all(kept.get(name) == like[name] for name in ("precision", "files", "epoch_films"))
    on = ("processor", "torch", "transformers")
    return kept["map_macro"] if same and all(kept["machine"][name] == like["machine"][name] for name in on) else {}


def main() -> int:
    """Judge the sides with the seeds that are missing, and keep the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=8000, help="of an epoch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[OURS, DYNAMIC, GROUPED])
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--small", action="store_true", help="a try of the script itself, with a tiny model")
    parser.add_argument("--out", type=Path, help="folder of the result; the project's with real films and encoder")
    options = parser.parse_args()
    options.device, options.precision, options.batch, options.compile = "cpu", None, None, False
    out = options.out or (FOLDER if is_whole(options) else None)
    result = {"date": date.today().isoformat(), "machine": machine(options.device), "precision": precision_of(options),
              "files": files_of(options)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        # a tenth of the films are validation's and a tenth test's
        words = [*options_of("encoder", options, Path(folder)), f"--data.max_films={options.films * 5 // 4}"]
        result["epoch_films"] = prepare_films(words)
        found = read_kept(out / f"{NAME}.json", result) if out else {}
        missing = [(seed, side) for seed in range(options.seeds) for side in options.sides
                   if str(seed) not in found.get(side, {})]  # fmt: skip
        for seed, side in missing:
            figures: dict[str, Any] = run_worker(Job(side, words, 0, 0, seed, options.threads))
            found.setdefault(side, {})[str(seed)] = figures["map_macro"]
            print(f"  seed {seed}  {side:16} {figures['steps']:,} steps  mAP {figures['map_macro']:.4f}", flush=True)
            result |= {"steps": figures["steps"], "map_macro": found}
            text = table({name: list(found[name].values()) for name in SIDES if name in found}, figures["steps"])
            if out:
                keep(out / NAME, "Validation mAP of each side", result, text)
    print(text if missing else "every seed of these sides is in the kept result")
    return 0


if __name__ == "__main__":
    sys.exit(main())
