"""Does a study beat random search and the defaults, and does it survive kills? Run it, and run it again to resume:

    python benchmarks/tuning/study.py FILM_FILE BACKBONE --work runs/tuning_benchmark

In turn: a study with TPE and ASHA on two workers, both of which are killed twice by SIGKILL; its winner and the
defaults with three seeds, evaluated on the test films; with --all_films both of them on all films of the file; and
random search with the same number of trials and the same pruning, and its winner with three seeds. Two processes run
at the same time, each of one thread. processes.jsonl has the CPU seconds of every process, even of one that was killed.
`compare.py` makes the tables.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from genre_lightning.tuning.study import StudyDirectory

WORKERS = 2
SEEDS = 3
SEARCHES = {"tpe": 2, "random": 0}
"""Samplers, and how often the workers of each are killed."""
_POLL_SECONDS = 0.5
_AFTER_START_SECONDS = 20
"""Into a trial, so that a kill loses some of its steps."""


def common(options):
    """Return the options of `fit` that all runs have."""
    return [
        "--config", "distilbert", "--model.backbone", options.backbone, "--data.csv", options.films,
        "--data.max_films", options.max_films, "--data.split", options.split, "--data.max_tokens", options.max_tokens,
        "--trainer.max_epochs", options.epochs, "--trainer.precision", options.precision,
        "--trainer.accelerator", "cpu", "--data.num_workers", 0,
    ]  # fmt: skip


class Processes:
    """Commands of genre-lightning as processes of one thread, whose CPU seconds are kept."""

    def __init__(self, work):
        self.work = work
        self.file = work / "processes.jsonl"

    def start(self, part, *words):
        command = [sys.executable, "-m", "genre_lightning", *map(str, words)]
        with (self.work / f"{part}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
            )
        return part, process, time.time()

    def end(self, started):
        """Wait for a process, and keep what it has used."""
        part, process, begun = started
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        row = {
            "part": part, "status": process.returncode, "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "seconds": round(time.time() - begun, 1), "ended": time.strftime("%Y-%m-%d %H:%M"),
        }  # fmt: skip
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return process.returncode

    def run(self, part, *words):
        if self.end(self.start(part, *words)) != 0:
            raise SystemExit(f"{part} failed: see {self.work / f'{part}.log'}")

    def run_all(self, commands):
        """Run pairs of a part and its words, as many at a time as a search has workers."""
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(lambda command: self.run(command[0], *command[1]), commands))

    def kills(self, part):
        if not self.file.is_file():
            return 0
        rows = [json.loads(line) for line in self.file.read_text().splitlines()]
        return sum(row["part"] == part and row["status"] == -signal.SIGKILL for row in rows) // WORKERS


def search(processes, options, sampler):
    """Run a study to its end, and kill all of its workers on the way."""
    kills = SEARCHES[sampler]
    study = processes.work / sampler
    words = ["tune", "--study", study, "--space", "tune/distilbert", "--trials", options.trials, "--pruning", "asha",
             "--sampler", sampler, *common(options)]  # fmt: skip
    while True:
        done = processes.kills(sampler)
        kill_at = options.trials * (done + 1) // (kills + 1) if done < kills else None
        workers = [processes.start(sampler, *words)]
        while not (study / "study.json").is_file() and alive(workers):
            time.sleep(_POLL_SECONDS)
        workers += [processes.start(sampler, "tune", "--study", study, "--worker") for _ in range(WORKERS - 1)]
        if kill_at is not None:
            while len(list(study.glob("trials/*/config.yaml"))) < kill_at and alive(workers):
                time.sleep(_POLL_SECONDS)
            time.sleep(_AFTER_START_SECONDS)
            for _, process, _ in workers:
                os.kill(process.pid, signal.SIGKILL)
        statuses = [processes.end(worker) for worker in workers]
        if -signal.SIGKILL not in statuses:  # a small study may end before its kill
            if any(statuses):
                raise SystemExit(f"a worker of {study} failed: see {processes.work / f'{sampler}.log'}")
            return


def alive(workers):
    # as Popen.poll, which would leave nothing for os.wait4 to count
    return all(os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
               for _, process, _ in workers)  # fmt: skip


def repeated(processes, sampler):
    """Return the command that trains the winner of a search with other seeds, too."""
    study = processes.work / sampler
    return f"winner of {sampler}", ["tune", "--study", study, "--finish", "--finalists", 1, "--seeds", SEEDS]


def evaluations(processes, sampler):
    """Return the commands that evaluate each seed of a winner on the test films."""
    runs = sorted((processes.work / sampler / "finalists").iterdir())
    return [(f"winner of {sampler}", ["fit", "--config", run / "config.yaml", "--run_dir", run]) for run in runs]


def defaults(processes, options, place, *more):
    """Return the commands that train the defaults with each seed."""
    return [
        ("defaults", ["fit", "--run_dir", processes.work / place / f"seed-{seed}", "--seed", seed,
                      *common(options), *more])
        for seed in range(SEEDS)
    ]  # fmt: skip


def on_all_films(processes, options):
    """Return the commands that train the winner of the study and the defaults on all films, by the usual split."""
    every = ["--data.max_films", "null", "--data.split", "[0.8,0.1,0.1]"]
    chosen = StudyDirectory(processes.work / "tpe")
    config = chosen.trial(json.loads(chosen.choice.read_text())["trial"]) / "config.yaml"
    winner = [
        ("winner on all films", ["fit", "--config", config, "--seed", seed, *every,
                                 "--run_dir", processes.work / "all" / "winner" / f"seed-{seed}"])
        for seed in range(SEEDS)
    ]  # fmt: skip
    return [*winner, *defaults(processes, options, "all/defaults", *every)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max_films", type=int, default=900)
    parser.add_argument("--split", default="[0.45,0.2,0.35]", help="few films to train on, many to compare on")
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--all_films", action="store_true", help="compare the winner on all films, too")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    options.films, options.backbone = options.films.absolute(), options.backbone.absolute()
    (work / "options.json").write_text(json.dumps({name: str(value) for name, value in vars(options).items()}))
    processes = Processes(work)
    tpe, random = SEARCHES
    search(processes, options, tpe)
    processes.run_all([repeated(processes, tpe), *defaults(processes, options, "defaults")])
    processes.run_all(evaluations(processes, tpe))
    if options.all_films:
        processes.run_all(on_all_films(processes, options))
    search(processes, options, random)
    processes.run_all([repeated(processes, random)])
    processes.run_all(evaluations(processes, random))


if __name__ == "__main__":
    main()
