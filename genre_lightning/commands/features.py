"""`genre-lightning features`: vectors of films from other sources, as files that `data.join` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.bounds import SEED, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.errors import ConfigError
from genre_lightning.files import check_output
from genre_lightning.progress import answer, say


def _check_parquet(path: Path) -> None:
    """Refuse an output that is no place for a Parquet file."""
    if path.suffix != ".parquet":
        raise ConfigError(f"--out {path} does not end in .parquet: give such a file")
    check_output(path, "--out")


def ratings(arguments: Sequence[str]) -> int:
    """Write film vectors from what users rate."""
    parser = CommandParser(
        "features ratings",
        "Writes a vector for each film from what users rate: a truncated SVD of the matrix of films and users, "
        "weighted by TF-IDF. The file has the columns id, ratings, mean_rating and vector.",
    )
    parser.add_argument("file", type=Path, metavar="RATINGS", help="a CSV with userId, movieId and rating")
    parser.add_argument(
        "--links", type=Path, help="a CSV with movieId and tmdbId, the film's id in the movies file; "
        "without it the movieId is that id"
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the .parquet file to write")
    parser.add_argument(
        "--dimensions", type=within(int, at_least(2, 1024)), default=48, help="of a vector (default: 48)"
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="equal seeds, equal vectors (default: 0)")
    options = parser.parse_args(list(arguments))
    _check_parquet(options.out)
    from genre_lightning.features.ratings import film_vectors, read_ratings, write_vectors

    read = read_ratings(options.file, options.links)
    films = film_vectors(read, options.dimensions, options.seed)
    write_vectors(options.out, films)
    left_out = f"; {read.unlinked:,} ratings of films without an id were left out" if read.unlinked else ""
    say(f"{len(read.values):,} ratings of {len(films.ids):,} films, {options.dimensions} dimensions{left_out}")
    answer(options.out)
    return 0
