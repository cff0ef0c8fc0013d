"""Trains one epoch with each side and judges it on the validation films: whether what is faster learns as well.

    python benchmarks/training/quality.py [--films 8000] [--seeds 3]        (make bench-quality)

MOVIES_CSV and ENCODER_DIR as in bench.py. The sides start from the same weights and train on the same films with the
same optimizer; a seed gives each its order of films and its dropout. The noise is what seeds make: the standard error
of the difference between two sides' means, by Welch. Padded to 256 the peer sees the films of dynamic padding in the
same steps, and takes hours for it, so it is judged only if --sides names it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from results import FOLDER, keep, name_of
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


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the difference of two sides' means and its standard error (Welch, 1947); at least two seeds of each."""
    error = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    return statistics.mean(ours) - statistics.mean(theirs), error


def table(found: dict[str, list[float]], steps: int) -> str:
    """Return the validation mAP of each seed and side, and how far this framework's mean is from the others'."""
    lines = [f"validation mAP after an epoch of {steps:,} steps", f"{'side':32} {'mean':>7} {'sd':>7}  seeds"]
    for side, values in found.items():
        spread = f"{statistics.stdev(values):7.4f}" if len(values) > 1 else " " * 7
        seeds = " ".join(f"{value:.4f}" for value in values)
        lines.append(f"{name_of(side):32} {statistics.mean(values):7.4f} {spread}  {seeds}")
    for side, values in found.items():
        if side != OURS and len(values) > 1 and len(found.get(OURS, [])) > 1:
            gap, error = difference(found[OURS], values)
            lines.append(f"{OURS} is {gap:+.4f} from {name_of(side)}, standard error {error:.4f}")
    return "\n".join(lines)


def judge(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the validation mAP of each side by seed, with the films and steps of an epoch."""
    # a tenth of the films are validation's and a tenth test's
    words = [*options_of("encoder", options, folder), f"--data.max_films={options.films * 5 // 4}"]
    films = prepare_films(words)
    found: dict[str, list[float]] = {side: [] for side in options.sides}
    steps = 0
    for seed in range(options.seeds):
        for side in options.sides:
            figures: dict[str, Any] = run_worker(Job(side, words, 0, 0, seed, options.threads))
            found[side].append(figures["map_macro"])
            steps = figures["steps"]
            print(f"  seed {seed}  {side:16} {steps:,} steps  mAP {figures['map_macro']:.4f}", flush=True)
    return {"epoch_films": films, "steps": steps, "map_macro": found}


def main() -> int:
    """Judge the sides and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=8000, help="of an epoch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[OURS, DYNAMIC, GROUPED])
    parser.add_argument("--threads", type=int, help="of a CPU")
    parser.add_argument("--small", action="store_true", help="a try of the script itself, with a tiny model")
    parser.add_argument("--out", type=Path, help="folder of the result; the project's with real films and encoder")
    options = parser.parse_args()
    options.device, options.precision, options.batch, options.compile = "cpu", None, None, False
    before = machine(options.device)
    with tempfile.TemporaryDirectory() as folder:
        found = judge(options, Path(folder))
    text = table(found["map_macro"], found["steps"])
    print(text)
    result = {"date": date.today().isoformat(), "machine": before, "precision": precision_of(options),
              "files": files_of(options), **found}  # fmt: skip
    if out := options.out or (FOLDER if is_whole(options) else None):
        keep(out / "training_quality_cpu", "Validation mAP of each side", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
