"""Simulates labelling: the films that `queue` chooses against films drawn at random.

    python benchmarks/learning/simulate.py movies_metadata.csv [--seeds 3] [--rounds 5] [--size 500] [--start 1000]

The films of the training split are taken for unlabelled. Both sides of a seed start from the same random films. In
each round a model is trained on what is labelled, and the next films get their true genres: the best ones by the scores
and clusters of `queue`, or random ones. The model is TF-IDF with logistic regression, its decision is fitted on
--validation films that both sides share, and mAP and micro-F1 are those of the whole test split. Results are written
after each curve.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))

from machine import machine  # a script's own folder is all that Python looks in

from genre_lightning.config.data import DataOptions
from genre_lightning.data.prepare import PreparedFilms, prepare_films
from genre_lightning.evaluation.decisions import fit_decision
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.learning.selection import POOL, best_films, diverse_films, score_films
from genre_lightning.metrics import policy_metrics, threshold_free_metrics
from genre_lightning.models.tfidf import TfidfLogisticRegression

FOLDER = Path(__file__).parent.parent / "results"
SIDES = ("queue", "random")
RARE = 0.3
"""Weight of rare genres: the default of `queue`."""


class Films:
    """Texts and labels of the splits."""

    def __init__(self, data: PreparedFilms, validation: int) -> None:
        self.genres = data.vocabulary.names
        self.texts, self.labels = {}, {}
        for name, split in data.splits.items():
            self.texts[name] = np.array(data.films.strings("text", data.rows[split.films]), dtype=object)
            self.labels[name] = split.labels
        kept = np.random.default_rng(0).permutation(len(self.texts["validation"]))[:validation]
        self.texts["validation"], self.labels["validation"] = (
            part["validation"][kept] for part in (self.texts, self.labels)
        )

    def predictions(self, split: str, logits: Any) -> Predictions:
        """Return the logits of a split's films beside their labels."""
        count = len(logits)
        empty = [""] * count
        return Predictions(self.genres, np.arange(count), empty, empty, self.labels[split], logits)


def judged(films: Films, labelled: Any, seed: int) -> tuple[Any, Any, dict[str, float]]:
    """Train on the labelled films; return model, decision, and the metrics of the test films."""
    model = TfidfLogisticRegression()
    model.fit(films.texts["train"][labelled].tolist(), films.labels["train"][labelled], films.genres, seed)
    logits = model.logits(films.texts["validation"].tolist())
    decision = fit_decision(films.predictions("validation", logits), "validation", resamples=50)
    probabilities = decision.probabilities(model.logits(films.texts["test"].tolist()))
    labels = films.labels["test"]
    whole = threshold_free_metrics(labels, probabilities)
    f1 = policy_metrics(labels, decision.decide(probabilities))["f1_micro"]
    return model, decision, {"map_macro": whole["map_macro"], "f1_micro": f1}


def chosen(films: Films, model: Any, decision: Any, labelled: Any, rest: Any, size: int, seed: int) -> Any:
    """Choose the next films among `rest` as `queue` does."""
    logits = model.logits(films.texts["train"][rest].tolist())
    scale, shift = decision.affine
    positives = films.labels["train"][labelled].sum(axis=0).astype(np.float64)
    scores = score_films(logits.astype(np.float64) * scale + shift, decision.thresholds("per_genre"), positives, RARE)
    pool = best_films(scores.score, POOL * size)
    vectors = decision.probabilities(logits[pool])
    return rest[pool[diverse_films(vectors, scores.score[pool], size, seed)[0]]]


def simulate(films: Films, side: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the metrics after each round."""
    order = np.random.default_rng([seed, 0xAC7]).permutation(len(films.texts["train"]))
    labelled, rows = order[: options.start], []
    for number in range(options.rounds + 1):
        started = time.monotonic()
        model, decision, found = judged(films, labelled, seed)
        seconds = round(time.monotonic() - started, 1)
        rows.append({"side": side, "seed": seed, "labels": len(labelled), "seconds": seconds, **found})
        print(f"{side} seed {seed}: {len(labelled):,} labels, mAP {found['map_macro']:.4f}", flush=True)
        if number < options.rounds:
            rest = order[~np.isin(order, labelled)]
            if side == "random":
                more = rest[: options.size]
            else:
                more = chosen(films, model, decision, labelled, rest, options.size, seed)
            labelled = np.concatenate([labelled, more])
    return rows


def means(rows: list[dict[str, Any]], side: str, metric: str) -> tuple[list[int], list[float], list[float]]:
    """Return the numbers of labels, and mean and standard deviation over the seeds of a side."""
    labels = sorted({row["labels"] for row in rows if row["side"] == side})
    values = [[row[metric] for row in rows if row["side"] == side and row["labels"] == count] for count in labels]
    spread = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
    return labels, [statistics.mean(each) for each in values], spread


def saved(rows: list[dict[str, Any]], metric: str) -> float | None:
    """Return the fraction of labels that the queue spares to reach the last mean of random films; None if never."""
    labels, random, _ = means(rows, "random", metric)
    _, queue, _ = means(rows, "queue", metric)
    for place in range(1, len(labels)):
        if queue[place] >= random[-1]:
            fraction = (random[-1] - queue[place - 1]) / (queue[place] - queue[place - 1])
            return 1 - (labels[place - 1] + fraction * (labels[place] - labels[place - 1])) / labels[-1]
    return None


def table(rows: list[dict[str, Any]]) -> str:
    """Return the curves as a table in Markdown, and what was spared."""
    lines = ["| labels | mAP, queue | mAP, random | micro-F1, queue | micro-F1, random |", "|---:|---:|---:|---:|---:|"]
    curves = [means(rows, side, metric) for metric in ("map_macro", "f1_micro") for side in SIDES]
    for place, labels in enumerate(curves[0][0]):
        cells = [f"{mean[place]:.3f} ± {spread[place]:.3f}" for _, mean, spread in curves]
        lines.append(f"| {labels:,} | {' | '.join(cells)} |")
    for metric, name in (("map_macro", "mAP"), ("f1_micro", "micro-F1")):
        found = saved(rows, metric)
        reached = "is not reached" if found is None else f"takes {found:.0%} fewer labels"
        lines.append(f"\nThe last {name} of random films {reached} with the queue.")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the curves of mAP as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for side in SIDES:
        labels, mean, spread = means(rows, side, "map_macro")
        axes.errorbar(labels, mean, spread, marker="o", capsize=3, label=side)
    axes.set(xlabel="labelled films", ylabel="mAP on test")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the simulation; write JSON, a table and a picture into benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    for name, default in (("seeds", 3), ("rounds", 5), ("size", 500), ("start", 1000), ("validation", 500)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    films = Films(prepare_films(DataOptions(options.csv)), options.validation)
    about = {
        "date": date.today().isoformat(),
        "file": options.csv.name,
        "pool": len(films.texts["train"]),
        "test": len(films.texts["test"]),
        **{name: getattr(options, name) for name in ("seeds", "rounds", "size", "start", "validation")},
        "machine": machine("cpu"),
    }
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for side in SIDES:
            rows += simulate(films, side, seed, options)
            content = json.dumps({**about, "rows": rows}, indent=1) + "\n"
            (options.out / "active_learning.json").write_text(content)
    title = f"# benchmarks/learning/simulate.py, {about['date']}\n\nThe mean and standard deviation of the seeds.\n\n"
    (options.out / "active_learning.md").write_text(title + table(rows))
    draw(rows, options.out / "active_learning.png")
    print(table(rows))


if __name__ == "__main__":
    main()
