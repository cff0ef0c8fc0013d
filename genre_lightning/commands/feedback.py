"""`genre-lightning feedback`: opinions about predictions, kept beside the run, and read back."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.bounds import at_least
from genre_lightning.commands.arguments import CommandParser, check_out, within
from genre_lightning.errors import ConfigError
from genre_lightning.progress import answer, say
from genre_lightning.runs import FEEDBACK_DATABASE as DATABASE
from genre_lightning.runs import RunDirectory

if TYPE_CHECKING:
    from genre_lightning.inference.tagger import Tagger
    from genre_lightning.learning.agreement import Statistics
    from genre_lightning.learning.store import Added, Feedback

_SHOWN = 5
"""Conflicts that are shown."""
_SHOWN_PERIODS = 6
_PERIODS = ("day", "week", "month", "year")


def import_feedback(arguments: Sequence[str]) -> int:
    """Store the labels of a filled-in queue, of an export or of another table: all of them or none."""
    parser = CommandParser(
        "feedback import",
        "Stores the labels of a file: one that `queue` wrote and people filled in, one of `feedback export`, or any "
        "table with the columns genres and text or overview. In the column genres, 'ok' accepts the suggested "
        "genres, 'none' means no genre, and rows with an empty cell are left out. All rows are stored or none.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .csv, .tsv, .jsonl or .parquet file")
    _add_place(parser)
    parser.add_argument("--user", help="who labelled the rows without a name in their column user")
    parser.add_argument("--new_genres", action="store_true", help="keep genres that the run does not know")
    parser.add_argument("--encoding", "--data.encoding", default="utf-8", help="of the file's text (default: utf-8)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(list(arguments))
    database, genres = _place(options)
    from genre_lightning.config.data import check_encoding
    from genre_lightning.learning.feedback_files import read_labels
    from genre_lightning.learning.store import FeedbackStore

    check_encoding(options.encoding)
    if database.is_file():
        with FeedbackStore(database, write=True) as store:
            genres = tuple(dict.fromkeys([*(genres or ()), *store.vocabulary()]))
    elif genres is None:
        raise ConfigError(f"{database} is new, and without a run its genres are not known: give --run RUN too")
    labels = read_labels(
        options.file, genres, user=options.user, new_genres=options.new_genres, encoding=options.encoding
    )
    known = dict.fromkeys([*genres, *(name for row in labels.rows for name in row.genres)])
    with FeedbackStore(database, write=True) as store:
        added = store.add(labels.rows, tuple(known))
    if options.json:
        pairs = {name: [_pair(*pair) for pair in getattr(added, name)] for name in ("changed", "conflicts")}
        counts = {"stored": added.stored, "repeated": added.repeated, "empty": labels.empty}
        answer(json.dumps({**counts, **pairs, "db": str(database)}))
    else:
        answer(_imported(labels.rows, labels.empty, added))
        print_pairs("changed", added.changed)
        print_pairs("conflict", added.conflicts)
    say(f"stored in {database}")
    return 0


def export(arguments: Sequence[str]) -> int:
    """Write the feedback as a table."""
    parser = CommandParser("feedback export", "Writes all feedback as a table that `feedback import` reads back.")
    _add_place(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .csv or .jsonl file")
    parser.add_argument("--newest", action="store_true", help="only each user's newest opinion of each text")
    options = parser.parse_args(list(arguments))
    database, _ = _place(options)
    from genre_lightning.learning.feedback_files import write_feedback
    from genre_lightning.learning.store import FeedbackStore

    check_out(options.out, ".csv", ".jsonl", reads=(database,), run=RunDirectory(options.run) if options.run else None)
    with FeedbackStore(database) as store:
        count = write_feedback(store.rows(newest=options.newest), options.out)
    say(f"wrote {count:,} rows")
    answer(options.out)
    return 0


def stats(arguments: Sequence[str]) -> int:
    """Print how far people agree with the predictions."""
    parser = CommandParser(
        "feedback stats",
        "Shows how far people agree with the predictions, for each genre and over time. Agreement is the Jaccard "
        "index: films for which both name the genre, of those for which the run or the person does.",
    )
    _add_place(parser)
    parser.add_argument("--by", choices=_PERIODS, default="month", help="period of the columns (default: month)")
    parser.add_argument(
        "--periods",
        type=within(int, at_least(1, 100)),
        default=_SHOWN_PERIODS,
        help="newest periods shown (default: 6)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all periods")
    options = parser.parse_args(list(arguments))
    database, _ = _place(options)
    from genre_lightning.learning.agreement import statistics
    from genre_lightning.learning.store import FeedbackStore

    with FeedbackStore(database) as store:
        found = statistics(store.rows(newest=True), options.by)
    if options.json:
        answer(json.dumps(found.as_dict()))
    else:
        _print_statistics(found, options.periods)
    return 0


def forget(arguments: Sequence[str]) -> int:
    """Erase a person from the feedback."""
    parser = CommandParser(
        "feedback forget",
        "Erases all feedback of a person: the rows are overwritten in the database and in its log. Exports and "
        "copies of the file are not reached.",
    )
    parser.add_argument("user", metavar="USER", help="the name under which it is stored")
    _add_place(parser)
    options = parser.parse_args(list(arguments))
    database, _ = _place(options)
    from genre_lightning.learning.store import FeedbackStore

    if not database.is_file():
        raise ConfigError(f"there is no feedback in {database}: name the database with --run or --db")
    with FeedbackStore(database, write=True) as store:
        count = store.forget(options.user)
    answer(f"rows erased: {count:,}")
    return 0


def add_correction(parser: CommandParser) -> None:
    """Add the options of `tag` that store a person's opinion."""
    parser.add_argument("--correct", metavar="GENRES", help='store that the text has these: "Drama, War", or "none"')
    parser.add_argument("--user", help="your name (default: your login name)")
    parser.add_argument("--db", type=Path, metavar="FILE", help=f"where to store it (default: RUN/{DATABASE})")


