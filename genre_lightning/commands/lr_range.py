"""`genre-lightning lr-range`: a learning-rate range test over one pass, with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.bounds import above, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.checked import parse_checked
from genre_lightning.compat import import_lightning
from genre_lightning.config.trainer import is_on_one_device
from genre_lightning.config.words import default_run_dir
from genre_lightning.errors import ConfigError
from genre_lightning.files import check_folder
from genre_lightning.progress import answer, answer_json


def lr_range(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = CommandParser(
        "lr-range",
        "Trains at most one pass while the learning rate rises from step to step, and reports where the loss falls "
        "fastest and where it is lowest. The model is not kept. All other options are those of 'genre-lightning fit'.",
    )
    add = parser.add_argument
    rate = within(float, above(0, 1e3))
    add("--low", type=rate, default=1e-7, metavar="LR", help="learning rate of the first step (default: 1e-7)")
    add("--high", type=rate, default=0.1, metavar="LR", help="learning rate of the last step (default: 0.1)")
    add("--steps", type=within(int, at_least(10, 10**6)), metavar="N",
        help="optimizer steps, at most those of one pass (default: one pass, at most 200)")  # fmt: skip
    add("--out", type=Path, default=Path("lr_range"), metavar="DIR",
        help="folder of lr_range.csv and lr_range.png (default: lr_range)")  # fmt: skip
    add("--json", action="store_true", help="print JSON")
    options, words = parser.parse_known_args(list(arguments))
    if options.low >= options.high:
        raise ConfigError(f"--low {options.low} is not below --high {options.high}: give a range")
    check_folder(options.out, "--out")
    config, config_parser = parse_checked("fit", words, default_run_dir(words))
    if config.continue_from is not None:
        raise ConfigError("--continue_from: lr-range trains from the backbone: leave --continue_from out")
    trainer = config.trainer
    if not is_on_one_device(trainer):
        raise ConfigError(
            f"trainer.devices is {trainer.devices} and trainer.num_nodes {trainer.num_nodes}, and lr-range trains on "
            "one device: leave them out"
        )
    import_lightning()
    from genre_lightning.training.setup import check_setup
    from genre_lightning.tuning.lr_range import run_range, write_range

    setup = check_setup(config, config_parser)
    if not setup.model.trains:
        raise ConfigError(f"{type(setup.model).__name__} trains nothing: name another model")
    found = run_range(setup, low=options.low, high=options.high, steps=options.steps)
    write_range(found, options.out)
    if options.json:
        answer_json({"steepest": found.steepest, "lowest": found.lowest, "diverged": found.diverged,
                     "steps": len(found.losses), "folder": str(options.out)})  # fmt: skip
        return 0
    start = found.steepest
    end = f"it rose beyond twice that at {found.lrs[-1]:.2g}" if found.diverged else "it did not diverge"
    points = f"the points are in {options.out}/lr_range.csv, .png"
    if start is None:
        answer(f"no fall of the loss was found from {found.lrs[0]:.2g} to {found.lrs[-1]:.2g}; {end}")
        answer(f"try another range with --low and --high; {points}")
        return 0
    answer(f"the loss falls fastest at {start:.2g} and is lowest at {found.lowest:.2g}; {end}")
    answer(f"a start for --model.lr: {start:.1g}; {points}")
    return 0
