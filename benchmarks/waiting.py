"""Training steps a second on two threads, alone and beside a busy process, by how long a thread spins at a barrier.

    python benchmarks/waiting.py [--spins default 0 1000 10000 100000] [--rounds 3] [--out benchmarks/results/waiting]

torch's threads (libgomp's) wait for one another at the end of every operation. By default they spin for some
milliseconds before they sleep. If another process has one of the cores, a thread spins while the one that it waits
for is not running. `GOMP_SPINCOUNT` sets how long. Each measurement is a process of its own: steps of a BERT of 6
layers and width 384 with random weights, bf16 on CPUs that multiply it natively. Settings alternate within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from machine import machine

from genre_lightning.escapes import markdown_table

STEPS = """
import sys, time
import torch
from transformers import BertConfig, BertModel
torch.manual_seed(0)
torch.set_num_threads(int(sys.argv[1]))
config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
model = BertModel(config, add_pooling_layer=False)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
batch = torch.randint(1, 30000, (16, 72))
bf16 = torch.cpu._is_avx512_bf16_supported()
def step():
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(input_ids=batch).last_hidden_state.float().square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
for _ in range(3):
    step()
started, steps = time.monotonic(), 0
while time.monotonic() - started < float(sys.argv[2]):
    step()
    steps += 1
print(steps / (time.monotonic() - started))
"""
BUSY = "while True: pass"


def steps_per_second(spins: str, threads: int, seconds: float, busy: int) -> float:
    """Return the steps a second of a training beside busy processes.

    Args:
        spins: Value of GOMP_SPINCOUNT, or "default" to leave it unset.
        threads: Of the training.
        seconds: Of the measurement, after three steps.
        busy: Number of processes that keep a core each busy.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    if spins != "default":
        environment["GOMP_SPINCOUNT"] = spins
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        command = [sys.executable, "-c", STEPS, str(threads), str(seconds)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def main() -> None:
    """Measure each setting in turn, round by round; write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", nargs="+", default=["default", "0", "1000", "10000", "100000"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "waiting")
    options = parser.parse_args()
    settings = [(spins, options.threads, busy) for spins in options.spins for busy in (0, 1)]
    settings += [("default", 1, busy) for busy in (0, 1)]
    about = {"date": date.today().isoformat(), "machine": machine("cpu")}
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for spins, threads, busy in settings:
            found = steps_per_second(spins, threads, options.seconds, busy)
            rates.setdefault(f"{spins}, {threads} thread{'s' * (threads > 1)}, {busy}", []).append(found)
            print(f"{spins:>8}  {threads} threads  {busy} beside  {found:.2f} steps/s", flush=True)
    rows = []
    for name in dict.fromkeys(name.rpartition(", ")[0] for name in rates):
        alone, beside = (statistics.median(rates[f"{name}, {busy}"]) for busy in (0, 1))
        rows.append([name, f"{alone:.2f}", f"{beside:.2f}", f"{beside / alone:.0%}"])
    table = markdown_table(["GOMP_SPINCOUNT, threads", "steps/s alone", "beside a busy process", "kept"], rows)
    print(table)
    about["rates"] = rates
    options.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    on = about["machine"]
    title = (
        f"# benchmarks/waiting.py, {about['date']}\n\n{on['cores']} cores of {on['processor']}, torch {on['torch']}, "
    )
    title += f"load average {on['load_average']} at the start; medians of {options.rounds} rounds.\n\n"
    options.out.with_suffix(".md").write_text(f"{title}{table}\n")


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s")
