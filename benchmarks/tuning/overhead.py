"""What a trial costs beyond its training: a study in this process, with the seconds of each part.

    python benchmarks/tuning/overhead.py FILM_FILE BACKBONE --work runs/overhead [--trials 4] [--max_films 1000]

Seconds of the CPU, of all threads, and of the clock: on a machine that does other work too, the clock shows that work.
A part has the time of what it calls, but for the parts that are listed themselves. The first trial is shown apart.
"""

import argparse
import functools
import json
import time
from contextlib import contextmanager
from pathlib import Path

from genre_lightning.__main__ import main as genre_lightning

TRAINING = "training, with its validations and checkpoints"
REST = "run directory, trainer, loggers and the rest"


class Parts:
    """Seconds of the CPU and of the clock, by trial and part."""

    def __init__(self):
        self.trials = []
        self._open = []

    def _now(self):
        return time.process_time(), time.monotonic()

    @contextmanager
    def part(self, name):
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self):
        """Give the time since the last call to the innermost part that is open."""
        now = self._now()
        if self._open:
            kept = self.trials[-1].setdefault(self._open[-1], [0.0, 0.0])
            for place in range(2):
                kept[place] += now[place] - self._last[place]
        self._last = now

    def watch(self, owner, name, part):
        function = getattr(owner, name)

        @functools.wraps(function)
        def watched(*given, **named):
            if not self.trials:
                return function(*given, **named)
            with self.part(part):
                return function(*given, **named)

        setattr(owner, name, watched)


def watch_all(parts):
    from lightning.pytorch import Trainer

    from genre_lightning.data.datamodule import MovieDataModule
    from genre_lightning.training import evaluate, fit
    from genre_lightning.tuning import trials, worker

    parts.watch(Trainer, "fit", TRAINING)
    parts.watch(trials, "trial_configuration", "configuration parsed")
    parts.watch(fit, "check_setup", "options checked")
    parts.watch(fit, "bind_model", "model built, weights loaded")
    parts.watch(MovieDataModule, "prepare", "films, splits and tokens")
    parts.watch(fit, "keep_tokenizer", "tokenizer kept")
    parts.watch(fit, "_restore_best", "best checkpoint restored")
    parts.watch(fit, "evaluate_run", "validation films: predictions and decision")
    parts.watch(evaluate, "write_evaluation", "validation films: metrics, intervals, files")
    parts.watch(trials, "fit_run", REST)
    parts.watch(worker, "train_trial", REST)
    parts.watch(worker, "_claim", "options sampled, trial claimed")
    do = worker._do

    def watched(*given):
        parts.trials.append({})
        with parts.part("value reported, memory freed"):
            return do(*given)

    worker._do = watched


def rows_of(parts, trials):
    names = list(dict.fromkeys(name for trial in parts.trials for name in trial))
    rows = []
    for name in names:
        seconds = [trial.get(name, [0.0, 0.0]) for trial in trials]
        rows.append([name, *(sum(column) / len(trials) for column in zip(*seconds, strict=True))])
    return sorted(rows, key=lambda row: -row[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="directory of the study, which is new")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--max_films", type=int, default=1000)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    space = options.work / "space.yaml"
    space.write_text("model.lr: {low: 1.0e-5, high: 3.0e-4, log: true}\nmodel.dropout: {low: 0.0, high: 0.3}\n")
    parts = Parts()
    watch_all(parts)
    words = [
        "tune", "--study", options.work / "study", "--space", space, "--trials", options.trials,
        "--config", "distilbert", "--model.backbone", options.backbone, "--data.csv", options.films,
        "--data.max_films", options.max_films, "--data.max_tokens", options.max_tokens,
        "--trainer.max_epochs", options.epochs, "--trainer.precision", options.precision,
        "--trainer.accelerator", "cpu",
    ]  # fmt: skip
    if genre_lightning([str(word) for word in words]) != 0:
        raise SystemExit("the study failed")
    results = {"options": {name: str(value) for name, value in vars(options).items()}}
    for name, trials in (("first", parts.trials[:1]), ("later", parts.trials[1:])):
        rows = rows_of(parts, trials)
        training = next(row for row in rows if row[0] == TRAINING)
        overhead = sum(row[1] for row in rows) - training[1]
        results[name] = {"rows": rows, "overhead_cpu": overhead, "fraction": overhead / training[1]}
        print(f"{name}: {overhead:.1f} CPU s beyond {training[1]:.1f} of training, {overhead / training[1]:.1%}")
        for part, cpu, clock in rows:
            print(f"  {part:<60} {cpu:8.2f} {clock:8.2f}")
    (options.work / "overhead.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
