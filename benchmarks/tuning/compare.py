"""The tables of `study.py` and `overhead.py`: searches, kills and CPU seconds; winners against the defaults.

python benchmarks/tuning/compare.py runs/tuning_benchmark --overhead runs/overhead/overhead.json
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import machine

from genre_lightning.escapes import markdown_table
from genre_lightning.evaluation.bootstrap import bootstrap_samples, paired_p_value
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.files import write_text
from genre_lightning.metrics import policy_metrics, threshold_free_metrics
from genre_lightning.tuning.results import read_results
from genre_lightning.tuning.study import StudyDirectory

RESULTS = Path(__file__).resolve().parents[1] / "results"
METRICS = {"f1_micro": ("global", "f1_micro"), "map_macro": ("threshold_free", "map_macro")}
_RESAMPLES = 4000


def drawn_of(run, split):
    """Return the metrics of a run on the resampled films, and on all of them in the last place."""
    scored = ScoredSplit(Run(run).predictions(split).predictions, Run(run).decision)
    decided, known = {"global": scored.judged["global"]}, scored.known
    drawn = bootstrap_samples(scored.labels, scored.probabilities, decided, _RESAMPLES, known=known)
    on_all = {
        "global": policy_metrics(scored.labels, decided["global"], known),
        "threshold_free": threshold_free_metrics(scored.labels, scored.probabilities, known=known),
    }
    values = {name: np.append(drawn[place][key], on_all[place][key]) for name, (place, key) in METRICS.items()}
    return scored.predictions.ids.tolist(), values


def difference(first, second):
    """Return the mean difference of two sets of runs, its 95% interval and its p-value; paired by film."""
    one, other = (np.mean(runs, axis=0) for runs in (first, second))
    low, high = np.quantile((one - other)[:-1], [0.025, 0.975])
    return {
        "difference": float((one - other)[-1]), "interval": [float(low), float(high)],
        "p": paired_p_value(one[:-1], other[:-1]),
    }  # fmt: skip


def evaluated_only(groups, split):
    """Leave out the runs that are not evaluated on a split, and the groups that have none."""
    done = {name: [run for run in runs if Run(run).has(split)] for name, runs in groups.items()}
    return {name: runs for name, runs in done.items() if runs}


def finals(groups, split):
    """Compare groups of runs, each with its seeds, against the defaults."""
    drawn = {}
    ids = None
    for name, runs in groups.items():
        found = [drawn_of(run, split) for run in runs]
        ids = ids or found[0][0]
        assert all(of_run == ids for of_run, _ in found), "the runs have other films"
        drawn[name] = {metric: [values[metric] for _, values in found] for metric in METRICS}
    rows = {}
    for name, of_metric in drawn.items():
        rows[name] = {}
        for metric, runs in of_metric.items():
            seeds = [float(run[-1]) for run in runs]
            spread = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
            rows[name][metric] = {"seeds": seeds, "mean": float(np.mean(seeds)), "deviation": spread}
            if name != "defaults":
                rows[name][metric] |= difference(runs, drawn["defaults"][metric])
    between = {}
    if {"winner of tpe", "winner of random"} <= drawn.keys():
        winners = drawn["winner of tpe"], drawn["winner of random"]
        between = {metric: difference(winners[0][metric], winners[1][metric]) for metric in METRICS}
    return {"split": split, "films": len(ids), "rows": rows, "tpe_to_random": between}


def searches(work, names):
    processes = [json.loads(line) for line in (work / "processes.jsonl").read_text().splitlines()]
    rows = {}
    for name in names:
        study = StudyDirectory(work / name)
        found = read_results(study)
        own = [row for row in processes if row["part"] == name]
        best = found.ranked[0]
        trained = [trial.training_value for trial in found.trials if trial.training_value is not None]
        rows[name] = {
            "counts": found.counts, "epochs": sum(trial.epochs for trial in found.trials),
            "killed_processes": sum(row["status"] == -9 for row in own),
            "cpu_seconds": sum(row["cpu_seconds"] for row in own), "best": best.number, "options": best.options,
            "value": best.value, "interval": best.interval, "best_in_training": max(trained),
            "not_significantly_worse": [trial.number for trial in found.equals],
        }  # fmt: skip
    return rows


def kept_options(options):
    """Leave out the paths of files."""
    names = {name: Path(options[name]).name for name in ("films", "backbone")}
    return {name: names.get(name, value) for name, value in options.items() if name != "work"}


def text_of(results):
    options = results["options"]
    lines = [
        f"# benchmarks/tuning, {results['date']}", "",
        "{cores} cores of {processor}, shared with other work (load average {load_average} at the end), "
        "Python {python}, torch {torch}.".format(**results["machine"]), "",
        f"{int(options['max_films']):,} films of movies_metadata.csv, split {options['split']}; "
        f"{Path(options['backbone']).name} trained in full, {options['epochs']} epochs, "
        f"{options['max_tokens']} tokens, precision {options.get('precision', '32-true')}; space tune/distilbert, "
        f"{options['trials']} trials, ASHA, two workers of one thread each.", "",
    ]  # fmt: skip
    rows = []
    for name, row in results["searches"].items():
        counts = ", ".join(f"{count} {state}" for state, count in row["counts"].items())
        low, high = row["interval"]
        rows.append([
            name, counts, str(row["epochs"]), str(row["killed_processes"]), f"{row['cpu_seconds']:,.0f}",
            f"{row['value']:.3f} [{low:.3f}, {high:.3f}]", f"{row['best_in_training']:.3f}",
            str(len(row["not_significantly_worse"])),
        ])  # fmt: skip
    heads = ["search", "trials", "epochs", "processes killed", "CPU s", "best on validation", "best in training",
             "best and not worse"]  # fmt: skip
    lines += [markdown_table(heads, rows), ""]
    for name in results["searches"]:
        lines.append(f"Winner of {name}: " + ", ".join(
            f"{option} {value:.3g}" if isinstance(value, float) else f"{option} {value}"
            for option, value in results["searches"][name]["options"].items()))  # fmt: skip
        lines.append("")
    lines += [
        "## Winners and defaults", "",
        "Mean and standard deviation over seeds, of micro-F1 at one threshold and mAP; differences of the means with "
        "95% intervals, paired by film.", "",
    ]  # fmt: skip
    for place, found in results["finals"].items():
        if place == "all films":
            lines += ["## Winner of tpe and defaults on all films, 80% of them to train on", ""]
        rows = []
        for name, of_metric in found["rows"].items():
            cells = [f"{name}, seeds: {len(of_metric['f1_micro']['seeds'])}"]
            for metric in METRICS:
                row = of_metric[metric]
                spread = "" if row["deviation"] is None else f" ± {row['deviation']:.3f}"
                cells.append(f"{row['mean']:.3f}{spread}")
                if "p" in row:
                    cells.append(difference_text(row))
                else:
                    cells.append("")
            rows.append(cells)
        heads = [
            f"{found['films']:,} {found['split']} films",
            *(word for name in METRICS for word in (name, "to the defaults")),
        ]
        lines += [markdown_table(heads, rows), ""]
        for metric, row in found["tpe_to_random"].items():
            lines += [f"Winner of tpe to that of random, {metric}: {difference_text(row)}", ""]
    if "overhead" in results:
        lines += overhead_text(results["overhead"])
    return "\n".join(lines).rstrip() + "\n"


def difference_text(row):
    low, high = row["interval"]
    p = "p < 0.001" if row["p"] < 0.001 else f"p {row['p']:.3f}"
    return f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}], {p}"


def overhead_text(overhead):
    options = overhead["options"]
    later = overhead["later"]
    rows = [[name, f"{cpu:.2f}", f"{clock:.2f}"] for name, cpu, clock in later["rows"]]
    return [
        "## Overhead of a trial", "",
        f"{int(options['trials']) - 1} trials after the first in one process, {int(options['max_films']):,} films, "
        f"{options['epochs']} epoch, {options['max_tokens']} tokens: {later['overhead_cpu']:.1f} CPU s beyond "
        f"training, {later['fraction']:.1%} of it (first trial {overhead['first']['overhead_cpu']:.1f} CPU s, "
        f"{overhead['first']['fraction']:.1%}).", "",
        markdown_table(["part", "CPU s", "s by the clock"], rows), "",
    ]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--overhead", type=Path, help="overhead.json")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    work = options.work
    names = [name for name in ("tpe", "random") if (work / name / "study.json").is_file()]
    groups = {"defaults": sorted((work / "defaults").iterdir())}
    results = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine("cpu"),
        "options": kept_options(json.loads((work / "options.json").read_text())),
        "searches": searches(work, names), "finals": {},
    }  # fmt: skip
    for name in names:
        study = StudyDirectory(work / name)
        if study.choice.is_file():
            best = json.loads(study.choice.read_text())["trial"]
            groups[f"winner of {name}"] = [
                study.trial(best),
                *sorted((work / name / "finalists").glob(f"{best:04d}-*")),
            ]
    for split in ("validation", "test"):
        results["finals"][split] = finals(evaluated_only(groups, split), split)
    on_all = {name: sorted((work / "all" / name).glob("*")) for name in ("defaults", "winner")}
    if on_all := evaluated_only(on_all, "test"):
        results["finals"]["all films"] = finals(on_all, "test")
    if options.overhead:
        overhead = json.loads(options.overhead.read_text())
        results["overhead"] = overhead | {"options": kept_options(overhead["options"])}
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "tuning.json", json.dumps(results, indent=1) + "\n")
    write_text(options.out / "tuning.md", text_of(results))
    print(text_of(results), end="")


if __name__ == "__main__":
    main()
