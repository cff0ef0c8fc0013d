"""`genre-lightning features`: vectors of films from other sources, as files that `data.join` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.bounds import SEED, at_least
from genre_lightning.commands.arguments import CommandParser, check_out, within
from genre_lightning.errors import ConfigError
from genre_lightning.progress import answer, say


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
    check_out(options.out, ".parquet", reads=filter(None, (options.file, options.links)))
    from genre_lightning.features.ratings import film_vectors, read_ratings
    from genre_lightning.features.vectors import write_vectors

    read = read_ratings(options.file, options.links)
    films = film_vectors(read, options.dimensions, options.seed)
    write_vectors(options.out, films.ids, films.vectors, ratings=films.ratings, mean_rating=films.means)
    left_out = f"; {read.unlinked:,} ratings of films without an id were left out" if read.unlinked else ""
    say(f"{len(read.values):,} ratings of {len(films.ids):,} films, {options.dimensions} dimensions{left_out}")
    answer(options.out)
    return 0


def posters(arguments: Sequence[str]) -> int:
    """Write film vectors from posters."""
    parser = CommandParser(
        "features posters",
        "Writes a vector for each poster in a folder, from the vision model of CLIP or SigLIP. The file has the "
        "columns id and vector. Started again after an interruption, it resumes.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="IMAGES", help="JPEG, PNG, WebP, GIF or BMP files at any depth, each named by "
        "its film's id, such as 862.jpg, or with --data.csv by its poster_path"
    )  # fmt: skip
    parser.add_argument("--backbone", required=True, help="a local directory or a model of the hub, such as "
                        "openai/clip-vit-base-patch32")  # fmt: skip
    parser.add_argument("--revision", help="commit or tag of the backbone on the hub")
    parser.add_argument("--data.csv", dest="csv", type=Path, help="a movies file with the columns id and poster_path")
    parser.add_argument("--out", type=Path, required=True, help="the .parquet file to write")
    parser.add_argument("--device", default="auto", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument(
        "--batch_size", type=within(int, at_least(1, 4096)), default=32, help="images at once (default: 32)"
    )
    options = parser.parse_args(list(arguments))
    check_out(options.out, ".parquet", reads=filter(None, (options.csv,)))
    if not options.folder.is_dir():
        raise ConfigError(f"no such folder: {options.folder}: name the folder of the posters")
    from genre_lightning.features.posters import find_posters, poster_files

    found, strangers = find_posters(options.folder, poster_files(options.csv) if options.csv else None)

    from genre_lightning.cache import default_cache_dir
    from genre_lightning.distributed.precision import accelerator_of, device_named
    from genre_lightning.features.posters import load_backbone, poster_vectors
    from genre_lightning.features.vectors import write_vectors

    device = device_named(accelerator_of("auto") if options.device == "auto" else options.device)
    backbone = load_backbone(options.backbone, options.revision, device)
    vectors = poster_vectors(found, backbone, default_cache_dir() / "posters", batch_size=options.batch_size)
    write_vectors(options.out, vectors.ids, vectors.vectors)
    say(f"{len(vectors.ids):,} vectors of {vectors.vectors.shape[1]} dimensions")
    if strangers:
        say(f"{strangers:,} images are of no film, or of one that has another image already")
    for reason, count in vectors.unreadable.most_common():
        say(f"{count:,} images were left out: {reason}")
    answer(options.out)
    return 0
