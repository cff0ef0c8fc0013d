"""The options of a baseline."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from genre_lightning.config.arguments import add_run_options
from genre_lightning.config.data import DataOptions
from genre_lightning.models.tfidf import BASELINES


def baseline_parser(name: str) -> ArgumentParser:
    """The parser of the options of a baseline of this name."""
    kind = BASELINES[name]
    summary = (kind.__doc__ or "").splitlines()[0]
    parser = ArgumentParser(
        prog=f"genre-lightning baseline {name}",
        description=f"{summary} Options of data that are about tokens and steps have no effect here.",
        exit_on_error=False,
    )
    parser.add_argument("--config", "-c", action="config", help="A YAML file of these options; later ones overlay.")
    add_run_options(parser)
    parser.add_argument("--baseline", choices=[name], default=name, help="Says in config.yaml what the run is.")
    parser.add_class_arguments(DataOptions, "data")
    parser.add_class_arguments(kind, "model")
    return parser
