"""What efficiency to expect of many GPUs, on paper: sizes from `genre-lightning plan`, rates from data sheets.

    python benchmarks/scaling.py [FILM_FILE]

Prints the table of the README's page on scaling. Nothing of it is measured. Each GPU takes the same number of tokens
however many there are, and:

    compute     t = tokens x FLOPs a token / (utilisation x dense peak)
    exchange    x = bytes / link + collectives x 2 log2(n) x latency
    bytes       DDP: 2 (n - 1) / n x gradients          (ring all-reduce: Patarasuk and Yuan, 2009)
                FSDP: (n - 1) / n x (2 weights + gradients)  (gathered forward and backward, reduced and scattered)
    efficiency  t / (t + x) where nothing overlaps, t / (t + max(0, x - h t)) where all does that can

with h = 2/3 for DDP, whose exchange runs beside the backward pass, and 1 for FSDP, which fetches ahead. Ranks also wait
for the one with the longest texts, and for stragglers; neither is in the table.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from genre_lightning.data.sample.generate import write_sample

CONFIGS = Path(__file__).parents[1] / "configs"
NVLINK, NODE_LINKS = 450e9, 400e9
"""Bytes a second in one direction: of a GPU inside a node (H100 data sheet: 900 GB/s both ways), and of a node's eight
adapters of 400 Gb/s together (DGX H100 data sheet), which as many rings share."""
LATENCY = 10e-6
"""Seconds of a hop: assumed."""
BUCKET = 25 * 2**20
"""Bytes of gradients that DDP sends together: its default."""
UTILISATION = 0.4
GPUS = (8, 64, 512)
# name, configuration files, tokens that a GPU takes in a step
CASES = (
    ("DistilBERT, DDP", ["distilbert.yaml"], 16_384),
    ("QLoRA 7B, DDP", ["llama2_qlora.yaml"], 8_192),
    ("QLoRA 70B, FSDP", ["llama2_70b_qlora.yaml", "strategy/fsdp.yaml"], 8_192),
)


def planned(files: list[str], films: str) -> dict:
    """What `plan` says of a configuration on eight GPUs."""
    configs = [word for name in files for word in ("--config", str(CONFIGS / name))]
    words = ["plan", "--json", *configs, "--data.csv", films, "--devices", "8", "--gpu", "h100-80gb",
             "--utilisation", str(UTILISATION)]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "genre_lightning", *words], capture_output=True, text=True, check=False
    )
    if done.returncode == 1 or not done.stdout:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def times(facts: dict, tokens: int, gpus: int) -> tuple[float, float, float]:
    """Seconds of a step's compute and of its exchange, and the share of the compute that can hide it."""
    time, blocks = facts["time"], facts["parameters"]["blocks"]
    flops_per_token = time["flops_an_epoch"] / facts["steps"]["tokens_an_epoch"]
    compute = tokens * flops_per_token / (UTILISATION * time["dense_peak_flops"])
    gradients = 4 * facts["parameters"]["trained"]
    sharded = facts["machine"]["strategy"] == "fsdp"
    if sharded:
        weights = facts["memory"]["ddp"]["parts"]["weights"]
        sent, collectives = 2 * weights + gradients, 3 * (blocks + 1)
    else:
        sent, collectives = 2 * gradients, math.ceil(gradients / BUCKET)
    link = NVLINK if gpus <= 8 else NODE_LINKS
    agreements = 2  # on whether to stop
    waits = (collectives + agreements) * 2 * math.log2(gpus) * LATENCY
    return compute, (gpus - 1) / gpus * sent / link + waits, 1.0 if sharded else 2 / 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="film file; the embedded sample where there is none")
    films = parser.parse_args().file
    print("| model | tokens a GPU | compute | " + " | ".join(f"{n} GPUs" for n in GPUS) + " |")
    print("|---|---:|---:|" + "---:|" * len(GPUS))
    with tempfile.TemporaryDirectory() as folder:
        films = films or str(write_sample(Path(folder, "films.csv"), films=2000, seed=0))
        for name, files, tokens in CASES:
            facts = planned(files, films)
            cells = []
            for gpus in GPUS:
                compute, exchange, hidden = times(facts, tokens, gpus)
                none, all_ = compute / (compute + exchange), compute / (compute + max(0.0, exchange - hidden * compute))
                cells.append(f"{exchange * 1000:.1f} ms: {none:.1%} to {all_:.1%}")
            print(f"| {name} | {tokens:,} | {compute * 1000:,.0f} ms | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
