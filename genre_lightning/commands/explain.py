"""`genre-lightning explain`: why a text got its genres, and which words speak most for each genre."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.bounds import Bounds, at_least
from genre_lightning.commands.arguments import CommandParser, check_out, within
from genre_lightning.commands.film_fields import add_field_option, fields_of, film_of
from genre_lightning.commands.tag import decoded
from genre_lightning.compat import import_lightning
from genre_lightning.errors import check_all
from genre_lightning.evaluation.console import console_of
from genre_lightning.explain.attribution import LARGEST_STEPS
from genre_lightning.files import check_output, naming_the_fix, write_json
from genre_lightning.progress import answer_json, require_output, say, task_progress
from genre_lightning.runs import RunDirectory, open_run

if TYPE_CHECKING:
    from genre_lightning.explain.explainer import Explainer

_FILMS = 200
_BOUND_OF_A_SPLIT = 0.05
"""Largest completeness error of each film of a split: their mean is off by less, at half the work."""


def explain(arguments: Sequence[str]) -> int:
    """Print what each word of the texts adds to their genres, or with --top_words the words of a split."""
    options = _parser().parse_intermixed_args(list(arguments))
    # before the libraries and the model are loaded, which takes seconds
    run = open_run(options.run)
    fields = fields_of(options.field, options.texts)
    _check(options, run)
    require_output()
    import_lightning()
    from genre_lightning.explain.explainer import Explainer, check_explainable

    check_explainable(run)
    if options.top_words:
        _top_words(run, options)
    else:
        _explain_texts(Explainer(run.path, options.device, options.steps), options, fields)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "explain",
        "Explains why texts get their genres: integrated gradients over the input embeddings give each word, and each "
        "input of data.features, the log-odds that it adds. TF-IDF runs are explained exactly.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of fit or baseline")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a film's overview, or its columns as a JSON object")
    add_field_option(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the coloured texts")
    parser.add_argument(
        "--steps",
        type=within(int, at_least(2, LARGEST_STEPS)),
        help="of the integral; the default doubles them until the words add up",
    )
    parser.add_argument(
        "--top_k",
        type=within(int, at_least(1)),
        help="explain the N most probable genres, whatever their thresholds",
    )
    parser.add_argument(
        "--threshold",
        type=within(float, Bounds(0, 1)),
        help="probability to reach, in place of each genre's own threshold",
    )
    parser.add_argument(
        "--top_words", action="store_true", help="the words that add most to each genre, over a split; no TEXT"
    )
    parser.add_argument("--split", help="validation (the default) or test, for --top_words")
    parser.add_argument(
        "--films", type=within(int, at_least(1)), help=f"films of the split to explain, for --top_words ({_FILMS})"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; the default is a GPU if there is one")
    parser.add_argument("--json", action="store_true", help="one JSON object per text, or one for the split")
    return parser


def _check(options: argparse.Namespace, run: RunDirectory) -> None:
    problems = []
    if options.top_words:
        for name in ("texts", "field", "html", "top_k", "threshold"):
            if getattr(options, name):
                given = "a TEXT" if name == "texts" else f"--{name}"
                problems.append(f"--top_words explains the films of a split: leave out {given}")
        if options.split not in (None, "validation", "test"):
            problems.append(f"--split is {options.split}: choose validation or test")
    else:
        for name in ("split", "films"):
            if getattr(options, name) is not None:
                problems.append(f"--{name} is of --top_words: add that")
        if not options.texts and not options.field:
            problems.append("there is no text: give one, in quotes, or --top_words")
    checks = []
    if options.html:
        checks.append(partial(check_out, options.html, ".html", ".htm", run=run, option="--html"))
    if options.top_words:
        outputs = {"top_words.json": run.evaluation(options.split or "validation").top_words, "report": run.report}
        checks += [partial(check_output, path, name) for name, path in outputs.items()]
    check_all(checks, problems)


def _explain_texts(explainer: Explainer, options: argparse.Namespace, fields: dict[str, str]) -> None:
    from genre_lightning.explain.console import print_explanation
    from genre_lightning.explain.page import write_page

    console = console_of(sys.stdout)
    explanations = []
    texts = [decoded(os.fsencode(argument), "the text") for argument in options.texts]
    films = [{**({"overview": texts[0]} if texts else {}), **fields}] if fields else [film_of(text) for text in texts]
    for number, film in enumerate(films):
        explanation = explainer(film, top_k=options.top_k, threshold=options.threshold)
        explanations.append(explanation)
        if options.json:
            answer_json(explanation.as_dict())
            continue
        if number:
            console.print()
        print_explanation(explanation, console)
    if options.html:
        with naming_the_fix(options.html):
            write_page(options.html, options.run.resolve().name, explanations)
        say(f"written to {options.html}")


def _top_words(run: RunDirectory, options: argparse.Namespace) -> None:
    from genre_lightning.evaluation.report import write_report
    from genre_lightning.explain.console import top_words_table
    from genre_lightning.explain.explainer import Explainer
    from genre_lightning.explain.top_words import stored_split, top_words

    split = options.split or "validation"
    stored = stored_split(run, split)
    explainer = Explainer(run.path, options.device, options.steps, _BOUND_OF_A_SPLIT)
    films = min(options.films or _FILMS, len(stored.predictions))
    with task_progress(f"explaining films of {split}", films) as progress:
        found = top_words(explainer, stored, split, films, progress)
    with naming_the_fix(run.path):
        write_json(run.evaluation(split).top_words, found)
        write_report(run.path)
    if options.json:
        answer_json(found)
        return
    console_of(sys.stdout).print(top_words_table(found))
    error = found["completeness"]
    say(
        f"compared with {found['baseline']}; completeness error {error['error_share']:.2%} over "
        f"{error['explanations']:,} explanations, at most {error['largest_error']:.4f}"
    )
    say(f"written to {run.evaluation(split).top_words} and {run.report}")
