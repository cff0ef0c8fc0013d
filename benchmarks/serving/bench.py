"""Latency and throughput of `genre-lightning serve` beside a FastAPI wrapper around transformers.pipeline.

    python benchmarks/serving/bench.py RUN EXPORTED [--requests 300] [--seconds 30]

RUN is a run of an encoder with `model.pooling: cls`, for which transformers has a class, and EXPORTED what
`genre-lightning export RUN EXPORTED` wrote. Both servers run on this machine, one after the other, with the same texts;
rounds alternate. The bare forward is the Tagger in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from client import Load, load

from genre_lightning.evaluation.runs import Run
from genre_lightning.inference.tagger import Tagger

HERE = Path(__file__).parent
CLIENTS = (1, 8, 32)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(words: list[str], port: int) -> subprocess.Popen[bytes]:
    stderr = subprocess.DEVNULL if "serve" in words else None  # its log has a line for each request
    process = subprocess.Popen([sys.executable, *words], stderr=stderr)
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
            continue
        return process
    raise SystemExit(f"{words} ended with status {process.returncode}")


def row(found: Load) -> dict[str, object]:
    percentiles = {f"p{p}_ms": round(1000 * found.percentile(p), 1) for p in (50, 95, 99)}
    return {**percentiles, "requests_per_second": round(found.rate, 1), "outcomes": dict(found.outcomes)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    texts = Run(options.run).predictions("test").predictions.texts[:200]
    tagger = Tagger(options.run, "cpu")
    tagger(texts[0])
    bare = []
    for text in texts[:100]:
        begun = time.perf_counter()
        tagger(text)
        bare.append(1000 * (time.perf_counter() - begun))
    del tagger
    result: dict[str, object] = {
        "machine": {"cores": len(os.sched_getaffinity(0)), "load_at_start": os.getloadavg()},
        "bare_forward_p50_ms": round(statistics.median(bare), 1),
    }
    for name in ("serve", "wrapper"):
        port = free_port()
        words = {
            "serve": ["-m", "genre_lightning", "serve", str(options.run), "--port", str(port), "--similar", "0"],
            "wrapper": [str(HERE / "wrapper.py"), str(options.exported), str(port)],
        }[name]
        process = started(words, port)
        try:
            url = f"http://127.0.0.1:{port}"
            load(url, texts, 1, 10, 120)
            result[name] = {n: row(load(url, texts, n, options.requests, options.seconds)) for n in CLIENTS}
        finally:
            process.terminate()
            process.wait()
    result["load_at_end"] = os.getloadavg()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
