"""What two ranks on this CPU pay for each other: the step of DDP and of FSDP beside two ranks that never meet.

    python benchmarks/synchronisation.py [--steps 40] [--rounds 3]

MOVIES_CSV and ENCODER_DIR as in `make bench`. In each round two processes of one thread train at once, each with half
the films of a step and no word between them; then two ranks share the steps by DDP, then by FSDP, over gloo. What a
step takes longer than without is the cost: collectives, hooks, and waiting for the rank with more tokens.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "training"))

from sides import OURS
from suites import WORKER, options_of


def start(words, options, number):
    """Start a worker process."""
    job = {"side": OURS, "words": words, "warmup_steps": 3, "steps": options.steps, "seed": number, "threads": 1}
    return subprocess.Popen([sys.executable, str(WORKER), json.dumps(job)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def seconds_of_a_step(workers, options):
    """Return the mean over the timed steps, of the slowest process or rank."""
    found = []
    for worker in workers:
        out, problem = worker.communicate()
        if worker.returncode:
            raise SystemExit(problem[-3000:])
        lines = [line for line in out.splitlines() if line.startswith("FIGURES ")]
        found += [json.loads(line.removeprefix("FIGURES "))["seconds"] / options.steps for line in lines]
    return max(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="films of a step of both ranks")
    parser.add_argument("--small", action="store_true", help="a try of the script itself, with a tiny model")
    options = parser.parse_args()
    options.device, options.precision, options.compile = "cpu", None, False
    found = {"alone": [], "ddp": [], "fsdp": []}
    with tempfile.TemporaryDirectory() as folder:
        words = options_of("encoder", options, Path(folder))
        for number in range(options.rounds):
            half = [*words, f"--data.global_batch_size={options.batch // 2}"]
            pair = [start(half, options, 2 * number + rank) for rank in range(2)]
            found["alone"].append(seconds_of_a_step(pair, options))
            for strategy in ("ddp", "fsdp"):
                both = [*words, "--trainer.devices=2", f"--trainer.strategy={strategy}"]
                found[strategy].append(seconds_of_a_step([start(both, options, number)], options))
            print({side: round(rows[-1] * 1000) for side, rows in found.items()}, "ms", flush=True)
    middle = {side: statistics.median(rows) for side, rows in found.items()}
    for strategy in ("ddp", "fsdp"):
        share = 1 - middle["alone"] / middle[strategy]
        print(f"{strategy}: a step of {middle[strategy] * 1000:.0f} ms, beside {middle['alone'] * 1000:.0f} ms of two "
              f"that never meet: {share:.1%} of it is synchronisation")  # fmt: skip


if __name__ == "__main__":
    main()
