"""Kills small real runs at many moments, starts them again until they end, and compares them with an unbroken run.

`python tools/faults/harness.py --number 100 --strategy ddp --devices 2` prints a table of what was hit and lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent
TESTS = PLACE.parents[1] / "tests"
sys.path[:0] = [str(PLACE), str(TESTS), *(str(TESTS / name) for name in ("models", "support"))]
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # one thread forks safely, and sums in one order
    os.environ[_name] = "1"

from small_run import SMALL  # noqa: E402  # tests are not a package
from starts import OF_QLORA, Ended, preload, start_by_lightning, start_ranks  # noqa: E402
from worker import ERROR, MOMENTS  # noqa: E402

STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
FIRST = tuple(MOMENTS)[: tuple(MOMENTS).index("before training")]
"""Moments that only the first start of a run has: what they make is there for the next."""
RAISING = ("in a step", "after backward", "in validation", "in evaluation")
"""Moments at which an exception, too, is a way for a rank to die."""
PREEMPTED = 75


@dataclass
class Setting:
    """What is run, and where.

    Attributes:
        csv: The movies file.
        place: Folder for runs and caches.
        ranks: Processes of a run.
        options: Options of `genre-lightning fit`, besides the file and the run directory.
        seconds: Time after which a start counts as hung.
    """

    csv: Path
    place: Path
    ranks: int = 1
    options: list[str] = field(default_factory=lambda: [*SMALL, "--trainer.log_every_n_steps=1"])
    seconds: float = 300


@dataclass(frozen=True)
class Fault:
    """Signal `signal` at the `count`-th time of `moment`, in a rank or ("all") in all of them.

    Attributes:
        launcher: Who starts the ranks: "torchrun", or "lightning" from one plain command.
    """

    moment: str
    count: int = 1
    signal: str = "SIGKILL"
    rank: int | str = 0
    launcher: str = "torchrun"

    def __str__(self) -> str:
        return f"{self.moment}:{self.count}:{self.signal}:{self.rank}"


@dataclass
class Broken:
    """A run that was interrupted and resumed until its end.

    Attributes:
        directory: Directory of the run.
        ends: Exit status of every start; the last one's is 0.
        journal: What the processes noted.
    """

    directory: Path
    ends: list[Ended]
    journal: list[dict[str, Any]]

    @property
    def counts(self) -> list[Counter[str]]:
        """How often each moment came to each rank in the last start."""
        last = {line["rank"]: Counter(line["counts"]) for line in self.journal if line["event"] == "end"}
        return [last[rank] for rank in sorted(last)]

    def strikes(self) -> list[bool]:
        """Return whether each start was struck."""
        return [any(line["event"] == "strike" for line in lines) for lines in self._by_start()]

    def steps_again(self) -> list[int]:
        """Return the optimizer steps of each start that a later one did again."""
        steps = [[line["step"] for line in lines if line["event"] == "step"] for lines in self._by_start()]
        return [
            sum(any(step in later for later in steps[start + 1 :]) for step in done) for start, done in enumerate(steps)
        ]

    def _by_start(self) -> list[list[dict[str, Any]]]:
        starts: list[list[dict[str, Any]]] = []
        for line in self.journal:
            if line["event"] == "new start":
                starts.append([])
            else:
                starts[-1].append(line)
        return starts


def break_and_finish(setting: Setting, name: str, faults: list[Fault], *, cache: Path | None = None) -> Broken:
    """Start a run once with each fault, then without any until it ends.

    Args:
        setting: What is run.
        name: Name of the run's directory.
        faults: One a start.
        cache: An own, empty one unless given.

    Raises:
        AssertionError: A start hangs, ends with a status that its signal does not explain, or fails without a fault.
    """
    run_dir = setting.place / name
    journal = setting.place / f"{name}.journal"
    environment = {"GENRE_LIGHTNING_CACHE": str(cache or setting.place / f"{name}-cache"), "JOURNAL": str(journal)}
    ends = []
    for fault in [*faults, None]:
        with journal.open("a") as file:
            file.write('{"event": "new start"}\n')
        try:
            ends.append(_start(setting, run_dir, environment, fault))
        except AssertionError as error:
            raise AssertionError(f"{fault or 'no fault'} after {[str(f) for f in faults]}: {error}") from error
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        _check_end(fault, ends[-1], struck=_struck_last(lines))
    return Broken(run_dir, ends, lines)


def _struck_last(journal: list[dict[str, Any]]) -> bool:
    events = [line["event"] for line in journal]
    return "strike" in events[len(events) - events[::-1].index("new start") :]


def _start(setting: Setting, run_dir: Path, environment: Mapping[str, str], fault: Fault | None) -> Ended:
    log = setting.place / f"{run_dir.name}.log"
    words = ["fit", f"--data.csv={setting.csv}", f"--run_dir={run_dir}", *setting.options]
    armed = {**environment, "FAULT": str(fault)} if fault else environment
    if fault and fault.launcher == "lightning":
        words.append(f"--trainer.devices={setting.ranks}")
        return start_by_lightning(words, log, armed, seconds=setting.seconds)
    return start_ranks(words, setting.ranks, log, armed, seconds=setting.seconds)


def _check_end(fault: Fault | None, end: Ended, *, struck: bool) -> None:
    said = end.said[-3000:]
    if not struck:
        assert set(end.statuses) == {0}, f"{fault}, not struck: statuses {end.statuses}: {said}"
    elif fault and fault.signal in ("SIGKILL", ERROR):
        assert end.status not in (0, 2, PREEMPTED), f"{fault}: statuses {end.statuses}: {said}"
    else:
        # a signal that comes when no step is left to stop at lets the run end
        assert set(end.statuses) <= {0, PREEMPTED}, f"{fault}: statuses {end.statuses}: {said}"
        assert not end.forced, f"{fault}: ranks {end.forced} had to be killed: {said}"


def draw(rng: random.Random, counts: list[Counter[str]], *, first: bool, launcher: str) -> Fault:
    """Return a fault at a random moment.

    Args:
        rng: What is drawn from.
        counts: How often each moment comes to each rank of an unbroken run.
        first: Whether it strikes the first start of a run.
        launcher: Who starts the ranks.
    """
    rank = rng.choice([*range(len(counts)), "all"] if len(counts) > 1 else [0])
    seen = counts[0 if rank == "all" else int(rank)]
    moment = rng.choice([name for name in MOMENTS if seen[name] and (first or name not in FIRST)])
    deadly = ("SIGKILL", ERROR) if moment in RAISING and rank != "all" else ("SIGKILL",)
    number = rng.choice(deadly if rng.random() < 0.5 else STOP_SIGNALS)
    # a later start has fewer steps before it
    most = seen[moment] if first else (seen[moment] + 1) // 2
    return Fault(moment, rng.randint(1, most), number, rank, launcher)


class Table:
    """What was hit, and what it cost."""

    def __init__(self) -> None:
        self.struck: dict[str, Counter[str]] = {name: Counter() for name in MOMENTS}
        self.missed: Counter[str] = Counter()
        self.again: dict[str, list[int]] = {name: [] for name in MOMENTS}
        self.lost: Counter[str] = Counter()

    def add(self, fault: Fault, *, struck: bool, again: int, different: bool) -> None:
        """Count a fault."""
        if not struck:
            self.missed[fault.moment] += 1
            return
        self.struck[fault.moment][fault.signal] += 1
        self.again[fault.moment].append(again)
        self.lost[fault.moment] += different

    def total(self) -> int:
        """Return the faults that struck."""
        return sum(sum(of.values()) for of in self.struck.values())

    def __str__(self) -> str:
        signals = ("SIGKILL", ERROR, *STOP_SIGNALS)
        heads = ["moment", *(name.removeprefix("SIG") for name in signals), "not reached", "steps again", "lost"]
        rows = []
        for name in MOMENTS:
            again = self.again[name]
            span = "–" if not again else str(max(again)) if min(again) == max(again) else f"{min(again)}–{max(again)}"
            numbers = [self.struck[name][number] or "" for number in signals]
            rows.append([name, *numbers, self.missed[name] or "", span, self.lost[name] or "nothing"])
        sums = [sum(of[number] for of in self.struck.values()) for number in signals]
        every = [steps for of in self.again.values() for steps in of]
        lost = sum(self.lost.values())
        rows.append(["all", *sums, sum(self.missed.values()), f"{sum(every)} in all", lost or "nothing"])
        widths = [max(len(str(row[column])) for row in [heads, *rows]) for column in range(len(heads))]
        lines = []
        for row in [heads, *rows]:
            cells = [f"{row[0]:<{widths[0]}}", *(f"{c!s:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells))
        lines.insert(1, "-" * len(lines[0]))
        lines.insert(-1, "-" * len(lines[0]))
        return "\n".join(lines)


def make_setting(place: Path, strategy: str, ranks: int, model: str, options: list[str]) -> Setting:
    """Return the run of a campaign: a small encoder, or NF4 weights of a small Llama with LoRA."""
    from genre_lightning.data.sample.generate import write_sample

    setting = Setting(write_sample(place / "sample.csv", films=165, seed=1), place, ranks)
    if model == "qlora":
        from small_llama import save_causal

        preload(*OF_QLORA)
        setting.options += [
            "--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier",
            f"--model.backbone={save_causal(place / 'base')}",
            "--model.quantization=nf4",
            "--model.lora={rank: 4, dropout: 0.05}",
            "--model.lr=1e-2",
        ]
        setting.options = [word for word in setting.options if not word.startswith(_OF_THE_ENCODER)]
    setting.options += [f"--trainer.strategy={strategy}", *options]
    return setting


_OF_THE_ENCODER = ("--model.backbone=small", "--model.architecture", "--data.vocab_size")


def campaign(setting: Setting, number: int, seed: int, minutes: float) -> tuple[Table, int, list[str]]:
    """Break runs until `number` faults have struck, or the minutes are over.

    Returns:
        The table, the number of runs, and what differed from the unbroken run.
    """
    from outcome import differences

    unbroken = break_and_finish(setting, "unbroken", [])
    rng, table, runs, found = random.Random(seed), Table(), 0, []
    # Lightning's own start of the ranks has to import the libraries again: one run in ten
    ends = time.monotonic() + 60 * minutes
    while table.total() < number and time.monotonic() < ends:
        launcher = "lightning" if setting.ranks > 1 and runs % 10 == 9 else "torchrun"
        faults = [
            draw(rng, unbroken.counts, first=place == 0, launcher=launcher)
            for place in range(min(rng.randint(2, 4), number - table.total()))
        ]
        name, started = f"run{runs}", time.monotonic()
        runs += 1
        try:
            broken = break_and_finish(setting, name, faults)
        except AssertionError as error:
            print(f"{name} did not end: {error}", file=sys.stderr, flush=True)
            found.append(f"{name}: did not end: {str(error)[:300]}")
            for fault in faults:
                table.add(fault, struck=True, again=0, different=True)
            continue
        different = differences(unbroken.directory, broken.directory)
        for fault, struck, again in zip(faults, broken.strikes(), broken.steps_again(), strict=False):
            table.add(fault, struck=struck, again=again, different=bool(different))
        statuses = [end.statuses for end in broken.ends]
        news = f"{table.total()}/{number}  {time.monotonic() - started:.0f} s  {launcher}"
        print(news, [str(f) for f in faults], statuses, different or "equal", file=sys.stderr, flush=True)
        found += [f"{name}: {difference}" for difference in different]
        if not different:
            for remains in (broken.directory, setting.place / f"{name}-cache"):
                shutil.rmtree(remains, ignore_errors=True)
    return table, runs, found


def main() -> int:
    """Draw faults, strike, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=100, help="faults that strike, in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end sooner, after so long")
    parser.add_argument("--strategy", default="auto", choices=["auto", "ddp", "fsdp"])
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--model", default="encoder", choices=["encoder", "qlora"])
    parser.add_argument("options", nargs="*", help="further options of `genre-lightning fit`")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"runs, logs and journals are in {place}", file=sys.stderr, flush=True)
    setting = make_setting(place, arguments.strategy, arguments.devices, arguments.model, arguments.options)
    table, runs, found = campaign(setting, arguments.number, arguments.seed, arguments.minutes)
    print(f"{arguments.model}, strategy {arguments.strategy}, {arguments.devices} ranks, seed {arguments.seed}:")
    print(f"{table.total()} faults struck {runs} runs; each ended and was compared with the unbroken run\n")
    print(table)
    print("\nsteps again: optimizer steps that a later start did once more, from the last save on (every 4 steps)")
    print("\n".join(found) if found else "lost: nothing; weights, optimizer, curves, predictions and metrics are equal")
    if not found:
        shutil.rmtree(place)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
