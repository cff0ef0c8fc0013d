"""Times the way from the movies file to metrics and report, here and by a script around Hugging Face Trainer.

    python benchmarks/end_to_end/compare.py movies_metadata.csv all-MiniLM-L6-v2 [--films 12000] [--epochs 1]

Each side is a process of its own with nothing in its cache. `trainer_script.py` is what a user of Trainer would write:
pandas, dynamic padding, a threshold for each genre by scikit-learn, its metrics, and a plot. This framework's side is
`genre-lightning fit`, whose evaluation has intervals by bootstrap, calibration, plots and the page of a report besides.
Epochs, films a step, learning rate and precision are the same; the splits are drawn by each side, of the same sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from machine import machine  # a script's own folder is all that Python looks in

from genre_lightning.distributed.precision import cpu_has_bf16
from genre_lightning.escapes import markdown_table
from genre_lightning.files import write_text

HERE = Path(__file__).resolve().parent
PARTS = ("imports", "reading", "tokenising", "model", "training", "predicting", "evaluating", "writing")
OURS, PEER = "genre-lightning fit", "Trainer script"
BATCH, LR = 32, 2e-4


def commands(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Return the command of each side."""
    bf16 = cpu_has_bf16()
    peer = [HERE / "trainer_script.py", options.csv, options.encoder, folder / "peer", "--epochs", options.epochs,
            "--batch", BATCH, "--lr", LR, *(["--films", options.films] if options.films else []),
            *(["--bf16"] if bf16 else [])]  # fmt: skip
    settings = {
        "config": "distilbert", "data.csv": options.csv, "model.backbone": options.encoder, "model.lr": LR,
        "data.cache_dir": folder / "cache", "run_dir": folder / "run", "data.split": "[0.7, 0.1, 0.2]",
        "data.global_batch_size": BATCH, "trainer.max_epochs": options.epochs, "trainer.accelerator": "cpu",
        "trainer.precision": "bf16-mixed" if bf16 else "32-true",
    }  # fmt: skip
    if options.films:
        settings["data.max_films"] = options.films
    ours = [HERE / "framework.py", *(word for name, value in settings.items() for word in (f"--{name}", value))]
    return {side: [sys.executable, *map(str, words)] for side, words in {OURS: ours, PEER: peer}.items()}


def run(command: list[str]) -> dict[str, Any]:
    """Return what a side printed, with the seconds of its whole process by the clock and in CPU time."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{Path(command[1]).name} failed: its output is above")
    wall = time.perf_counter() - started
    return {**json.loads(output.splitlines()[-1]), "seconds": [wall, usage.ru_utime + usage.ru_stime]}


def table(sides: dict[str, dict[str, Any]]) -> str:
    """Return the parts of both sides by the clock, and their fractions of the whole."""
    rows = []
    for part in (*PARTS, "the rest", "whole"):
        cells = []
        for side in sides.values():
            seconds, whole = _seconds(side, part, 0), side["seconds"][0]
            cells += [f"{seconds:.1f} s", f"{seconds / whole:.0%}"]
        rows.append([part, *cells])
    rows.append(["CPU time", *(cell for side in sides.values() for cell in (f"{side['seconds'][1]:.0f} s", ""))])
    for metric in ("f1_micro", "map_macro"):
        rows.append([metric, *(cell for side in sides.values() for cell in (f"{side['metrics'][metric]:.3f}", ""))])
    return markdown_table(["part", *(word for side in sides for word in (side, "of it"))], rows)


def _seconds(side: dict[str, Any], part: str, clock: int) -> float:
    if part == "whole":
        return side["seconds"][clock]
    if part == "the rest":
        return side["seconds"][clock] - sum(seconds[clock] for seconds in side["parts"].values())
    return side["parts"].get(part, [0.0, 0.0])[clock]


def main() -> None:
    """Run both sides and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("encoder", type=Path, help="directory of the encoder")
    parser.add_argument("--films", type=int, help="films to draw; default: all")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "end_to_end")
    options = parser.parse_args()
    options.csv, options.encoder = options.csv.resolve(), options.encoder.resolve()
    on = machine("cpu")
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for side, command in commands(options, Path(folder)).items():
            print(side, flush=True)
            sides[side] = run(command)
    ratio = [sides[PEER]["seconds"][clock] / sides[OURS]["seconds"][clock] for clock in (0, 1)]
    films = f"{options.films:,} films" if options.films else "all films"
    text = "\n".join(
        [
            "# From the movies file to the report",
            "",
            f"`benchmarks/end_to_end/compare.py`, {date.today().isoformat()}: {on['processor']}, {on['cores']} cores, "
            f"load average {on['load_average']} at the start, torch {on['torch']}, transformers {on['transformers']}. "
            f"{options.encoder.name} in full, {films}, {options.epochs} epoch(s) in steps of {BATCH} films.",
            "",
            table(sides),
            "",
            f"The script takes {ratio[0]:.2f} times as long by the clock, and {ratio[1]:.2f} times the CPU time.",
            "",
        ]
    )
    print(text)
    result = {"date": date.today().isoformat(), "machine": on, "films": options.films, "epochs": options.epochs}
    write_text(
        options.out.with_suffix(".json"), json.dumps({**result, "sides": sides, "ratio": ratio}, indent=1) + "\n"
    )
    write_text(options.out.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
