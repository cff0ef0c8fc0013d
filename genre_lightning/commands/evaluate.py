"""`genre-lightning validate` and `test`: a trained run evaluated again, from its directory alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from genre_lightning.commands.checked import parse_trained
from genre_lightning.compat import import_lightning
from genre_lightning.evaluation.console import print_headline, print_headlines
from genre_lightning.progress import say


def validate(arguments: Sequence[str]) -> int:
    """Evaluate the validation split, and fit the decision on it if the run has none."""
    return _evaluate("validate", "validation", arguments)


def test(arguments: Sequence[str]) -> int:
    """Evaluate the test split with the decision that was fitted on validation."""
    return _evaluate("test", "test", arguments)


def _evaluate(command: str, split: str, arguments: Sequence[str]) -> int:
    config, parser = parse_trained(command, arguments)
    import_lightning()
    # this loads torch, which takes seconds
    from genre_lightning.training.reevaluate import reevaluate, trained_setup

    setup = trained_setup(config, parser)
    result = reevaluate(split, setup)
    if result is None:  # on other ranks than the first
        return 0
    if config.json:
        print(json.dumps(result))
    else:
        print_headlines(result, sys.stdout)
        print_headline(result, sys.stdout)
        say(f"written to {setup.run.evaluation(split).path}")
    return 0
