"""The tools that are compared: their scripts, environments and curves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import curves

PLACE = Path(__file__).parent
PROJECT = PLACE.parents[1]
OWN_OPTIONS = [
    "--model.backbone=small",
    "--model.architecture={layers: 1, width: 32, heads: 2, inner_width: 64}",
    "--data.vocab_size=600",
    "--data.max_tokens=48",
    "--data.global_batch_size=8",
    "--model.lr=1e-3",
    "--trainer.max_epochs=3",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.log_every_n_steps=1",
    "--checkpoint.every_steps=10",
]


PRELOADED = {
    "ours": [
        "genre_lightning.training.fit",
        "datasets.arrow_writer",
        "transformers.models.distilbert.modeling_distilbert",
    ],
    "lightning": ["lightning.pytorch", "transformers.models.bert.modeling_bert"],
    "transformers": ["transformers.trainer", "transformers.models.bert.modeling_bert"],
    "swift": ["transformers.trainer", "transformers.models.bert.modeling_bert", "swift.pipelines", "swift.trainers"],
    "accelerate": ["accelerate", "transformers.models.bert.modeling_bert", "torch.utils.tensorboard"],
}
"""Libraries of each environment that are loaded before the time to resume is taken."""


@dataclass(frozen=True)
class Tool:
    """A row of the table.

    Attributes:
        name: As the table has it.
        script: File of `scripts/`.
        environment: Name of the requirements file, and of the interpreter.
        read_curves: Of a run directory.
        variant: Whether the script's documented variant is run.
    """

    name: str
    script: str
    environment: str
    read_curves: curves.Reader
    variant: bool = False

    def command(self, data: Data, run: Path, *, ranks: int, dropout: float, resume: bool) -> list[str]:
        """Return script and arguments of every rank."""
        start = [str(PLACE / "scripts" / self.script), "--out", str(run)]
        if self.environment == "ours":
            strategy = ["--trainer.strategy=ddp"] if ranks > 1 else []
            return [*start, "--", f"--data.csv={data.csv}", f"--model.dropout={dropout}", *OWN_OPTIONS, *strategy]
        words = ["--films", str(data.films), "--ranks", str(ranks), "--dropout", str(dropout)]
        flags = [flag for flag, on in (("--resume", resume), ("--variant", self.variant)) if on]
        return [*start, *words, *flags]


TOOLS = (
    Tool("genre_lightning", "ours.py", "ours", curves.of_ours),
    Tool("Lightning", "lightning_trainer.py", "lightning", curves.of_lightning),
    Tool(
        "Lightning, save_on_exception, torchdata",
        "lightning_trainer.py",
        "lightning",
        curves.of_lightning,
        variant=True,
    ),
    Tool("Trainer", "transformers_trainer.py", "transformers", curves.of_transformers),
    Tool(
        "Trainer, enable_jit_checkpoint",
        "transformers_trainer.py",
        "transformers",
        curves.of_transformers,
        variant=True,
    ),
    Tool("accelerate's example", "accelerate_loop.py", "accelerate", curves.of_accelerate),
    Tool(
        "accelerate's example, use_seedable_sampler",
        "accelerate_loop.py",
        "accelerate",
        curves.of_accelerate,
        variant=True,
    ),
    Tool("ms-swift", "swift_sft.py", "swift", curves.of_swift),
)


@dataclass(frozen=True)
class Data:
    """The films of all tools.

    Attributes:
        csv: What `genre-lightning` reads.
        films: JSON file with the same films as token ids, split alike, for the scripts of the peers.
        training: Number of training films.
    """

    csv: Path
    films: Path
    training: int


def make_data(place: Path) -> Data:
    """Write the films: 200 of the embedded sample, of which 160 are for training, 20 steps of 8."""
    from genre_lightning.config.data import DataOptions
    from genre_lightning.data.prepare import prepare_films, tokenised
    from genre_lightning.data.sample.generate import write_sample

    csv = place / "sample.csv"
    if not csv.is_file():
        write_sample(csv, films=200, seed=0)
    options = DataOptions(csv=csv, vocab_size=600, max_tokens=48, cache_dir=place / "cache")
    data = tokenised(options, prepare_films(options), "wordpiece", None)
    content: dict[str, object] = {"vocab_size": data.spec.vocab_size}
    for name in ("train", "validation"):
        split = data.splits[name]
        content[name] = [
            {"input_ids": data.tokens[film].tolist(), "labels": labels.astype(int).tolist()}
            for film, labels in zip(split.films, split.labels, strict=True)
        ]
    films = place / "films.json"
    films.write_text(json.dumps(content))
    return Data(csv, films, len(data.splits["train"].films))


def interpreter(environment: str, given: Mapping[str, Path], venvs: Path) -> Path:
    """Return the interpreter of a tool, whose virtual environment is made from its requirements if needed."""
    if environment in given:
        return given[environment]
    if environment == "ours":
        return Path(sys.executable)
    python = venvs / environment / "bin" / "python"
    done = venvs / environment / ".installed"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(venvs / environment)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        subprocess.run([str(python), *install, str(requirements(environment))], check=True)
        done.touch()
    return python


def requirements(environment: str) -> Path:
    """Return the file of a peer's pinned versions."""
    return PLACE / "requirements" / f"{environment}.txt"


def versions(environment: str, python: Path) -> dict[str, str]:
    """Return the installed versions of the packages that a tool's requirements name.

    Raises:
        SystemExit: One is not the pinned version, or missing.
    """
    names = ["torch", "lightning", "transformers"]
    pinned: dict[str, str] = {}
    if environment != "ours":
        pinned = dict(line.split("==") for line in requirements(environment).read_text().split())
        names = list(pinned)
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{python} lacks a package of {requirements(environment)}: install that file there")
    found: dict[str, str] = json.loads(done.stdout)
    wrong = [name for name in pinned if found[name].partition("+")[0] != pinned[name]]
    if wrong:
        raise SystemExit(f"{python} has other versions of {', '.join(wrong)} than {requirements(environment)}")
    return found
