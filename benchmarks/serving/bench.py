"""Latency and throughput of `genre-lightning serve` beside a FastAPI wrapper around transformers.pipeline.

    python benchmarks/serving/bench.py RUN EXPORTED [--rounds 3] [--requests 600] [--seconds 30] [--out FOLDER]

RUN is a run of an encoder with `model.pooling: cls`, for which transformers has a class, and EXPORTED what
`genre-lightning export RUN EXPORTED` wrote. Both servers run on this machine, with the same texts, and one of them is
idle while the other answers: in each round, for each number of clients, first the service, then the wrapper. The bare
forward is the model's forward pass of one text in this process, tokenised already; it is timed in each round. Writes
serving.json and serving.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from client import Load, Request, load, percentile  # noqa: E402
from machine import machine  # noqa: E402
from servers import free_port, running  # noqa: E402

from genre_lightning.evaluation.runs import Run  # noqa: E402
from genre_lightning.inference.model_scorer import ModelScorer  # noqa: E402
from genre_lightning.inference.tagger import Tagger  # noqa: E402

CLIENTS = (1, 8, 32)
SIDES = ("serve", "wrapper")
LATENCY_AIM = 1.3
"""p50 of one client over the bare forward, at most."""
THROUGHPUT_AIM = 3.0
"""Requests a second over the wrapper's, at 32 clients, at least."""
_BARE_TEXTS = 100


class Forward:
    """The model of a run in this process."""

    def __init__(self, run: Path) -> None:
        self.tagger = Tagger(run, "cpu")
        assert isinstance(self.tagger.scorer, ModelScorer)
        self._began = 0.0
        self._milliseconds: list[float] = []
        self.tagger.scorer.model.register_forward_pre_hook(self._begin)
        self.tagger.scorer.model.register_forward_hook(self._end)

    def _begin(self, *arguments: object) -> None:
        self._began = time.perf_counter()

    def _end(self, *arguments: object) -> None:
        self._milliseconds.append(1000 * (time.perf_counter() - self._began))

    def milliseconds(self, texts: list[str]) -> list[float]:
        """Return the milliseconds of the forward pass of each text."""
        self._milliseconds = []
        for text in texts:
            self.tagger(text)
        return self._milliseconds


def summary(loads: list[Load]) -> dict[str, Any]:
    """Summarise the rounds of a side with a number of clients."""
    seconds = [one for found in loads for one in found.seconds]
    outcomes = sum((found.outcomes for found in loads), Counter())
    return {
        **{f"p{p}_ms": round(1000 * percentile(seconds, p), 1) for p in (50, 95, 99)},
        "requests_per_second": round(len(seconds) / sum(found.wall for found in loads), 1),
        "rounds": [
            {"p50_ms": round(1000 * one.percentile(50), 1), "requests_per_second": round(one.rate, 1)} for one in loads
        ],
        "outcomes": dict(outcomes),
    }


def ratios(sides: dict[str, dict[int, list[Load]]], bare: list[list[float]]) -> dict[str, Any]:
    """Compare the sides within each round; the ratio is the median over the rounds."""
    latency = [
        1000 * found.percentile(50) / percentile(milliseconds, 50)
        for found, milliseconds in zip(sides["serve"][1], bare, strict=True)
    ]
    throughput = {
        clients: [
            a.rate / b.rate if b.rate else float("inf")
            for a, b in zip(sides["serve"][clients], sides["wrapper"][clients], strict=True)
        ]
        for clients in CLIENTS
    }
    return {
        "latency_over_forward": {"ratio": round(statistics.median(latency), 2), "rounds": rounded(latency)},
        "throughput_over_wrapper": {
            str(clients): {"ratio": round(statistics.median(values), 2), "rounds": rounded(values)}
            for clients, values in throughput.items()
        },
    }


def rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


