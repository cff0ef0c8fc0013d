"""`genre-lightning predict`: tags every film of a file with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.compat import import_lightning
from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.parser import parse
from genre_lightning.config.words import WANTS_HELP
from genre_lightning.errors import ConfigError
from genre_lightning.inference.predict_options import PredictOptions
from genre_lightning.runs import RunDirectory

_PASSED_ON = (
    "--trainer.",
    "--config",
    "-c",
    "--model.backbone",
    "--data.micro_batch_tokens",
    "--data.cache_dir",
    "--json",
)
"""Beginnings of the options of the training that predict takes: where the run's model runs, and where its base is."""


def predict(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    if WANTS_HELP & set(arguments):
        parse("predict", ["--help"])
    options = read_options(arguments)
    options.check()
    import_lightning()
    # this loads torch, which takes seconds
    from genre_lightning.training.predict import predict_file

    predict_file(options)
    return 0


def read_options(arguments: Sequence[str]) -> PredictOptions:
    """Split predict's own options from those that its parser passes on to the training's.

    Raises:
        ConfigError: No run or no file is named, or an option changes the training.
        CheckpointError: The run is not trained.
    """
    words = list(arguments)
    named = words.pop(0) if words and not words[0].startswith("-") else None
    own, rest = _parser().parse_known_args(words)
    if not (run := own.run_dir or named):
        raise ConfigError("predict needs a run: genre-lightning predict runs/NAME --data.csv FILE --out FILE")
    for word in rest:
        if word.startswith("-") and not word.startswith(_PASSED_ON):
            raise ConfigError(
                f"{word.partition('=')[0]} is not an option of predict, which uses a run as trained: "
                "it takes --data.csv, --data.join, --data.columns.*, --data.encoding, --out, --raw_cells, --trainer.*"
            )
    directory, given = RunDirectory(_absolute(run)), vars(own)
    directory.require_trained()
    if not given["data.csv"]:
        raise ConfigError("--data.csv is missing: name the file of the films to tag")
    return PredictOptions(
        directory,
        films=_absolute(given["data.csv"]),
        out=_absolute(own.out) if own.out else directory.path / "predictions.parquet",
        columns={role: name for role in _ROLES if (name := given[f"data.columns.{role}"])},
        raw_cells=own.raw_cells == "true",
        encoding=given["data.encoding"],
        rest=rest,
        joins=tuple(map(Path, given["data.join"])),
    )


_ROLES = tuple(asdict(ColumnNames()))


def _parser() -> CommandParser:
    parser = CommandParser("predict", "")
    for name in ("--data.csv", "--data.encoding", "--out", "--run_dir", *(f"--data.columns.{role}" for role in _ROLES)):
        parser.add_argument(name)
    parser.add_argument("--data.join", action="append", default=[])
    parser.add_argument("--raw_cells", nargs="?", const="true", default="false", choices=("true", "false"))
    return parser


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