def correction_of(options: argparse.Namespace) -> tuple[str, ...] | None:
    """Read the genres of `tag --correct` and who gives them, before the model is loaded; None without.

    Raises:
        ConfigError: The option does not fit the others, or names an unknown genre.
    """
    if options.correct is None:
        if options.user or options.db:
            raise ConfigError("--user and --db belong to --correct GENRES: give it too")
        return None
    if len(options.texts) != 1 or options.file:
        raise ConfigError("--correct belongs to one text: give exactly one TEXT, and no --file")
    from genre_lightning.learning.feedback_files import UnknownGenreError, login_name, read_names

    options.user = options.user or login_name("give --user NAME")
    try:
        return read_names(options.correct, _genres_of(RunDirectory(options.run)))
    except UnknownGenreError as error:
        raise ConfigError(f"--correct: {error}: correct it") from None


def store_correction(
    options: argparse.Namespace, tagger: Tagger, film: str | Mapping[str, Any], genres: tuple[str, ...]
) -> None:
    """Store a person's opinion of the film of `tag`, beside what the run predicts.

    Args:
        options: Of the command.
        tagger: The run.
        film: Its overview, or its columns.
        genres: That it has, by this person.
    """
    from genre_lightning.learning.corrections import correction
    from genre_lightning.learning.store import FeedbackStore

    row = correction(tagger, film, tagger(film), genres, user=options.user, source="tag", run=str(options.run))
    database = options.db or options.run / DATABASE
    with FeedbackStore(database, write=True) as store:
        added = store.add([row], tagger.genres)
    print_pairs("conflict", added.conflicts)
    say(f"stored in {database}" if added.stored else f"{database} already has this opinion")


