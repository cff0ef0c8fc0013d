"""What efficiency to expect of many GPUs, on paper: sizes from `genre-lightning plan`, rates from data sheets.

    python benchmarks/scaling.py [FILM_FILE]

Prints the table of the README's section on many GPUs. Nothing of it is measured. Each GPU takes the same number of
tokens in one micro-batch however many GPUs there are; the formulas are those of `genre_lightning/planning/speed.py`. A
cell has the time of communication, and the efficiency: the time of the matmuls over that of the step. Ranks also wait
for the one with the longest texts, and for stragglers; neither is in the table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.planning.speed import StepTime, Work, step_time

CONFIGS = Path(__file__).parents[1] / "configs"
GPUS = (8, 64, 512)
# name, configuration files, tokens that a GPU takes in a step
CASES = (
    ("DistilBERT, DDP", ["distilbert.yaml"], 16_384),
    ("QLoRA 7B, DDP", ["llama2_qlora.yaml"], 8_192),
    ("QLoRA 70B, FSDP", ["llama2_70b_qlora.yaml", "strategy/fsdp.yaml"], 8_192),
)


def planned(files: list[str], films: str) -> dict:
    """Return the plan of a configuration on eight GPUs."""
    configs = [word for name in files for word in ("--config", str(CONFIGS / name))]
    words = ["plan", "--json", *configs, "--data.csv", films, "--devices", "8", "--gpu", "h100-80gb"]
    done = subprocess.run(
        [sys.executable, "-m", "genre_lightning", *words], capture_output=True, text=True, check=False
    )
    if done.returncode == 1 or not done.stdout:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def step(facts: dict, tokens: int, gpus: int) -> StepTime:
    """Return the plan of a step with as many tokens on each GPU."""
    time, steps, parameters = facts["time"], facts["steps"], facts["parameters"]
    sharded = facts["machine"]["strategy"] == "fsdp"
    films = gpus * tokens * steps["films"] / steps["tokens_an_epoch"]
    work = Work(
        flops=gpus * tokens * time["flops_an_epoch"] / steps["tokens_an_epoch"],
        films=round(films),
        micro_batches=1,
        blocks=parameters["blocks"],
        decoder=parameters["quantised"] > 0,
        weights=facts["memory"]["ddp"]["parts"]["weights"],
        gradients=4 * parameters["trained"],
    )
    peak, utilisation = time["dense_peak_flops"], time["utilisation"]
    return step_time(work, ranks=gpus, sharded=sharded, peak=peak, utilisation=utilisation)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="film file; the embedded sample by default")
    films = parser.parse_args().file
    columns = ("model", "tokens a GPU", "matrix multiplications", "kernel launches", *(f"{n} GPUs" for n in GPUS))
    print(f"| {' | '.join(columns)} |")
    print("|---|---:|---:|---:|" + "---:|" * len(GPUS))
    with tempfile.TemporaryDirectory() as folder:
        films = films or str(write_sample(Path(folder, "films.csv"), films=2000, seed=0))
        for name, files, tokens in CASES:
            facts = planned(files, films)
            taken = [step(facts, tokens, gpus) for gpus in GPUS]
            cells = [f"{each.communication * 1000:.1f} ms: {each.matmuls / each.seconds:.1%}" for each in taken]
            first = taken[0]
            print(f"| {name} | {tokens:,} | {first.matmuls * 1000:,.0f} ms at {facts['time']['utilisation']:g} | "
                  f"{first.kernels * 1000:,.0f} ms | " + " | ".join(cells) + " |")  # fmt: skip


if __name__ == "__main__":
    main()
