"""`genre-lightning folds`: probabilities of the training films by runs that were not trained on them, for a student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.bounds import at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.checked import parse_checked, parse_checked_baseline
from genre_lightning.compat import import_lightning
from genre_lightning.config.data import MOST_FOLDS
from genre_lightning.config.words import option_values
from genre_lightning.errors import ConfigError
from genre_lightning.models.tfidf import BASELINES
from genre_lightning.progress import answer, answer_json, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

TABLE = "logits.parquet"


def folds(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options, words = _parser().parse_known_args(list(arguments))
    for name in ("--continue_from", "--data.fold"):
        if option_values(words, name):
            raise ConfigError(f"{name} is not for folds, which makes new runs, one for each fold: leave it out")
    place: Path = options.run_dir.expanduser().absolute()
    configs = []
    for number in range(1, options.folds + 1):
        run_dir = place / f"fold-{number}"
        own = [f"--data.fold={number}/{options.folds}", f"--run_dir={run_dir}"]
        configs.append(_checked(options.baseline, [*words, *own], run_dir))
    if more := sorted(place.glob(f"fold-{options.folds + 1}")):
        raise ConfigError(f"{more[0]} is of more folds than --folds {options.folds}: name another --run_dir")
    import_lightning()
    # these load torch, which takes seconds
    from genre_lightning.training.folds import fit_folds

    found = fit_folds(configs, place / TABLE, options.baseline)
    films, precision = len(found.ids), found.made["map_macro"]
    say(f"{films:,} training films out of fold: mAP {precision:.3f}")
    result = {"table": str(place / TABLE), "films": films, "map_macro": precision}
    answer_json(result) if options.json else answer(place / TABLE)
    return 0


def _checked(baseline: str | None, words: Sequence[str], run_dir: Path) -> tuple[Namespace, ArgumentParser]:
    """Parse the configuration of a fold's run and check it."""
    if baseline:
        return parse_checked_baseline(baseline, BASELINES[baseline], words, run_dir)
    # one device unless another number is asked for
    config, parser = parse_checked("fit", ["--trainer.devices=1", *words], run_dir)
    if str(config.trainer.devices) != "1" or config.trainer.num_nodes != 1:
        raise ConfigError(
            f"trainer.devices is {config.trainer.devices}, and folds trains its runs on one device: leave it out, "
            "or train each fold by 'genre-lightning fit' with --data.fold 1/5 and so on, and then run folds"
        )
    return config, parser


def _parser() -> CommandParser:
    parser = CommandParser(
        "folds",
        "Trains a run for each fold of the training films, without that fold, and writes what it predicts for the "
        "films of the fold: RUN_DIR/logits.parquet, which --model.teacher of a fit on the same files takes. Each "
        "run is RUN_DIR/fold-N, and the same command resumes. All other options are those of 'genre-lightning fit', "
        "or of the baseline that --baseline names, such as --config and --data.csv.",
    )
    add = parser.add_argument
    add(
        "--folds",
        type=within(int, at_least(2, MOST_FOLDS)),
        default=5,
        metavar="N",
        help="how many folds (default: 5)",
    )
    add("--baseline", choices=sorted(BASELINES), help="train this baseline (default: the model of fit)")
    add("--run_dir", type=Path, required=True, help="directory of the runs and the table")
    add("--json", action="store_true", help="print the result as JSON")
    return parser