def _add_place(parser: CommandParser) -> None:
    parser.add_argument("--run", type=Path, metavar="RUN", help=f"the run whose feedback it is: RUN/{DATABASE}")
    parser.add_argument("--db", type=Path, metavar="FILE", help="another database than that of the run")


def _place(options: argparse.Namespace) -> tuple[Path, tuple[str, ...] | None]:
    """Return the database, and the genres of the run if one is named.

    Raises:
        ConfigError: Neither is named.
        CheckpointError: The run cannot be used.
    """
    if options.run is None:
        if options.db is None:
            raise ConfigError("the database is not named: give --run RUN or --db FILE")
        return options.db, None
    run = RunDirectory(options.run)
    run.require_trained()
    return options.db or run.path / DATABASE, _genres_of(run)


def _genres_of(run: RunDirectory) -> tuple[str, ...]:
    from genre_lightning.evaluation.decisions import read_decision

    return read_decision(run.decision, run.again).genres


def _imported(rows: Sequence[Feedback], empty: int, added: Added) -> str:
    tagged = [row for row in rows if row.predicted is not None]
    same = sum(set(row.genres) == set(row.predicted or ()) for row in tagged)
    parts = [f"{added.stored:,} opinions stored"]
    if tagged:
        parts.append(f"{same:,} of {len(tagged):,} agree with the suggestion")
    parts += [f"{added.repeated:,} were there already"] if added.repeated else []
    parts += [f"{empty:,} rows without genres"] if empty else []
    return ", ".join(parts)


def _pair(before: Feedback, after: Feedback) -> dict[str, object]:
    return {
        "text": after.text,
        "before": {"user": before.user, "time": before.time, "genres": before.genres},
        "after": {"user": after.user, "time": after.time, "genres": after.genres},
    }


def print_pairs(kind: str, pairs: Sequence[tuple[Feedback, Feedback]]) -> None:
    """Print who changed or contradicts which opinion, with both names, dates and genres."""
    for before, after in pairs[:_SHOWN]:
        film = " ".join((after.title or after.text).split())[:60]
        opinions = (f"{row.user} ({row.time[:10]}): {', '.join(row.genres) or 'none'}" for row in (before, after))
        say(f"{kind}: {film!r}: {', then '.join(opinions)}")
    if len(pairs) > _SHOWN:
        say(f"{kind}: {len(pairs) - _SHOWN:,} more; --json lists all")


def _print_statistics(found: Statistics, periods: int) -> None:
    from rich import box
    from rich.table import Table

    from genre_lightning.evaluation.console import console_of, figure_text

    console = console_of(sys.stdout)
    users = ", ".join(f"{name} {count:,}" for name, count in found.users.most_common())
    console.print(f"{found.rows:,} opinions of {found.texts:,} texts, {found.disputed:,} of them disputed; by {users}")
    if not found.predicted:
        return
    console.print(f"{found.exact:,} of {found.predicted:,} opinions are exactly the predicted genres")
    table = Table(title="agreement for each genre (films)", title_justify="left", box=box.ASCII)
    table.add_column("genre")
    shown = list(found.over_time)[-periods:]
    for name in ("agreed", "wrong", "missed", "agreement", *shown):
        table.add_column(name, justify="right")
    for genre, counts in sorted(found.genres.items(), key=lambda item: -item[1].films):
        over_time = [found.over_time[period].get(genre) for period in shown]
        cells = ["-" if one is None else f"{figure_text(one.fraction)} ({one.films})" for one in over_time]
        figures = (counts.agreed, counts.wrong, counts.missed)
        table.add_row(genre, *(f"{n:,}" for n in figures), figure_text(counts.fraction), *cells)
    console.print(table)


def database_to_read(given: Path | None, run: Path) -> Path:
    """Return the database to read: that of `--db`, or the run's own; neither need exist yet."""
    if given is not None and not given.exists():
        say(f"--db {given} does not exist: no feedback is read")
    return given or run / DATABASE
