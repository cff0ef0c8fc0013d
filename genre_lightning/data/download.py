"""The Movies Dataset from Kaggle: fetched by kagglehub, checked, and put in its place whole."""

from __future__ import annotations

import shutil
from pathlib import Path

from genre_lightning.config.columns import ColumnNames, FilmSource, TextTemplate
from genre_lightning.data.movies import Audit, Reading, guess_shapes, read_movies
from genre_lightning.errors import ConfigError, DataError, one_line
from genre_lightning.files import replacing

HANDLE = "rounakbanik/the-movies-dataset"
FILE = "movies_metadata.csv"
PAGE = f"https://www.kaggle.com/datasets/{HANDLE}"

_FEWEST_FILMS = 1000
"""A file of fewer is not the dataset, whatever its header is."""


def download_movies(folder: Path) -> tuple[Path, Audit, bool]:
    """Bring movies_metadata.csv into a folder; one that is there already is only checked.

    Args:
        folder: Made if needed.

    Returns:
        The file, what became of its rows, and whether it was fetched now.

    Raises:
        ConfigError: kagglehub is not installed, or the folder cannot be written.
        DataError: The file cannot be fetched, or is not the dataset's; the folder is as it was.
    """
    target = folder / FILE
    if target.exists():
        return target, _audit(target), False
    fetched = _fetch(target)
    audit = _audit(fetched)
    try:
        with replacing(target) as draft:
            shutil.copyfile(fetched, draft)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written ({error.strerror or error}): free space there, or name another directory"
        ) from None
    return target, audit, True


def _by_hand(target: Path) -> str:
    return f"or download {FILE} from {PAGE} by hand and put it at {target}"


def _fetch(target: Path) -> Path:
    try:
        import kagglehub
    except ImportError:
        raise ConfigError(f"kagglehub is not installed: run 'pip install kagglehub', {_by_hand(target)}") from None
    try:
        found = Path(kagglehub.dataset_download(HANDLE, path=FILE))
    except Exception as error:  # no network, no account, no room: each library below it has kinds of its own
        raise DataError(
            f"{HANDLE} cannot be fetched ({one_line(error)[:160]}): try again with network, {_by_hand(target)}"
        ) from None
    return found / FILE if found.is_dir() else found


def _audit(file: Path) -> Audit:
    source = FilmSource(file, ColumnNames(), TextTemplate("{overview}"))
    reading = Reading(source)
    for _ in read_movies(reading, guess_shapes(source)):
        pass
    audit = reading.audit
    if audit.kept < _FEWEST_FILMS:
        raise DataError(
            f"{file} has {audit.rows:,} rows and {audit.kept:,} films, too few for {HANDLE}: delete it, then try again"
        )
    return audit
