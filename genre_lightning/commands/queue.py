"""`genre-lightning queue`: which films people should label next, as a table that they fill in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.bounds import SEED, Bounds, at_least
from genre_lightning.commands.arguments import CommandParser, check_out, within
from genre_lightning.commands.feedback import DATABASE, database_to_read
from genre_lightning.commands.new_film_options import add_new_film_options, read_new_film_options
from genre_lightning.compat import import_lightning
from genre_lightning.errors import ConfigError
from genre_lightning.progress import answer, say


def queue(arguments: Sequence[str]) -> int:
    """Write the films to label."""
    parser = CommandParser(
        "queue",
        "Writes the films to label next: those that the run is least sure about, those that may have rare genres, "
        "and not all of one kind. Films that the run was trained, validated or tested on are left out, as are those "
        "with feedback. Fill in the column genres ('ok' accepts the suggestion), then run 'feedback import'.",
    )
    add_new_film_options(parser, "films without labels; genres in it are not looked at")
    parser.add_argument("--size", type=within(int, at_least(1, 100_000)), default=200, help="films (default: 200)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .csv file to write")
    parser.add_argument(
        "--rare",
        type=within(float, Bounds(0, 1)),
        default=0.3,
        help="weight of rare genres beside uncertainty (default: 0.3)",
    )
    parser.add_argument("--db", type=Path, metavar="FILE", help=f"feedback database (default: RUN/{DATABASE})")
    parser.add_argument(
        "--other_ids",
        action="store_true",
        help="ids of the file are not those of the training file: compare texts alone",
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="of the clusters (default: 0)")
    options = parser.parse_args(list(arguments))
    check_out(options.out, ".csv")
    if options.out.exists():
        raise ConfigError(f"--out {options.out} exists, and people may have filled it in: name another, or delete it")
    database = database_to_read(options.db, options.run)
    films = read_new_film_options(options)
    import_lightning()
    from genre_lightning.files import write_csv
    from genre_lightning.learning.queue import KnownFilms, labelled_in, make_queue
    from genre_lightning.progress import task_progress

    known = KnownFilms(labelled_in(database))
    scorer, file = films.open()
    known.of_run(films.run, same_ids=not options.other_ids and file.has_ids)
    with task_progress("Scoring films", file.count()) as done:
        made = make_queue(
            file,
            scorer,
            films.run,
            known,
            size=options.size,
            rare_weight=options.rare,
            seed=options.seed,
            done=done or (lambda rows: None),
        )
    write_csv(options.out, made.rows)
    say(
        f"{len(made.rows):,} of {made.candidates:,} films; left out: {made.known:,} that are the run's own, labelled "
        f"or there twice, {made.unreadable:,} without an overview"
    )
    answer(options.out)
    return 0
