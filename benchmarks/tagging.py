"""Times `tag` on one text and `predict` on many films, beside a loop over sorted batches as one would write it by hand.

    python benchmarks/tagging.py RUN FILM_FILE [--films 20000] [--rounds 3]

RUN is a run of an encoder with mean pooling. The loop and `predict` take turns, and the best round of each counts, so
that other work on the machine weighs on both alike. `predict` is a process of its own: it keeps freed memory, which
the loop must not gain from. What it needs on a file of one film, which is loading, is taken off.
"""

import argparse
import copy
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from genre_lightning import Tagger

TOKENS = 4096
"""Of a batch of the loop: what an evaluation on a CPU takes."""
TEXTS = 300


def overviews(path, films):
    with path.open(newline="", encoding="utf-8") as file:
        texts = [row["overview"] for row in csv.DictReader(file) if len(row["overview"]) > 60]
    return texts[:films]


@torch.inference_mode()
def by_hand(scorer, model, texts):
    """Tag texts sorted by length and padded to the longest of their batch; return seconds and log-odds."""
    started = time.perf_counter()
    tokenizer = scorer.tokenizer
    rows = tokenizer(texts, truncation=True, max_length=scorer.max_tokens)["input_ids"]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    logits = torch.empty(len(rows), len(scorer.decision.genres))
    start = 0
    while start < len(order):
        batch = order[start : start + max(TOKENS // len(rows[order[start]]), 1)]
        tokens = tokenizer.pad({"input_ids": [rows[row] for row in batch]}, return_tensors="pt")
        mask = tokens["attention_mask"]
        with torch.autocast("cpu", torch.bfloat16, enabled=scorer.precision == "bf16-mixed"):
            states = model.backbone(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        mean = (states.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        logits[batch] = model.head(mean)
        start += len(batch)
    return time.perf_counter() - started, logits.numpy()


def predict(run, texts, folder):
    """Return the seconds of the command on a file of these texts."""
    films, out = folder / "films.csv", folder / "tagged.parquet"
    with films.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "overview"])
        writer.writerows(enumerate(texts))
    words = [sys.executable, "-m", "genre_lightning", "predict", run, "--data.csv", films, "--out", out]
    started = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--films", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = overviews(options.file, options.films)
    started = time.perf_counter()
    tagger = Tagger(options.run, device="cpu")
    loading = time.perf_counter() - started
    seconds = []
    for text in texts[: TEXTS + 20]:
        started = time.perf_counter()
        tagger(text)
        seconds.append(time.perf_counter() - started)
    middle, high = np.percentile(seconds[20:], [50, 95]) * 1000
    load, precision = os.getloadavg()[0], tagger.scorer.precision
    print(f"threads {torch.get_num_threads()}, load average {load:.1f}, precision {precision}")
    print(f"one text, of {len(seconds) - 20}: p50 {middle:.1f} ms, p95 {high:.1f} ms (loading {loading:.1f} s)")
    hand, ours = [], []
    plain = copy.deepcopy(
        tagger.scorer.model
    ).float()  # the scorer's weights are cast once, which the loop leaves to autocast
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.rounds):
            hand.append(by_hand(tagger.scorer, plain, texts)[0])
            ours.append(predict(options.run, texts, Path(name)) - predict(options.run, texts[:1], Path(name)))
    loop, command = len(texts) / min(hand), len(texts) / min(ours)
    print(f"{len(texts):,} films: by hand {loop:.1f} a second, predict {command:.1f}, ratio {command / loop:.2f}")


if __name__ == "__main__":
    main()
