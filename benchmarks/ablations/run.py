"""Run the experiments of the suites that have no result yet, and draw their tables.

    python benchmarks/ablations/run.py movies_metadata.csv --encoder all-MiniLM-L6-v2 --suite inputs

An experiment stands in `suites/*.yaml`, its results in `benchmarks/results/ablations/SUITE/EXPERIMENT-seed0.json`:
delete one to measure it again. Each run is a command of the framework in a process of its own, in the directory
`--work`; a run that is cut off is resumed by the next start. Joined files (`keywords.csv`, and `ratings.csv` or
`ratings_small.csv` with `links.csv`) are expected beside the movies file. Time is CPU time, so that other work on the
machine does not show.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from ablation_page import write_page
from experiments import Experiment, Suite, names, read_suite
from measured import FOLDER, measure, read_results, result_file

sys.path.append(str(Path(__file__).resolve().parents[1]))

from machine import machine  # a script's own folder is all that Python looks in

from genre_lightning.files import write_text
from genre_lightning.provenance import git_commit

COMMAND = [sys.executable, "-m", "genre_lightning"]


class Runner:
    """Runs experiments in a working directory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.csv = options.csv.resolve()
        self.work = options.work.resolve()
        self.models = {name: str(path.resolve()) for name in ("encoder", "decoder") if (path := getattr(options, name))}
        self.threads = options.threads

    def run(self, suite: Suite, experiment: Experiment, seed: int) -> dict[str, Any]:
        """Run an experiment, and those that it is made of; return its result.

        Raises:
            SystemExit: The command fails, or a file that it needs is missing.
        """
        about = {
            "experiment": experiment.name,
            **experiment.description(),
            "models": {name: Path(path).name for name, path in self.models.items()},
            "seed": seed,
            "date": date.today().isoformat(),
            "commit": git_commit(),
            "machine": machine("cpu") | {"threads": self.threads},
        }
        for other in (*experiment.members, *experiment.before):
            if not self.directory(suite, other, seed).is_dir():  # its result may come from another machine
                self.run(suite, suite[other], seed)
        if experiment.command == ("constant",):
            costs = {"cpu_seconds": 0, "wall_seconds": 0, "peak_gib": 0}
            return about | costs | measure(self.directory(suite, experiment.members[0], seed), constant=True)
        place = self.directory(suite, experiment.name, seed)
        place.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*experiment.command, "--run_dir", str(place), "--seed", str(seed)]
        if experiment.members:
            arguments += [str(self.directory(suite, member, seed)) for member in experiment.members]
        else:
            arguments += self.options(experiment, place)
        costs = self.start(experiment.name, arguments, place.with_name(f"{place.name}.log"))
        return about | costs | (measure(place) if experiment.evaluated else {})

    def start(self, name: str, arguments: list[str], log: Path) -> dict[str, float]:
        """Run a command in a process of its own; return its CPU and wall seconds, and its peak memory in GiB.

        Args:
            name: Name of the experiment.
            arguments: Arguments of `genre-lightning`.
            log: Takes the output.

        Raises:
            SystemExit: The command fails.
        """
        started = time.monotonic()
        with log.open("ab") as output:
            child = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=self.work,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise SystemExit(f"{name} failed: {' '.join(last)}\nits output: {log}")
        return {
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime),
            "wall_seconds": round(time.monotonic() - started),
            "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        }

    def directory(self, suite: Suite, name: str, seed: int) -> Path:
        """Return the run directory of an experiment."""
        return self.work / suite.name / f"{name}-seed{seed}"

    def options(self, experiment: Experiment, place: Path) -> list[str]:
        """Write what only a file can hold, and return the options of a command that trains.

        Args:
            experiment: The experiment.
            place: Its run directory.
        """
        config = place.with_name(f"{place.name}.yaml")  # the name may have dots
        config.write_text(yaml.safe_dump({"data": {"csv": str(self.csv), **experiment.data}}, sort_keys=False))
        for joined in experiment.data.get("join", []):
            self.provide(joined["file"])
        arguments = []
        for name, value in experiment.options.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if text in ("{encoder}", "{decoder}"):
                model = text.strip("{}")
                if model not in self.models:
                    raise SystemExit(f"{experiment.name} needs a model: give --{model}")
                text = self.models[model]
            for before in experiment.before:
                text = text.replace(f"{{{before}}}", str(place.with_name(place.name.replace(experiment.name, before))))
            arguments += [f"--{name}", text]
        return [*arguments, "--config", str(config)]

    def provide(self, file: str) -> None:
        """Make a joined file that is computed from others, once.

        Raises:
            SystemExit: The file, or one that it is made of, is missing.
        """
        beside = self.csv.parent
        if (self.work / file).exists() or (beside / file).exists():
            return
        ratings = next(
            (beside / name for name in ("ratings.csv", "ratings_small.csv") if (beside / name).exists()), None
        )
        if file != "ratings.parquet" or ratings is None:
            raise SystemExit(f"{beside / file} is missing: put it beside the movies file")
        command = ["features", "ratings", str(ratings), "--links", str(beside / "links.csv"), "--out", file]
        subprocess.run([*COMMAND, *command], cwd=self.work, check=True)


def main() -> None:
    """Run what is missing; write a result for each run, and the page of each suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "csv", type=Path, nargs="?", help="the movies file; without it, the pages are drawn from results"
    )
    parser.add_argument("--encoder", type=Path, help="directory of the encoder")
    parser.add_argument("--decoder", type=Path, help="directory of the decoder")
    parser.add_argument("--suite", action="append", choices=names(), help="default: all")
    parser.add_argument("--only", default="*", help="pattern of the experiments' names")
    parser.add_argument("--seeds", type=int, help="seeds of each at most; default: as the suite says")
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"), help="where the runs go")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of a run")
    options = parser.parse_args()
    for suite in map(read_suite, options.suite or names()):
        if options.csv:
            options.work.mkdir(parents=True, exist_ok=True)
            runner, found = Runner(options), read_results(suite)
            missing = [
                (experiment, seed)
                for seed in range(max(experiment.seeds for experiment in suite.experiments))
                for experiment in suite.experiments
                if seed < min(experiment.seeds, options.seeds or experiment.seeds)
                and fnmatch.fnmatch(experiment.name, options.only)
                and (experiment.name, seed) not in found
            ]
            for number, (experiment, seed) in enumerate(missing, start=1):
                print(f"{suite.name} {number}/{len(missing)}: {experiment.name}, seed {seed}", flush=True)
                result = runner.run(suite, experiment, seed)
                path = result_file(suite, experiment.name, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(result) + "\n")
                metrics = [f"{name} {value[0]:.4f}" for name, value in result.get("metrics", {}).items()]
                print("  " + ", ".join([*metrics, f"{result['cpu_seconds']:,} s of CPU"]), flush=True)
        for path in write_page(suite, FOLDER.parent):
            print(path)


if __name__ == "__main__":
    main()
