"""Kills small real runs at many moments, starts them again until they end, and compares them with an unbroken run.

`python tests/faults/harness.py --number 100 --strategy ddp --devices 2` prints a table of what was hit and lost.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

WORKER = Path(__file__).with_name("worker.py")
sys.path[:0] = [str(WORKER.parent), str(WORKER.parent.parent)]

from small_run import SMALL  # noqa: E402  # tests are no package
from worker import MOMENTS  # noqa: E402

STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")


@dataclass
class Setting:
    """What is run, and where.

    Attributes:
        csv: the movies file.
        place: folder for runs and caches.
        options: of `genre-lightning fit`, besides the file and the run directory.
        seconds: after which a start counts as hung.
    """

    csv: Path
    place: Path
    options: list[str] = field(default_factory=lambda: list(SMALL))
    seconds: float = 300


@dataclass(frozen=True)
class Fault:
    """Signal `signal` at the `count`-th time of `moment`, in rank `rank`."""

    moment: str
    count: int
    signal: str = "SIGKILL"
    rank: int = 0

    def __str__(self) -> str:
        return f"{self.moment}:{self.count}:{self.signal}:{self.rank}"


def start(setting: Setting, run_dir: Path, cache: Path, fault: Fault | None) -> int:
    """One start of the command; returns its exit status, negative for a signal.

    Raises:
        subprocess.TimeoutExpired: it hung.
    """
    environment = {**os.environ, "GENRE_LIGHTNING_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    if fault:
        environment["FAULT"] = str(fault)
    command = [sys.executable, str(WORKER), "fit", f"--data.csv={setting.csv}", f"--run_dir={run_dir}"]
    with (run_dir.parent / f"{run_dir.name}.log").open("a") as log:
        return subprocess.run(
            [*command, *setting.options], env=environment, stdout=log, stderr=log, timeout=setting.seconds, check=False
        ).returncode


def run_to_its_end(setting: Setting, run_dir: Path, cache: Path, faults: list[Fault]) -> list[int]:
    """Starts a run again and again: once with each fault, then without any until it ends.

    Returns:
        the exit statuses, the last of them 0.

    Raises:
        AssertionError: it does not end, or a start without a fault fails.
    """
    statuses = [start(setting, run_dir, cache, fault) for fault in faults]
    statuses.append(start(setting, run_dir, cache, None))
    assert statuses[-1] == 0, f"faults {faults}: statuses {statuses}; see {run_dir}.log"
    return statuses


def difference(expected: Path, got: Path) -> float:
    """Largest difference of the final weights of two runs, 0.0 where they are equal to the bit."""
    import torch

    largest = 0.0
    for name in ("last", "best"):
        a, b = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (expected, got))
        assert a["state_dict"].keys() == b["state_dict"].keys()
        assert a["global_step"] == b["global_step"]
        for key, value in a["state_dict"].items():
            if not torch.equal(value, b["state_dict"][key]):
                largest = max(largest, float((value.double() - b["state_dict"][key].double()).abs().max()))
    return largest


def losses(run_dir: Path) -> list[tuple[str, str]]:
    """The training losses of a run's curves, by step."""
    with (run_dir / "curves.csv").open(newline="") as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def draw(rng: random.Random, ranks: int) -> Fault:
    """A fault at a random moment."""
    moment = rng.choice(sorted(MOMENTS))
    often = moment in ("in a step", "after backward", "between steps", "before a save", "inside a save",
                       "between a save's renames")  # fmt: skip
    count = rng.randint(1, 40 if moment in ("in a step", "between steps", "after backward") else 8 if often else 2)
    number = "SIGKILL" if rng.random() < 0.6 else rng.choice(STOP_SIGNALS)
    return Fault(moment, count, number, rng.randrange(ranks))


def main() -> int:
    """Draws faults, strikes, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=100, help="faults in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", default="auto", choices=["auto", "ddp", "fsdp"])
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("options", nargs="*", help="further options of `genre-lightning fit`")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    from genre_lightning.data.sample import write_sample

    setting = Setting(write_sample(place / "sample.csv", films=400, seed=1), place)
    setting.options += [f"--trainer.strategy={arguments.strategy}", f"--trainer.devices={arguments.devices}"]
    setting.options += arguments.options
    unbroken = place / "unbroken"
    run_to_its_end(setting, unbroken, place / "cache", [])
    rng = random.Random(arguments.seed)
    struck: Counter[tuple[str, str]] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    done = runs = 0
    while done < arguments.number:
        faults = [draw(rng, arguments.devices) for _ in range(min(rng.randint(1, 3), arguments.number - done))]
        run_dir, cache = place / f"run{runs}", place / f"cache{runs}"
        statuses = run_to_its_end(setting, run_dir, cache, faults)
        gap = difference(unbroken, run_dir)
        same_curves = losses(unbroken) == losses(run_dir)
        for fault, status in zip(faults, statuses, strict=False):
            kind = (fault.moment, "SIGKILL" if fault.signal == "SIGKILL" else "stop signal")
            struck[kind if status != 0 else (fault.moment, "not reached")] += 1
            lost[kind] += gap != 0 or not same_curves
        done, runs = done + len(faults), runs + 1
        news = f"{done}/{arguments.number} {[str(f) for f in faults]} {statuses} difference {gap}"
        print(news, file=sys.stderr, flush=True)
        shutil.rmtree(run_dir)
        shutil.rmtree(cache, ignore_errors=True)
    print(f"\n{runs} runs, {done} faults, strategy {arguments.strategy}, {arguments.devices} ranks")
    print(f"{'moment':<28}{'kind':<14}{'struck':>8}{'runs that differ from the unbroken one':>42}")
    for (moment, kind), number in sorted(struck.items()):
        print(f"{moment:<28}{kind:<14}{number:>8}{lost[(moment, kind)]:>42}")
    shutil.rmtree(place)
    return int(any(lost.values()))


if __name__ == "__main__":
    sys.exit(main())
