"""Times the commands from their start: help, a mistake, and the parts of the way to a training's first step.

    python benchmarks/start_up.py FILM_FILE BACKBONE [--starts 5]

BACKBONE is a model's directory. Every start is a process of its own; the median of the starts is shown. Files that a
start reads are in the system's memory after the first one. Cold is a start without films and tokens in the cache.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import processor

from genre_lightning.files import write_text

RESULTS = Path(__file__).parent / "results"
HELP = ("--help", "fit --help", "predict --help", "data inspect --help", "baseline tfidf_nb --help", "tag --help")
HELP_BOUND, MISTAKE_BOUND = 0.5, 2.0
"""Seconds."""


def watch_start(words):
    """Run a fit in this process up to the end of its first step, and print when each part was done for once."""
    started = time.time() - float(os.environ["STARTED"])
    from genre_lightning.commands.checked import parse_checked

    done = {"Python": started}

    def note(part):
        done.setdefault(part, time.time() - float(os.environ["STARTED"]))

    def noting(owner, name, part):
        function = getattr(owner, name)

        def noted(*given, **named):
            result = function(*given, **named)
            note(part)
            return result

        setattr(owner, name, noted)

    parse_checked("fit", words, Path("runs/default"))
    note("options, without torch")
    from genre_lightning.compat import import_lightning

    import_lightning()
    from lightning.pytorch.callbacks import Callback

    from genre_lightning.commands.fit import fit
    from genre_lightning.data import datamodule, prepare
    from genre_lightning.models.base import GenreClassifier
    from genre_lightning.training import fit as run

    note("import of torch, Lightning and transformers")

    class Watch(Callback):
        def on_train_batch_end(self, trainer, *rest):
            if trainer.global_step == 1:
                note("first step")
                print(json.dumps(done), flush=True)
                os._exit(0)  # nothing after the first step is measured

    def watched(setup, make=run.build_trainer):
        trainer, checkpoints = make(setup)
        trainer.callbacks.append(Watch())
        note("trainer")
        return trainer, checkpoints

    run.build_trainer = watched
    noting(run, "check_setup", "options and backbone, with them")
    noting(prepare, "load_films", "films read and audited")
    noting(datamodule.MovieDataModule, "prepare_films", "films split")
    noting(datamodule.MovieDataModule, "prepare", "films tokenised")
    noting(datamodule.MovieDataModule, "setup", "epochs planned")
    noting(GenreClassifier, "configure_model", "model built")
    fit(words)


def seconds_of(words):
    """Return the seconds of a command, whatever its exit status."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "genre_lightning", *words], capture_output=True, check=False)
    return time.perf_counter() - started


def parts_of(words):
    """Return the seconds of each part of a start."""
    command = [sys.executable, __file__, "--watch", *words]
    environment = {**os.environ, "STARTED": str(time.time())}
    lines = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    done = sorted(json.loads(lines[-1]).items(), key=lambda item: item[1])
    parts = {name: at - before for (name, at), (_, before) in zip(done, [("", 0.0), *done], strict=False)}
    return {**parts, "from the command to the first step": done[-1][1]}


def parts_of_starts(file, backbone, starts, folder, *, cold):
    """Return the median seconds of each part over several starts."""
    found = []
    for start in range(starts + (not cold)):
        cache = folder / (f"cache_{start}" if cold else "cache")
        words = ["--data.csv", file, "--model.backbone", backbone, "--data.cache_dir", cache]
        parts = parts_of([*map(str, words), "--run_dir", str(folder / f"run_{cold}_{start}")])
        if cold or start:
            found.append(parts)
    return {name: statistics.median(parts[name] for parts in found) for name in found[0]}


def machine():
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{cores} core(s) of {processor()}, load average {load:.1f} at the start, Python {platform.python_version()}"


def main():
    if sys.argv[1:2] == ["--watch"]:
        watch_start(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    here = machine()
    file, backbone = options.file.absolute(), options.backbone.absolute()
    commands = {words: words.split() for words in HELP}
    commands |= {
        "a mistake: unknown option": ["fit", "--data.csv", str(file), "--data.max_tokns", "9"],
        "a mistake: wrong type": ["fit", "--data.csv", str(file), "--trainer.max_epochs", "many"],
        "a mistake: missing file": ["fit", "--data.csv", "nosuch.csv"],
        "a mistake: impossible value": ["fit", "--data.csv", str(file), "--model.lr", "-1"],
        "a mistake: no such backbone": ["fit", "--data.csv", str(file), "--model.backbone", "./nosuch"],
    }
    lines = ["| command | median | least | bound |", "|---|---:|---:|---:|"]
    for name, words in commands.items():
        seconds = [seconds_of(words) for _ in range(options.starts)]
        bound = MISTAKE_BOUND if name.startswith("a mistake") else HELP_BOUND
        lines.append(f"| {name} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} s | {bound:.1f} s |")
    with tempfile.TemporaryDirectory() as name:
        cold = parts_of_starts(file, backbone, options.starts, Path(name), cold=True)
        cached = parts_of_starts(file, backbone, options.starts, Path(name), cold=False)
    lines += ["", "| part of a `fit` | cold | cached |", "|---|---:|---:|"]
    lines += [f"| {part} | {cold[part]:.2f} s | {cached[part]:.2f} s |" for part in cold]
    title = f"# benchmarks/start_up.py, {datetime.date.today().isoformat()}"
    shape = f"Medians of {options.starts} starts; {file.name}, {file.stat().st_size / 2**20:.0f} MiB, {backbone.name}."
    text = "\n".join([title, "", f"{here}. {shape}", "", *lines, ""])
    print(text)
    write_text(options.out / "start_up.md", text)


if __name__ == "__main__":
    main()
