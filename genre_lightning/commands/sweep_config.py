"""`genre-lightning sweep-config`: a space as a sweep of Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from genre_lightning.bounds import at_least
from genre_lightning.commands.arguments import CommandParser, check_out, within
from genre_lightning.commands.search_options import add_space
from genre_lightning.files import write_text
from genre_lightning.progress import answer, say
from genre_lightning.tuning.checks import check_space, parse_for_trials
from genre_lightning.tuning.space import read_space
from genre_lightning.tuning.sweep import METHODS, sweep_configuration


def sweep_config(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = CommandParser(
        "sweep-config",
        "Writes the configuration of a sweep of Weights & Biases for a space: 'wandb sweep FILE' starts it, and 'wandb "
        "agent ID' does its trials. Each trial is a run directory named by the sweep's run, below --run_dir. All other "
        "options are those of 'genre-lightning fit'.",
    )
    add = parser.add_argument
    add_space(parser, required=True)
    add("--out", type=Path, metavar="FILE", help="YAML file to write (default: print it)")
    add("--method", choices=METHODS, default="bayes", help="of the sweep (default: bayes)")
    add("--early_epochs", type=within(int, at_least(1)), metavar="N",
        help="first epoch after which W&B may end a trial early, by Hyperband (default: never)")  # fmt: skip
    add("--name", default="genre_lightning", help="shown for the sweep (default: genre_lightning)")
    options, words = parser.parse_known_args(list(arguments))
    space = read_space(options.space)
    if options.out:
        check_out(options.out, ".yaml", ".yml")
    config, _ = parse_for_trials(words)
    check_space(space, words)
    text = yaml.safe_dump(
        sweep_configuration(
            space, words, name=options.name, monitor=config.checkpoint.monitor, method=options.method,
            early_epochs=options.early_epochs,
        ), sort_keys=False, allow_unicode=True, width=120,
    )  # fmt: skip
    if options.out is None:
        answer(text.rstrip())
        return 0
    write_text(options.out, text)
    say(f"wrote {options.out}: run wandb sweep {options.out}, then wandb agent with the id that it prints")
    return 0