def page(result: dict[str, Any]) -> str:
    """Write the results for people."""
    where, found = result["machine"], result["ratios"]
    loads = ", ".join(f"{one:.1f}" for one in result["load_averages"])
    lines = [
        f"# benchmarks/serving/bench.py, {result['date']}",
        "",
        f"{where['cores']} cores of {where['processor']}, Python {where['python']}, torch {where['torch']}; load "
        f"average at the start and after each round: {loads}. {result['rounds']} rounds of at most "
        f"{result['requests']} requests or {result['seconds']:g} s; {result['texts']} texts of the test split, "
        f"{result['tokens_per_text']:.0f} tokens on average.",
        "",
        "| clients | side | p50 | p95 | p99 | requests/s | serve / wrapper |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for clients in map(str, CLIENTS):
        for side in SIDES:
            row = result[side][clients]
            ratio = f"{found['throughput_over_wrapper'][clients]['ratio']:.2f}" if side == "serve" else ""
            times = " | ".join(f"{row[f'p{p}_ms']:.1f} ms" for p in (50, 95, 99))
            lines.append(f"| {clients} | {side} | {times} | {row['requests_per_second']:.1f} | {ratio} |")
    lines += [
        "",
        f"Bare forward of one text: p50 {result['bare_forward_p50_ms']:.1f} ms.",
        "",
        "| aim | measured | of each round | kept |",
        "|---|---:|---|---|",
    ]
    for aim in result["aims"]:
        rounds = ", ".join(f"{one:.2f}" for one in aim["rounds"])
        lines.append(f"| {aim['aim']} | {aim['measured']:.2f} | {rounds} | {'yes' if aim['kept'] else 'no'} |")
    others: Counter[str] = Counter()
    for row in (result[side][str(clients)] for side in SIDES for clients in CLIENTS):
        others.update({outcome: count for outcome, count in row["outcomes"].items() if outcome != "200"})
    lines += ["", f"Answers other than 200: {dict(others)}." if others else "Every request was answered with 200."]
    return "\n".join(lines) + "\n"


def aims(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the ratios against the aims."""
    latency, throughput = found["latency_over_forward"], found["throughput_over_wrapper"]["32"]
    return [
        {
            "aim": f"p50 of one client under {LATENCY_AIM} times the bare forward",
            "measured": latency["ratio"],
            "rounds": latency["rounds"],
            "kept": latency["ratio"] < LATENCY_AIM,
        },
        {
            "aim": f"at 32 clients at least {THROUGHPUT_AIM:g} times the wrapper's throughput",
            "measured": throughput["ratio"],
            "rounds": throughput["rounds"],
            "kept": throughput["ratio"] >= THROUGHPUT_AIM,
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    options = parser.parse_args()
    where, load_averages = machine("cpu"), [os.getloadavg()[0]]
    texts = Run(options.run).predictions("test").predictions.texts[:200]
    forward = Forward(options.run)
    counts = forward.tagger.scorer.tokens([forward.tagger.cells(text) for text in texts])
    ports = {side: free_port() for side in SIDES}
    programs = {
        "serve": ["-m", "genre_lightning", "serve", str(options.run), "--port", str(ports["serve"]), "--similar", "0"],
        "wrapper": [str(HERE / "wrapper.py"), str(options.exported), str(ports["wrapper"])],
    }

    def request(number: int) -> Request:
        return "/v1/tag", {"text": texts[number % len(texts)]}

    sides: dict[str, dict[int, list[Load]]] = {side: {clients: [] for clients in CLIENTS} for side in SIDES}
    bare: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        logs = Path(name)
        with (
            running(programs["serve"], ports["serve"], logs / "serve"),
            running(programs["wrapper"], ports["wrapper"], logs / "wrapper"),
        ):
            for side in SIDES:
                load(f"http://127.0.0.1:{ports[side]}", request, 1, 10, 120)
            forward.milliseconds(texts[:10])
            for _ in range(options.rounds):
                bare.append(forward.milliseconds(texts[:_BARE_TEXTS]))
                for clients in CLIENTS:
                    for side in SIDES:
                        url = f"http://127.0.0.1:{ports[side]}"
                        sides[side][clients].append(load(url, request, clients, options.requests, options.seconds))
                load_averages.append(os.getloadavg()[0])
    found = ratios(sides, bare)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "load_averages": [round(one, 1) for one in load_averages],
        "rounds": options.rounds,
        "requests": options.requests,
        "seconds": options.seconds,
        "texts": len(texts),
        "tokens_per_text": statistics.mean(count or 0 for count in counts),
        "bare_forward_p50_ms": round(percentile([one for part in bare for one in part], 50), 2),
        **{side: {str(clients): summary(sides[side][clients]) for clients in CLIENTS} for side in SIDES},
        "ratios": found,
        "aims": aims(found),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "serving.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "serving.md").write_text(page(result))
    print(page(result), end="")


if __name__ == "__main__":
    main()
