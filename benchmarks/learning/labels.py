"""Measures self-training: what films without labels add to 10%, 30% and 100% of the labels.

    python benchmarks/learning/labels.py movies_metadata.csv ENCODER [--films 5000] [--seeds 3] [--rounds 3]

A fraction of the training films keeps its labels. The other training films, and the file's own
films without genres, get the genres that the model is sure of, by the cut-offs of `self_training` at its defaults; the
model of the next round is trained on both. Each seed draws other labels; the
validation and test films are the same for all, and validation labels are not counted.

The model is a linear layer over the frozen ENCODER (a folder in the format of transformers): its vectors are computed
once, so that one core is enough. The layer is trained to convergence, which leaves no effect of longer training. Its
L2 penalty is chosen on validation for each training. Results are written after each seed and fraction.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

sys.path.append(str(Path(__file__).parent.parent))

from machine import machine  # a script's own folder is all that Python looks in

from genre_lightning.config.continuation import SelfTrainingOptions
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.unlabelled import films_without_genres
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.decisions import fit_decision
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.learning.cutoffs import fit_cutoffs
from genre_lightning.metrics import average_precision, mean_defined

FOLDER = Path(__file__).parent.parent / "results"
FRACTIONS = (0.1, 0.3, 1.0)
PENALTIES = (3e-3, 3e-2, 3e-1)
METRICS = (("map_macro", "mAP"), ("f1_micro", "micro-F1"))
RESAMPLES = 500
SELF_TRAINING = SelfTrainingOptions()


def vectors_of(texts: list[str], encoder: Path, max_tokens: int) -> np.ndarray:
    """Return each text's mean last state, standardised, float32 (texts, width + 1): the last column is 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = np.ones((len(texts), model.config.hidden_size + 1), dtype=np.float32)
    for start in range(0, len(texts), 64):
        rows = order[start : start + 64]
        batch = tokenizer(
            [texts[row] for row in rows], truncation=True, max_length=max_tokens, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        found[rows, :-1] = ((states * mask).sum(1) / mask.sum(1)).numpy()
        if start % 1600 == 0:
            print(f"{start:,} of {len(texts):,} films", flush=True)
    spread = found[:, :-1].std(0)
    found[:, :-1] = (found[:, :-1] - found[:, :-1].mean(0)) / np.where(spread > 1e-6, spread, 1)  # some are constant
    return found


def train(vectors: np.ndarray, labels: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    """Fit the layer by L-BFGS; weights are of each film and genre, 0 for an unknown label."""
    x, y, w = (torch.from_numpy(np.ascontiguousarray(one, dtype=np.float32)) for one in (vectors, labels, weights))
    layer = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([layer], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(x @ layer, y, w, reduction="sum")
        value = each / len(x) + penalty / 2 * (layer[:-1] ** 2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return layer.detach().numpy()


class Films:
    """Vectors and labels of the splits, and the vectors of films without genres."""

    def __init__(self, options: argparse.Namespace) -> None:
        data = prepare_films(DataOptions(options.csv, max_films=options.films, split=[0.7, 0.1, 0.2]))
        nothing = films_without_genres(DataOptions(options.csv), data)
        self.genres = data.vocabulary.names
        rows = {name: data.rows[split.films] for name, split in data.splits.items()}
        texts = {name: data.films.strings("text", rows[name]) for name in rows}
        texts["nothing"] = nothing.films.strings("text", nothing.rows)
        every = vectors_of([text for part in texts.values() for text in part], options.encoder, options.max_tokens)
        places = np.cumsum([len(part) for part in texts.values()])[:-1]
        self.vectors = dict(zip(texts, np.split(every, places), strict=True))
        self.labels = {name: split.labels for name, split in data.splits.items()}

    def predictions(self, labels: np.ndarray, logits: np.ndarray) -> Predictions:
        """Return the logits of films beside their labels."""
        empty = [""] * len(labels)
        return Predictions(self.genres, np.arange(len(labels)), empty, empty, labels, logits)


def fitted(films: Films, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
    """Train with each penalty; return the layer with the best mAP on the validation films, and its decision."""
    vectors, labels = films.vectors["validation"], films.labels["validation"]
    layers = [train(x, y, weights, penalty) for penalty in PENALTIES]
    best = max(layers, key=lambda layer: float(mean_defined(average_precision(labels, vectors @ layer))))
    predictions = films.predictions(labels, (vectors @ best).astype(np.float32))
    return best, fit_decision(predictions, "validation", resamples=50)


def measured(films: Films, layer: Any, decision: Any) -> dict[str, np.ndarray]:
    """Return the metrics of the test films, and behind them those of their resamples."""
    labels = films.labels["test"]
    probabilities = decision.probabilities((films.vectors["test"] @ layer).astype(np.float32))
    decided = decision.decide(probabilities, SHIPPED_POLICY)
    drawn = bootstrap.bootstrap_samples(labels, probabilities, {SHIPPED_POLICY: decided}, RESAMPLES)
    once = np.ones((1, len(labels)), dtype=np.float32)
    exact = {
        **bootstrap.threshold_free_samples(labels, probabilities, once),
        **bootstrap.policy_samples(labels, decided, once),
    }
    samples = {**drawn["threshold_free"], **drawn[SHIPPED_POLICY]}
    return {name: np.concatenate([exact[name], samples[name]]) for name, _ in METRICS}


def chain(films: Films, fraction: float, seed: int, rounds: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """Run one teacher and its rounds; return a row for each, and their metrics on the resamples."""
    generator = np.random.default_rng([seed, 0x5E1F])
    order = generator.permutation(len(films.labels["train"]))
    kept, hidden = np.split(order, [round(fraction * len(order))])
    x, y = films.vectors["train"][kept], films.labels["train"][kept]
    own = np.ones(y.shape)
    candidates = np.concatenate([films.vectors["train"][hidden], films.vectors["nothing"]])
    truth = films.labels["train"][hidden]
    layer, decision = fitted(films, x, y, own)
    samples = [measured(films, layer, decision)]
    rows: list[dict[str, Any]] = [{"films": 0}]
    for _ in range(rounds):
        on_validation = decision.probabilities((films.vectors["validation"] @ layer).astype(np.float32))
        cutoffs = fit_cutoffs(
            on_validation, films.labels["validation"],
            precision=SELF_TRAINING.precision, negative_precision=SELF_TRAINING.negative_precision,
        )  # fmt: skip
        probabilities = decision.probabilities((candidates @ layer).astype(np.float32))
        positive, known = cutoffs.apply(probabilities)
        given = positive.any(axis=1)
        mean = (probabilities * positive)[given].sum(1) / positive[given].sum(1)
        weights = SELF_TRAINING.weight * mean[:, None] * known[given]
        right = positive[: len(hidden)] & truth
        layer, decision = fitted(
            films, np.concatenate([x, candidates[given]]), np.concatenate([y, positive[given]]),
            np.concatenate([own, weights]),
        )  # fmt: skip
        samples.append(measured(films, layer, decision))
        count = int(positive[: len(hidden)].sum())
        rows.append(
            {
                "films": int(given.sum()),
                "genres_given": int(np.isfinite(cutoffs.upper).sum()),
                "precision": float(right.sum() / count) if count else None,
            }
        )
    for number, (row, found) in enumerate(zip(rows, samples, strict=True)):
        row |= {"fraction": fraction, "seed": seed, "round": number, "labels": len(x)}
        row |= {name: float(found[name][0]) for name, _ in METRICS}
    return rows, samples


def compared(fraction: float, of_seeds: list[list[Any]]) -> list[dict[str, Any]]:
    """Return, for each round, the difference to the teacher: its mean over the seeds, with a paired 95% interval."""
    found = []
    for number in range(1, len(of_seeds[0])):
        row: dict[str, Any] = {"fraction": fraction, "round": number, "seeds": len(of_seeds)}
        for name, _ in METRICS:
            change = np.mean([samples[number][name] - samples[0][name] for samples in of_seeds], axis=0)
            low, high = np.nanpercentile(change[1:], (2.5, 97.5))
            row[name] = {"change": float(change[0]), "low": float(low), "high": float(high)}
        found.append(row)
    return found


def table(rows: list[dict[str, Any]], changes: list[dict[str, Any]]) -> str:
    """Return the result as a table in Markdown."""
    heads = ["labels", "round", "pseudo-labelled films", *(f"{title}, change [95%]" for _, title in METRICS)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---:|' * len(heads)}"]

    def mean(fraction: float, number: int, name: str) -> float:
        values = [row[name] for row in rows if row["fraction"] == fraction and row["round"] == number]
        return float(np.mean(values))

    for fraction in sorted({row["fraction"] for row in rows}):
        labels = next(row["labels"] for row in rows if row["fraction"] == fraction)
        of = [change for change in changes if change["fraction"] == fraction]
        cells = [f"{mean(fraction, 0, name):.3f}" for name, _ in METRICS]
        lines.append(f"| {labels:,} ({fraction:.0%}) | teacher | – | {' | '.join(cells)} |")
        for change in of:
            number = change["round"]
            cells = [
                f"{mean(fraction, number, name):.3f}, {change[name]['change']:+.3f} "
                f"[{change[name]['low']:+.3f}, {change[name]['high']:+.3f}]"
                for name, _ in METRICS
            ]
            lines.append(f"| | {number} | {mean(fraction, number, 'films'):,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark; write JSON and a table into benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("encoder", type=Path)
    for name, default in (("films", 5_000), ("max_tokens", 48), ("seeds", 3), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    started = time.process_time()
    films = Films(options)
    about = {
        "date": date.today().isoformat(),
        "file": options.csv.name,
        "encoder": options.encoder.name,
        **{name: len(vectors) for name, vectors in films.vectors.items()},
        **{name: getattr(options, name) for name in ("films", "max_tokens", "seeds", "rounds")},
        "self_training": {name: value for name, value in asdict(SELF_TRAINING).items() if value is not None},
        "machine": machine("cpu"),
    }
    rows: list[dict[str, Any]] = []
    samples: dict[float, list[Any]] = {fraction: [] for fraction in FRACTIONS}
    text = ""
    for seed in range(options.seeds):
        for fraction in FRACTIONS:
            more, found = chain(films, fraction, seed, options.rounds)
            rows += more
            samples[fraction].append(found)
            changes = [row for each, of_seeds in samples.items() if of_seeds for row in compared(each, of_seeds)]
            seconds = round(time.process_time() - started)
            content = {**about, "cpu_seconds": seconds, "changes": changes, "rows": rows}
            (options.out / "self_training.json").write_text(json.dumps(content, indent=1) + "\n")
            text = table(rows, changes)
            print(f"seed {seed}, {fraction:.0%} of the labels, {seconds:,} s of CPU\n{text}", flush=True)
    title = f"# benchmarks/learning/labels.py, {about['date']}\n\n"
    title += f"Means of {options.seeds} seeds; intervals of the paired bootstrap over {about['test']:,} test films.\n\n"
    (options.out / "self_training.md").write_text(title + text)


if __name__ == "__main__":
    main()
