"""Cut a small training at the same moments with several tools, resume it, and compare it with the unbroken run.

    python benchmarks/resume/conformance.py [--work build/resume] [--python TOOL=PATH] [--only NAME]

Every peer gets a virtual environment with pinned versions, unless `--python` names an interpreter. Results are written
after every cut, and the table and the plot are made from them. A driver that was stopped resumes with the next cut.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import compare
import torch
from rank_starts import Ended, Zygote, start

from tools import PRELOADED, PROJECT, TOOLS, Data, Tool, interpreter, make_data, versions

sys.path[:0] = [str(PROJECT / "benchmarks")]
import present  # noqa: E402
from machine import machine  # noqa: E402

EPOCHS = 3
MOMENTS = {
    "between steps": "between steps:15",
    "in a step of the second epoch": "in a step:35",
    "in the second validation": "in validation:40",
    "in a save": "in a save:30",
}
"""Name of a moment → what a start is given, in steps done: 20 are an epoch, and every 10 are saved."""
SIGNALS = ("SIGTERM", "SIGKILL")


@dataclass(frozen=True)
class Cell:
    """One cut: where, by what, and on how many ranks the run began and was resumed."""

    tool: str
    moment: str
    signal: str
    ranks: int
    resumed_ranks: int

    @property
    def dropout(self) -> float:
        """Masks depend on the ranks, in every tool: without dropout, only rounding does."""
        return 0.1 if self.ranks == self.resumed_ranks else 0.0

    def __str__(self) -> str:
        return f"{self.tool}: {self.moment}, {self.signal}, {self.ranks} → {self.resumed_ranks} ranks"


def cells() -> list[Cell]:
    """Return all cuts, tool by tool."""
    cuts = [(moment, signal, 1, 1) for moment in MOMENTS for signal in SIGNALS]
    second = "in a step of the second epoch"
    cuts += [(second, signal, a, b) for a, b in ((1, 2), (2, 1), (2, 2)) for signal in SIGNALS]
    return [Cell(tool.name, *cut) for tool in TOOLS for cut in cuts]


class Bench:
    """Runs cells, and keeps the unbroken run of each tool, number of ranks and dropout.

    Args:
        place: Directory of the runs.
        data: Of all tools.
        pythons: Interpreter of each environment.
    """

    def __init__(self, place: Path, data: Data, pythons: dict[str, Path]) -> None:
        self.place = place
        self.data = data
        self.pythons = pythons
        self.zygotes: dict[str, Zygote] = {}

    def measure(self, cell: Cell) -> dict[str, Any]:
        """Cut, resume and compare; what did not end says why."""
        tool = next(tool for tool in TOOLS if tool.name == cell.tool)
        unbroken = self._unbroken(tool, cell.ranks, cell.dropout)
        run = self.place / "cut"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        cut = self._start(tool, run, cell.ranks, cell.dropout, 0, cut=MOMENTS[cell.moment], send=cell.signal)
        resumed = self._start(tool, run, cell.resumed_ranks, cell.dropout, 1)
        result: dict[str, Any] = {
            **asdict(cell),
            "statuses": cut.statuses,
            "hung": cut.hung,
            "resumed_statuses": resumed.statuses,
            "finished": set(resumed.statuses) == {0},
        }
        steps, again = compare.steps_of(cut.journal), compare.steps_of(resumed.journal)
        if not result["finished"]:
            why = resumed.last_line.replace(f"{run}/", "")[:200]
            return result | {"why": "hangs" if resumed.hung else why}
        expected = compare.steps_of(json.loads((unbroken / "steps.json").read_text()))
        curves, whole = (tool.read_curves(path / "run") for path in (run, unbroken))
        training = compare.gaps_and_doubles(curves.training, whole.training)
        validation = compare.gaps_and_doubles(curves.validation, whole.validation)
        elsewhere = self._unbroken(tool, cell.resumed_ranks, cell.dropout)
        got, weights, others = (torch.load(path / "final.pt", weights_only=True) for path in (run, unbroken, elsewhere))
        after = compare.resumed_after(steps, again)
        return result | {
            "resumed_after": after,
            "steps_lost": sum(step.step > after for step in steps),
            **asdict(compare.films_seen(compare.counted(steps, again), self.data.training, EPOCHS)),
            "steps_after": len(again),
            "steps_in_order": compare.steps_in_order(again, expected),
            "largest_difference": compare.largest_difference(got, weights),
            "unbroken_difference": compare.largest_difference(weights, others),
            "gaps": training[0] + validation[0],
            "doubles": training[1] + validation[1],
            "cpu_seconds_to_resume": _first_step(resumed)["cpu"] if again else None,
            "seconds_to_resume": _first_step(resumed)["time"] - resumed.began if again else None,
        }

    def _unbroken(self, tool: Tool, ranks: int, dropout: float) -> Path:
        run = self.place / f"unbroken-{TOOLS.index(tool)}-{ranks}-{dropout}"
        if not (run / "steps.json").is_file():
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir()
            whole = self._start(tool, run, ranks, dropout, 0)
            if set(whole.statuses) != {0}:
                raise SystemExit(f"{tool.name}, unbroken on {ranks} ranks: {whole.statuses}: {whole.last_line}")
            seen = compare.films_seen(compare.steps_of(whole.journal), self.data.training, EPOCHS)
            if seen.twice or seen.never:
                raise SystemExit(f"{tool.name}, unbroken on {ranks} ranks, does not see every film once: {seen}")
            (run / "steps.json").write_text(json.dumps(whole.journal))
        return run

    def _start(
        self, tool: Tool, run: Path, ranks: int, dropout: float, number: int, *, cut: str = "", send: str = ""
    ) -> Ended:
        command = tool.command(self.data, run / "run", ranks=ranks, dropout=dropout, resume=number > 0)
        if tool.environment not in self.zygotes:
            self.zygotes[tool.environment] = Zygote(self.pythons[tool.environment], PRELOADED[tool.environment])
        return start(self.zygotes[tool.environment], command, ranks, run / f"start-{number}.jsonl", cut=cut, send=send)


def _first_step(ended: Ended) -> dict[str, Any]:
    return next(line for line in ended.journal if line["event"] == "step" and line["rank"] == 0)


def main() -> int:
    """Measure the cells that are not yet in the results, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="directory of the results; WORK if left out")
    parser.add_argument("--work", type=Path, default=Path("build/resume"), help="directory of runs and environments")
    parser.add_argument("--venvs", type=Path, help="directory of the peers' environments; WORK/venvs if left out")
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=PATH", help="an existing interpreter")
    parser.add_argument("--only", default="", help="cells whose name has this text")
    options = parser.parse_args()
    given = {name: Path(path) for name, _, path in (word.partition("=") for word in options.python)}
    unknown = given.keys() - {tool.environment for tool in TOOLS}
    if unknown or not all(path.is_file() for path in given.values()):
        parser.error(f"--python takes {', '.join(sorted({t.environment for t in TOOLS}))}, = and an interpreter's file")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["GENRE_LIGHTNING_CACHE"] = str(work / "cache")
    os.environ["PYTHONPATH"] = str(PROJECT)
    out = options.out or work
    path = out / "resume_conformance.json"
    results = json.loads(path.read_text()) if path.is_file() else {"cells": [], "versions": {}}
    order = [asdict(cell) for cell in cells()]
    measured = [{name: row[name] for name in order[0]} for row in results["cells"]]
    open_cells = [cell for cell in cells() if options.only in str(cell) and asdict(cell) not in measured]
    needed = {tool.environment for tool in TOOLS if any(cell.tool == tool.name for cell in open_cells)}
    pythons = {name: interpreter(name, given, options.venvs or work / "venvs") for name in sorted(needed)}
    results["date"] = datetime.date.today().isoformat()
    results["machine"] = machine("cpu")
    results["versions"] |= {name: versions(name, python) for name, python in pythons.items()}
    bench = Bench(work, make_data(work), pythons)
    for cell in open_cells:
        row = bench.measure(cell)
        results["cells"].append(row)
        results["cells"].sort(key=lambda row: order.index({name: row[name] for name in order[0]}))
        print(f"{cell}: {present.verdict(row)}, {row.get('steps_lost', 'all')} steps lost", flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    present.write_results(results, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
