"""What the training benchmark trains: models, films and precision as options of `fit`, turns, and what to reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sides import FILMS_ONLY, OURS, PEER_FORMS, Job

from genre_lightning.data.sample.generate import write_sample

WORKER = Path(__file__).with_name("sides.py")
CONFIGS = Path(__file__).parents[2] / "configs"
PADDED, DYNAMIC, GROUPED = PEER_FORMS
SIDES = (OURS, *PEER_FORMS)


@dataclass(frozen=True)
class Turn:
    """How long a side trains in each round, in optimizer steps."""

    warmup_steps: int
    steps: int


SMALL_TURN = Turn(1, 2)

# All within one epoch, at whose end this framework saves. The grouped form sorts fifty batches together, or as many as
# make a quarter of the films (31 of the encoder's and 12 of Llama's on a GPU): what is timed is one or two of these
# rounds, as the others' batches are all alike. If shapes differ, memory and oneDNN's kernels settle within a hundred
# steps; padded to 256 all steps are alike.
TURNS = {
    ("encoder", "cpu"): {OURS: Turn(100, 50), PADDED: Turn(3, 12), DYNAMIC: Turn(10, 20), GROUPED: Turn(100, 50)},
    ("encoder", "cuda"): {OURS: Turn(20, 100), PADDED: Turn(5, 30), DYNAMIC: Turn(10, 40), GROUPED: Turn(31, 62)},
    # a step of seven thousand million weights takes a second or more; to draw them takes each side half a minute
    ("llama", "cuda"): {OURS: Turn(4, 24), PADDED: Turn(1, 4), DYNAMIC: Turn(2, 8), GROUPED: Turn(2, 24)},
}
FILMS = {("encoder", "cpu"): 8000, ("encoder", "cuda"): 20_000, ("llama", "cuda"): 8000}
"""Options of the sample, if the real files are not read."""


@dataclass(frozen=True)
class Aims:
    """What this framework is to reach.

    Attributes:
        ratios: Aimed ratios of real tokens per second to each form of the peer.
        tokens_per_second: Real ones.
        share_of_peak: FLOPs of real tokens over the GPU's dense peak.
        peak_gib: Memory at most.
    """

    ratios: dict[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    share_of_peak: float | None = None
    peak_gib: float | None = None


AIMS = {
    ("encoder", "cpu"): Aims({PADDED: 7.5, DYNAMIC: 3.2, GROUPED: 1.25}),
    ("encoder", "cuda"): Aims({PADDED: 5.0, GROUPED: 1.5}, share_of_peak=0.3),
    ("llama", "cuda"): Aims({PADDED: 3.5, GROUPED: 1.3}, tokens_per_second=10_000, peak_gib=10),  # on an H200
}

DISTILBERT = ["--model.architecture.layers=6", "--model.architecture.width=768", "--model.architecture.heads=12",
              "--model.architecture.inner_width=3072"]  # fmt: skip
LLAMA_7B = ["--model.backbone=random", "--model.architecture.layers=32", "--model.architecture.width=4096",
            "--model.architecture.heads=32", "--model.architecture.inner_width=11008",
            "--model.architecture.vocab_size=32000", "--model.activation_checkpointing=true"]  # fmt: skip


def turns_of(suite: str, options: Namespace) -> dict[str, Turn]:
    """Return how long each side trains in a round."""
    return dict.fromkeys(SIDES, SMALL_TURN) if options.small else TURNS[suite, options.device]


def aims_of(suite: str, options: Namespace) -> Aims:
    """Return the aims of a suite; nothing if only the script is tried, or other files are at hand on a CPU."""
    return AIMS[suite, options.device] if is_whole(options) else Aims()


def is_whole(options: Namespace) -> bool:
    """Return whether this is the benchmark itself: not compiled, in its usual precision, on a CPU with real files."""
    if options.precision not in (None, precision_of(Namespace(device=options.device, precision=None))):
        return False
    if options.compile:
        return False
    real = options.device == "cuda" or (reads_real_films(options) and encoder_of(options) is not None)
    return real and not options.small


def precision_of(options: Namespace) -> str:
    """Return the trainer's precision."""
    return options.precision or ("16-mixed" if options.device == "cuda" else "bf16-mixed")


def reads_real_films(options: Namespace) -> bool:
    """Return whether the films are those of MOVIES_CSV."""
    return options.device == "cpu" and not options.small and bool(os.environ.get("MOVIES_CSV"))


def encoder_of(options: Namespace) -> str | None:
    """Return the directory of the pretrained encoder; None if weights are random."""
    return None if options.device == "cuda" or options.small else os.environ.get("ENCODER_DIR") or None


def options_of(suite: str, options: Namespace, folder: Path) -> list[str]:
    """Return the options of `genre-lightning fit` that describe a suite's model, data and precision, on one device."""
    on_gpu = options.device == "cuda"
    if reads_real_films(options):
        csv = os.environ["MOVIES_CSV"]
    else:
        films = 400 if options.small else FILMS[suite, options.device]
        path = folder / f"{films}_films.csv"  # written once: the suites of a run share the folder
        csv = str(path if path.exists() else write_sample(path, films, seed=0))
    words = [f"--data.csv={csv}", f"--data.cache_dir={folder / 'cache'}", "--data.max_tokens=256",
             f"--data.global_batch_size={options.batch or (128 if on_gpu else 16)}", "--model.pos_weight=none",
             f"--trainer.precision={precision_of(options)}", f"--trainer.accelerator={options.device}",
             "--trainer.devices=1", "--trainer.max_epochs=1",
             f"--model.compile={str(options.compile).lower()}"]  # fmt: skip
    if suite == "llama":
        shape = ["--model.backbone=random"] if options.small else LLAMA_7B
        # adapters in the attention alone, as in the results that there are
        words.append("--model.lora.targets=null")
        return [f"--config={CONFIGS / 'llama2_qlora.yaml'}", "--data.tokenizer=wordpiece", *shape, *words]
    words.append("--model.layer_lr_decay=1.0")  # the peer's rates are alike for all blocks
    if not (encoder := encoder_of(options)):
        shape = DISTILBERT if on_gpu and not options.small else []
        return [f"--config={CONFIGS / 'distilbert.yaml'}", "--model.backbone=small", *shape, *words]
    return [f"--config={CONFIGS / 'distilbert.yaml'}", f"--model.backbone={encoder}", *words]


def files_of(options: Namespace) -> dict[str, str]:
    """Return the names of the films and of the encoder that are trained on."""
    films = Path(os.environ["MOVIES_CSV"]).name if reads_real_films(options) else "the embedded sample"
    encoder = encoder_of(options)
    return {"films": films, "model": Path(encoder).name if encoder else "random weights"}


def prepare_films(words: list[str]) -> int:
    """Read, split and tokenise the films for all sides, so that none does it beside its own work.

    Returns:
        Films of the training split.
    """
    return run_worker(Job(FILMS_ONLY, words, 0, 0, seed=0, threads=None))["films"]


def run_worker(job: Job) -> dict[str, Any]:
    """Return the metrics of one side, which trains in a process of its own."""
    words = [sys.executable, str(WORKER), json.dumps(asdict(job))]
    # the peer would spread its batches over all GPUs that it sees
    one_gpu = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **one_gpu})
    lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if done.returncode or not lines:
        raise SystemExit(f"the side {job.side!r} failed:\n{done.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("FIGURES "))
