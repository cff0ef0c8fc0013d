"""`genre-lightning predict`: tags every film of a file with a trained run."""

from __future__ import annotations

from collections.abc import Sequence

from genre_lightning.config.parser import parse
from genre_lightning.config.words import WANTS_HELP
from genre_lightning.inference.predict_options import read_options


def predict(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    if WANTS_HELP & set(arguments):
        parse("predict", ["--help"])
    options = read_options(arguments)
    options.check()
    # this loads torch, which takes seconds
    from genre_lightning.training.predict import predict_file

    predict_file(options)
    return 0
