"""`genre-lightning evaluate`: a trained run of any kind on the films of another labelled file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from genre_lightning.bounds import SEED, Bounds
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.compat import import_lightning
from genre_lightning.config.columns import ColumnNames, GenreFormat, TextTemplate
from genre_lightning.config.data import check_encoding
from genre_lightning.config.features import as_joins, features_in, with_files
from genre_lightning.config.trainer import PRECISIONS
from genre_lightning.data.movies import check_columns
from genre_lightning.data.templates import columns_to_tag
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory, kind_of, open_run

if TYPE_CHECKING:
    import argparse

    from genre_lightning.data.films import FilmSource
    from genre_lightning.inference.scoring import Scorer

_RESERVED = ("train", "validation", "test")
_NAME = re.compile(r"[^\W_][\w.-]*")


def evaluate(arguments: Sequence[str]) -> int:
    """Evaluate all films of a labelled file that the run was not trained on, and write RUN/evaluation/NAME/."""
    options = _parser().parse_args(list(arguments))
    run = open_run(options.run)
    file = getattr(options, "data.csv").expanduser().absolute()
    name = _name(options.name, file)
    settings = run.settings()
    if options.precision is not None and kind_of(settings).startswith("baseline"):
        raise ConfigError(
            f"--precision is {options.precision}, and a baseline such as {run.path} has none: leave it out"
        )
    renamed = {c: v for c in asdict(ColumnNames()) if (v := getattr(options, f"data.columns.{c}")) is not None}
    source = _source(settings, options, file, renamed)
    check_encoding(source.encoding)
    check_columns(source)
    run.check_writable()
    _check_place(run, name, file)

    import_lightning()
    from genre_lightning.cache import default_cache_dir
    from genre_lightning.evaluation.evaluate import write_evaluation
    from genre_lightning.evaluation.films import describe_films
    from genre_lightning.evaluation.report import write_report
    from genre_lightning.inference.other_films import other_films
    from genre_lightning.inference.scoring import open_scorer
    from genre_lightning.progress import file_progress, say, task_progress
    from genre_lightning.training.evaluate import provenance_of
    from genre_lightning.training.resume import locked

    cache_dir = getattr(options, "data.cache_dir") or default_cache_dir()
    scorer = open_scorer(run.path, options.device, options.precision)
    if scorer.features or scorer.join:  # of all members of an ensemble
        inputs = tuple(feature for feature in scorer.features if not feature.in_text)
        source = replace(source, inputs=inputs, join=with_files(scorer.join, getattr(options, "data.join")))
    films = other_films(source, run, cache_dir, file_progress, same_ids=not options.other_ids)
    fields = _fields(scorer, renamed)
    with locked(run):
        with task_progress("Evaluating", len(films.rows)) as progress:
            predictions, evaluated = films.predictions(
                scorer.decision.genres, fields, scorer.logits, progress or (lambda films: None)
            )
        result = write_evaluation(
            run.evaluation(name).path,
            predictions,
            scorer.decision,
            split=name,
            seed=options.seed,
            films=replace(evaluated, path=str(file)),
            provenance=provenance_of(run, getattr(scorer, "device", None)),
            metadata={"split_sha256": evaluated.ids_sha256, "checkpoint_sha256": scorer.decision.checkpoint_sha256},
        )
        write_report(run.path)
    if options.json:
        print(json.dumps({"run_dir": str(run.path), name: result}))
        return 0
    from genre_lightning.evaluation.console import print_headline, print_headlines

    print_headlines(result, sys.stdout)
    print_headline(result, sys.stdout)
    for line in describe_films(result):
        print(line)
    say(f"written to {run.evaluation(name).path}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "evaluate",
        "Evaluates a run on all films of another labelled file, without those that it was trained on. The test split "
        "is left alone: the result is in RUN/evaluation/NAME.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a trained run of any kind")
    parser.add_argument("--data.csv", type=Path, required=True, metavar="FILE", help="the labelled file")
    parser.add_argument(
        "--data.join",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="in the place of the run's joined file of the same name; may be repeated",
    )
    for column in asdict(ColumnNames()):
        parser.add_argument(f"--data.columns.{column}", metavar="NAME", help=f"the file's column of {column}")
    parser.add_argument("--data.genre_format", choices=get_args(GenreFormat), help="of the genres column")
    parser.add_argument("--data.genre_separator", metavar="TEXT", help="of names in a genres column of plain text")
    parser.add_argument("--data.encoding", metavar="NAME", help="of its text (default: that of the training file)")
    parser.add_argument(
        "--data.max_malformed",
        type=within(float, Bounds(0, 1)),
        default=0.05,
        metavar="FRACTION",
        help="of the rows that may be malformed (default: 0.05)",
    )
    parser.add_argument("--data.cache_dir", type=Path, metavar="DIR", help="where films are kept between runs")
    parser.add_argument(
        "--other_ids",
        action="store_true",
        help="ids of the file are not those of the training file: films are the same only if their texts are",
    )
    parser.add_argument("--name", help="of the folder of the result (default: the file's name without its ending)")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the best there is)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        metavar="PRECISION",
        help="such as 32-true (default: that of the training, where the device has it)",
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="random seed of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def _name(given: str | None, file: Path) -> str:
    """Return the name of the result's folder.

    Raises:
        ConfigError: It is not a plain name, or one of the run's own splits.
    """
    name = given if given is not None else re.sub(r"[^\w.-]+", "_", file.name.partition(".")[0]).strip("._-")
    if name in _RESERVED and given is None:
        name = f"{name}_file"
    if name in _RESERVED or not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name is {name!r}: give letters, digits, '_', '-' and '.', and not {', '.join(_RESERVED)}, which are "
            "the run's own"
        )
    return name


def _source(
    settings: Mapping[str, Any], options: argparse.Namespace, file: Path, renamed: Mapping[str, str]
) -> FilmSource:
    """Return the file, read as the run reads its own; the first member's way of an ensemble."""
    from genre_lightning.data.films import FilmSource

    data = settings.get("data") or {}
    trained = ColumnNames(**(data.get("columns") or {}))
    columns = replace(trained, **renamed)
    template = str(data.get("text", "{overview}"))
    genre_format, separator = getattr(options, "data.genre_format"), getattr(options, "data.genre_separator")
    for name, column in renamed.items():
        template = template.replace(f"{{{getattr(trained, name)}}}", f"{{{column}}}")
    features = features_in(data)
    return FilmSource(
        file,
        columns,
        TextTemplate(template, tuple(f for f in features if f.in_text)),
        genre_format or data.get("genre_format") or "auto",
        separator if separator is not None or genre_format else data.get("genre_separator"),
        encoding=getattr(options, "data.encoding") or str(data.get("encoding") or "utf-8"),
        max_malformed=getattr(options, "data.max_malformed"),
        join=with_files(as_joins(data.get("join")), getattr(options, "data.join")),
        inputs=tuple(f for f in features if not f.in_text),
    )


def _fields(scorer: Scorer, renamed: Mapping[str, str]) -> dict[str, str]:
    """Map each name in the run's text templates to the file's column: a renamed one is read under its new name."""
    return columns_to_tag(scorer.fields, scorer.columns, replace(scorer.columns, **renamed))


def _check_place(run: RunDirectory, name: str, file: Path) -> None:
    """Refuse to replace the evaluation of another file.

    Raises:
        ConfigError: The evaluation of another file is in the way; the message names the fix.
    """
    from genre_lightning.evaluation.stored import read_metrics

    place = run.evaluation(name)
    if not place.metrics.is_file():
        return
    stored = read_metrics(place.metrics, f"delete {place.path}").get("films") or {}
    if stored.get("path") != str(file):
        raise ConfigError(
            f"{place.path} is the evaluation of {stored.get('path', 'other films')}: give this one another --name"
        )
