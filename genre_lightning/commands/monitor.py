"""`genre-lightning monitor`: whether new films have drifted away from those of a run, and what to do about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.bounds import SEED, above
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.feedback import DATABASE, database_to_read
from genre_lightning.commands.new_film_options import add_new_film_options, read_new_film_options
from genre_lightning.compat import import_lightning
from genre_lightning.progress import answer, require_output

if TYPE_CHECKING:
    from rich.console import Console

    from genre_lightning.learning.drift import Drift


def monitor(arguments: Sequence[str]) -> int:
    """Print what differs, and the advice; exit status 1 if there is something to do."""
    parser = CommandParser(
        "monitor",
        "Compares new films with the run's validation films: texts, predicted genres, and, if the file or the feedback "
        "has labels, calibration and ranking. Ends with one line of advice and exit status 0 for nothing to do, 1 for "
        "'refit thresholds' or 'continue training'.",
    )
    add_new_film_options(parser, "new films; genres are used if they are known")
    parser.add_argument("--data.columns.genres", metavar="NAME", help="the file's column of genres")
    parser.add_argument("--data.cache_dir", type=Path, metavar="DIR", help="where films are kept between runs")
    parser.add_argument("--db", type=Path, metavar="FILE", help=f"feedback database (default: RUN/{DATABASE})")
    parser.add_argument(
        "--level", type=within(float, above(0, 1)), default=0.05, help="significance level (default: 0.05)"
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(list(arguments))
    require_output()
    database = database_to_read(options.db, options.run)
    films = read_new_film_options(options)
    import_lightning()
    from genre_lightning.cache import default_cache_dir
    from genre_lightning.learning.drift import find_drift
    from genre_lightning.learning.monitor import known_labels_in_file, labels_in_feedback, reference_of, tag_file
    from genre_lightning.learning.queue import KnownFilms
    from genre_lightning.progress import task_progress

    said = labels_in_feedback(database)
    reference = reference_of(films.run)
    known = KnownFilms().of_run(films.run, same_ids=False)
    scorer, file = films.open()
    genres = scorer.decision.genres
    cache_dir = getattr(options, "data.cache_dir") or default_cache_dir()
    labels, known_genres = known_labels_in_file(file, cache_dir, films.run, genres)
    # people's opinions are of all genres
    labels |= said
    known_genres = {digest: names for digest, names in known_genres.items() if digest not in said}
    with task_progress("Tagging films", file.count()) as done:
        new, left_out = tag_file(file, scorer, known.digests, labels, done or (lambda rows: None), known_genres)
    found = find_drift(genres, reference, new, level=options.level, seed=options.seed)
    from genre_lightning.commands.report_section import add_to_report
    from genre_lightning.evaluation.runs import Run

    if options.json:
        answer(json.dumps({**found.as_dict(), "left_out": left_out}))
    else:
        from genre_lightning.evaluation.console import console_of

        _print(found, left_out, console_of(sys.stdout))
    add_to_report(
        Run(films.run.path), "monitor", {**found.as_dict(), "left_out": left_out, "file": file.films.path.name}
    )
    return int(found.advice != "nothing")


def _print(found: Drift, left_out: int, console: Console) -> None:
    from genre_lightning.evaluation.sections import TABLES, monitor_lines

    own = f"; {left_out:,} of the run's own are left out" if left_out else ""
    console.print(
        f"{found.films:,} new films, {found.labelled:,} of them with labels, beside {found.reference_films:,} of "
        f"validation{own}",
        soft_wrap=True,
    )
    values = found.as_dict()
    for key, title, first, heads in TABLES:
        if values[key]:
            _table(console, title, first, heads, values[key])
    for line in monitor_lines(values):
        console.print(line, soft_wrap=True)
    console.print(f"advice: {found.advice}: {found.why}", soft_wrap=True)


def _table(console: Console, title: str, first: str, heads: Sequence[str], checks: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from genre_lightning.evaluation.sections import drift_row

    table = Table(title=title, title_justify="left", box=box.ASCII)
    table.add_column(first)
    for head in (*heads, "p (Holm)", ""):
        table.add_column(head, justify="right", no_wrap=True)
    for check in checks:
        row = drift_row(check)
        table.add_row(row.name, row.reference, row.new, f"{row.effect} {row.interval}".rstrip(), row.p, row.mark)
    console.print(table)
