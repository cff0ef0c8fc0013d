"""Times and memory of auditing, splitting, tokenising, planning and resuming on files of ever more films.

    MOVIES_CSV=movies_metadata.csv python benchmarks/scale.py TOKENIZER FOLDER [--rows 45466 450000 4500000]
    KEYWORDS_CSV=keywords.csv ... --inputs      (a joined file, and tags, categories, dates and numbers as inputs)

The files are made in FOLDER from the rows of the real one, repeated under new ids and with a word of their own in each
overview, so that no film is dropped as another's copy. Every stage runs in a process of its own, with what the stages
before it have left in the cache; its time is without imports, its memory is the process's largest resident set, imports
and mapped files included. TOKENIZER is a model's directory, or "wordpiece" for a vocabulary trained on the films.
"""

import argparse
import csv
import datetime
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from machine import processor

from genre_lightning.files import write_json, write_text

ROWS = (45_466, 450_000, 4_500_000)
STAGES = ("audit", "split", "tokenise", "plan", "resume")
STAGES_WITH_INPUTS = ("audit", "split", "inputs")
FEATURES = [
    {"column": "keywords", "kind": "tags", "min_films": 3, "max_values": 5000},
    {"column": "production_companies", "kind": "tags", "max_values": 2000},
    {"column": "original_language", "kind": "category"},
    {"column": "release_date", "kind": "date"},
    {"column": "runtime", "kind": "number", "zero_is_missing": True},
]
BOUNDS = {"seconds": {"plan": 5.0, "resume": 1.0}, "peak_gib": 2.0}
"""Of the largest file."""
RESULTS = Path(__file__).parent / "results"
BATCH, BUDGET, SEED = 32, 1024, 0


def make_file(real, target, rows):
    """Write n rows: the real ones as they are, then again and again with another id, and overview if they have one."""
    csv.field_size_limit(2**26)
    with real.open(newline="", encoding="utf-8") as source, target.open("w", newline="", encoding="utf-8") as file:
        reader, writer = csv.reader(source), csv.writer(file)
        header, *films = reader
        writer.writerow(header)
        film_id, overview = header.index("id"), header.index("overview") if "overview" in header else len(header)
        for number in range(rows):
            copy, place = divmod(number, len(films))
            row = list(films[place])
            if copy and row[film_id].isdecimal():
                row[film_id] = str(int(row[film_id]) + copy * 10**7)
                if len(row) > overview and len(row[overview]) > 40:
                    row[overview] += f" Part {copy}."
            writer.writerow(row)


def measure(stage, file, tokenizer, cache, keywords):
    """Return the seconds of a stage, in this process; with a file of keywords, with inputs."""
    from genre_lightning.data.datamodule import MovieDataModule
    from genre_lightning.data.films import load_films
    from genre_lightning.data.steps import StepSampler, micro_batches_per_step
    from genre_lightning.progress import file_progress

    more = {"join": [{"file": keywords}], "features": FEATURES} if keywords else {}
    data = MovieDataModule(file, tokenizer=tokenizer, cache_dir=cache, seed=SEED, **more)
    if stage == "audit":
        started = time.perf_counter()
        films = load_films(data.options.source, data.options.cache, file_progress)
        return {"seconds": time.perf_counter() - started, "films": len(films)}
    if stage == "split":
        load_films(data.options.source, data.options.cache)
        started = time.perf_counter()
        splits = data.prepare_films().splits
        return {"seconds": time.perf_counter() - started, "split_sha256": splits["train"].sha256}
    if stage == "inputs":
        prepared = data.prepare_films()
        started = time.perf_counter()
        names = sum(len(one.numbers) for one in prepared.encoded.inputs if one.fitted.is_named)
        return {"seconds": time.perf_counter() - started, "names": names}
    if stage == "tokenise":
        data.prepare_films()
        started = time.perf_counter()
        tokens = data.prepare().tokens
        return {"seconds": time.perf_counter() - started, "tokens": int(tokens.lengths.sum(dtype="int64"))}
    lengths = data.dataset("train").lengths
    started = time.perf_counter()
    micro_batches = micro_batches_per_step(
        lengths, global_batch_size=BATCH, budget=BUDGET, world_size=1, seed=SEED, epochs=1
    )
    sampler = StepSampler(lengths, global_batch_size=BATCH, micro_batches=micro_batches, seed=SEED)
    if stage == "resume":
        started = time.perf_counter()
        sampler.load_state_dict({"epoch": 0, "step": sampler.steps // 2})
    next(iter(sampler))
    return {"seconds": time.perf_counter() - started, "steps": sampler.steps, "micro_batches": micro_batches}


def measure_apart(stage, file, tokenizer, cache, keywords):
    """Run a stage in a process of its own."""
    command = [sys.executable, __file__, str(tokenizer), str(cache), "--stage", stage, "--file", str(file)]
    command += ["--keywords", str(keywords)] if keywords else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{cores} core(s) of {processor()}, {memory:.0f} GiB of memory, load average {load:.1f} at the start"


def table(results, stages_run):
    lines = ["| rows | films | " + " | ".join(stages_run) + " |", "|---:|---:|" + "---:|" * len(stages_run)]
    for rows, stages in results.items():
        cells = [f"{s['seconds']:,.2f} s, {s['peak_gib']:.2f} GiB" for s in map(stages.get, stages_run) if s]
        lines.append(f"| {int(rows):,} | {stages['audit']['films']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--inputs", action="store_true", help="with KEYWORDS_CSV joined, and inputs of the head")
    parser.add_argument("--stage", choices={*STAGES, *STAGES_WITH_INPUTS}, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keywords", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        found = measure(options.stage, options.file, options.tokenizer, options.folder, options.keywords)
        # kilobytes on Linux
        found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found))
        return
    real, stages = Path(os.environ["MOVIES_CSV"]), STAGES_WITH_INPUTS if options.inputs else STAGES
    options.folder.mkdir(parents=True, exist_ok=True)
    here, results = machine(), {}
    for rows in options.rows:
        file = options.folder / f"movies_{rows}.csv"
        make_file(real, file, rows)
        keywords = None
        if options.inputs:
            keywords = options.folder / f"keywords_{rows}.csv"
            make_file(Path(os.environ["KEYWORDS_CSV"]), keywords, rows)
        results[str(rows)] = {"file_gib": file.stat().st_size / 2**30}
        cache = options.folder / f"cache_{rows}"
        for stage in stages:
            results[str(rows)][stage] = measure_apart(stage, file, options.tokenizer, cache, keywords)
            print(rows, stage, results[str(rows)][stage], file=sys.stderr, flush=True)
        file.unlink()
        if keywords:
            keywords.unlink()
        report(here, results, stages, options.out / ("scale_inputs" if options.inputs else "scale"))


def report(here, results, stages, stem):
    """Write what has been measured so far: the largest file takes long."""
    largest = results[max(results, key=int)]
    missed = [s for s, bound in BOUNDS["seconds"].items() if s in stages and largest[s]["seconds"] > bound]
    missed += [f"memory of {s}" for s in stages if largest[s]["peak_gib"] > BOUNDS["peak_gib"]]
    today = datetime.date.today().isoformat()
    text = f"# benchmarks/scale.py, {today}\n\n{here}.\n\n{table(results, stages)}\n\n"
    text += f"Missed: {', '.join(missed)}.\n" if missed else "Every bound is kept.\n"
    print(text, flush=True)
    write_text(stem.with_suffix(".md"), text)
    write_json(stem.with_suffix(".json"), {"date": today, "machine": here, "rows": results, "missed": missed})


if __name__ == "__main__":
    main()
