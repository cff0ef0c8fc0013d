"""Times the fit of a decision and the bootstrap: python benchmarks/decisions.py [films] [genres]."""

from __future__ import annotations

import sys
import time

import numpy as np

from genre_lightning.evaluation.decisions import fit_decision
from genre_lightning.evaluation.evaluate import evaluate
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.evaluation.scored import ScoredSplit


def main() -> None:
    """Print seconds of this process on made-up predictions."""
    films, genres = (int(word) for word in [*sys.argv[1:], "40000", "20"][:2])
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, (films, genres)).astype(np.float32)
    labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    names = [""] * films
    made = Predictions(tuple(f"g{i}" for i in range(genres)), np.arange(films), names, names, labels, logits)
    started = time.perf_counter()
    decision = fit_decision(made, "validation")
    print(f"decision of {films:,} films x {genres} genres: {time.perf_counter() - started:.2f} s")
    started = time.perf_counter()
    evaluate(ScoredSplit(made, decision))
    print(f"evaluation with 1,000 bootstrap resamples: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
