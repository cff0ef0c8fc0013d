"""mkdocs hooks: pages that are generated from the code, and files beside docs/ that the site shows.

Commands and options are written from their declarations whenever the site is built, so that they cannot drift.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

from docstring_parser import parse
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from genre_lightning.bounds import Bounds
from genre_lightning.cli import COMMANDS
from genre_lightning.config.continuation import ContinueOptions, SelfTrainingOptions
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.model import OPTIONS
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions, PretrainOptions, WandbOptions
from genre_lightning.config.schema import option_docs
from genre_lightning.config.trainer import TrainerOptions

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("CHANGELOG.md", "CONTRIBUTING.md", "slurm/README.md", "benchmarks/NOTES.md")
"""Files outside of docs/ that the site shows; so are benchmarks/results/*.md and *.png."""

_OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:benchmarks|slurm)/[^)]+|CHANGELOG\.md|CONTRIBUTING\.md)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the files from outside."""
    for path in [*map(ROOT.joinpath, SHOWN), *sorted((ROOT / "benchmarks" / "results").glob("*.[mp][dn]*"))]:
        name = path.relative_to(ROOT).as_posix()
        content: Any = _without_outside_links(path.read_text()) if path.suffix == ".md" else path.read_bytes()
        files.append(File.generated(config, name.replace("README", "index"), content=content))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/options.md", content=options_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave docs/ in the repository to their place on the site."""
    depth = page.file.src_uri.count("/")
    return _OUTSIDE.sub(lambda match: f"]({'../' * depth}{match[1].replace('README', 'index')})", markdown)


def _without_outside_links(text: str) -> str:
    """Return the text of a page, its links into the repository's code as plain text: the site does not show code."""
    text = re.sub(r"\[([^\]]+)\]\((?!https?:|#)([^)\s]+\.(?:py|json|yaml|sbatch|sh|csv))\)", r"\1 (`\2`)", text)
    return text.replace("](docs/", "](").replace("](../docs/", "](../")


def commands_page() -> str:
    """Return the help of every command, as it is printed."""
    parts = ["# Commands", "Each command's help, as `genre-lightning COMMAND --help` prints it."]
    for name, command in COMMANDS.items():
        parts += [f"## {name}", f"{command.about[:1].upper()}{command.about[1:]}."]
        if name in (
            "fit",
            "pretrain",
            "validate",
            "test",
            "baseline tfidf_nb",
            "baseline tfidf_logreg",
            "data inspect",
        ):
            parts.append("Takes the [options](options.md) of a run.")
            continue
        parts.append(f"```text\n{_help(name)}\n```")
    return "\n\n".join(parts) + "\n"


def _help(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "genre_lightning", *name.split(), "--help"],
        capture_output=True, text=True, check=True, cwd=ROOT, env={"COLUMNS": "100", "PATH": ""},
    )  # fmt: skip
    return done.stdout.strip()


def options_page() -> str:
    """Return every option of a run, from the dataclasses that declare them."""
    parts = [
        "# Options",
        "Options of `fit` and of configuration files, generated from their declarations. A flag such as `--data.csv` "
        "is the key `csv` of the section `data` in YAML. `null` in YAML is `None` here.",
    ]
    groups: list[tuple[str, str, type]] = [("data", "Data", DataOptions), ("trainer", "Trainer", TrainerOptions)]
    groups += [("model", path.rpartition(".")[2], kind) for path, kind in OPTIONS.items()]
    groups += [
        ("checkpoint", "Checkpoints", CheckpointOptions),
        ("early_stopping", "Early stopping", EarlyStoppingOptions),
        ("decision", "Decision", DecisionOptions),
        ("continue", "Continued runs", ContinueOptions),
        ("self_training", "Pseudo-labels", SelfTrainingOptions),
        ("pretrain", "Pretraining", PretrainOptions),
        ("wandb", "Weights & Biases", WandbOptions),
    ]
    for section, title, kind in groups:
        parts += [f"## {title}", parse(kind.__doc__ or "").short_description or "", _table(section, kind)]
    return "\n\n".join(parts) + "\n"


def _table(section: str, kind: type) -> str:
    documented = option_docs(kind)
    hints = get_type_hints(kind, include_extras=True)
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        bounds = next(
            (note for note in getattr(hints[field.name], "__metadata__", ()) if isinstance(note, Bounds)), None
        )
        about = documented[field.name]
        allowed = f" ({bounds})" if bounds else ""
        rows.append(f"| `{section}.{field.name}` | {_default(field)} | {_cell(f'{about}{allowed}')} |")
        inner = next(
            (part for part in (hints[field.name], *get_args(hints[field.name])) if dataclasses.is_dataclass(part)), None
        )
        if isinstance(inner, type):
            rows += _table(f"{section}.{field.name}", inner).splitlines()[2:]
    return "\n".join(rows)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{_cell(str(field.default))}`"
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        return "" if dataclasses.is_dataclass(value) else f"`{_cell(str(value))}`"
    return "required"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
