"""Film vectors from what users rate: a truncated SVD of the weighted matrix of films and users.

A film is described by its users as a text is by its words (latent semantic analysis; Deerwester et al., 1990): the
rating is the term's count, and a user who rates many films counts less, by the smoothed inverse document frequency
ln((1 + films) / (1 + films of the user)) + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
from numpy.typing import NDArray

from genre_lightning.errors import DataError, one_line
from genre_lightning.progress import ReadShare, file_progress

# pandas writes whole numbers beside empty cells as 862.0
_RATING_COLUMNS = {"userId": pa.float64(), "movieId": pa.float64(), "rating": pa.float32()}
_LINK_COLUMNS = {"movieId": pa.float64(), "tmdbId": pa.float64()}
_LARGEST_ID = 2**31
"""Ids are kept in 32 bits, so that 26 million ratings take 0.3 GB."""
_BLOCK_BYTES = 4 << 20
_MAX_EXPANSION = 50
"""Bytes of numbers for each byte of a file: ratings take 4, or 10 if they are compressed."""


@dataclass(frozen=True)
class Ratings:
    """Ratings of films by users, one row for each.

    Attributes:
        films: int32 (ratings,).
        users: int32 (ratings,).
        values: float32 (ratings,).
        unlinked: Ratings of films that the links give no id for, left out.
    """

    films: NDArray[np.int32]
    users: NDArray[np.int32]
    values: NDArray[np.float32]
    unlinked: int = 0


@dataclass(frozen=True)
class FilmVectors:
    """Vectors of films from users' ratings, in the order of their ids.

    Attributes:
        ids: int32 (films,).
        ratings: int32 (films,): How many there are.
        means: float32 (films,): Mean rating.
        vectors: float32 (films, dimensions).
    """

    ids: NDArray[np.int32]
    ratings: NDArray[np.int32]
    means: NDArray[np.float32]
    vectors: NDArray[np.float32]


def read_ratings(path: Path, links: Path | None = None) -> Ratings:
    """Read a file of ratings in the form of MovieLens, in blocks, 12 bytes kept of each.

    Args:
        path: A .csv or .csv.gz file with the columns userId, movieId and rating.
        links: A .csv or .csv.gz file with the columns movieId and tmdbId, which is the id in the movies file; None
            takes the movieId itself.

    Raises:
        DataError: A file cannot be read, lacks a column, or has values that are not numbers.
    """
    linked, ids = _read_links(links) if links else (np.zeros(0, np.int32),) * 2
    films, users, values = [], [], []
    unlinked = 0
    share = ReadShare()
    with file_progress(f"reading {path.name}", share) as count:
        for block in _blocks(path, _RATING_COLUMNS, share):
            film, user = _ids(block["movieId"], path), _ids(block["userId"], path)
            value = block["rating"].to_numpy(zero_copy_only=False)
            if not np.isfinite(value).all() or (value < 0).any():
                raise DataError(f"{path} has ratings that are negative or not finite: give ratings from 0 on")
            if links is not None:
                place = np.minimum(np.searchsorted(linked, film), len(linked) - 1)
                known = linked[place] == film
                unlinked += int((~known).sum())
                film, user, value = ids[place[known]], user[known], value[known]
            films.append(film)
            users.append(user)
            values.append(value)
            count(block.num_rows)
    if not sum(map(len, films)):
        fix = "check that --links belongs to it" if links else "give another file"
        raise DataError(f"{path} has no ratings of a film with an id: {fix}")
    return Ratings(np.concatenate(films), np.concatenate(users), np.concatenate(values), unlinked)


def film_vectors(ratings: Ratings, dimensions: int, seed: int) -> FilmVectors:
    """Compute a vector for each rated film; equal seeds give equal vectors on one machine.

    A film that a user has rated more than once has the mean of these ratings.

    Args:
        ratings: As `read_ratings` gives them.
        dimensions: Of a vector.
        seed: For the random projection of the SVD (Halko, Martinsson and Tropp, 2011).

    Raises:
        DataError: There are too few films or users for that many dimensions.
    """
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD

    ids, film = _numbered(ratings.films)
    accounts, user = _numbered(ratings.users)
    if dimensions >= (fewest := min(len(ids), len(accounts))):
        fix = f"give --dimensions below {fewest}" if fewest > 2 else "give a file of more ratings"
        raise DataError(
            f"{len(accounts):,} users have rated {len(ids):,} films, too few for {dimensions} dimensions: {fix}"
        )
    shape = (len(ids), len(accounts))
    sums = sparse.csr_matrix((ratings.values, (film, user)), shape=shape, dtype=np.float32)
    if sums.nnz < len(ratings.values):
        sums.data /= sparse.csr_matrix((np.ones_like(ratings.values), (film, user)), shape=shape).data
    del film, user
    of_film, of_user = sums.getnnz(axis=1).astype(np.int32), sums.getnnz(axis=0)
    means = np.asarray(sums.sum(axis=1)).ravel() / of_film
    weights = np.log((1 + len(ids)) / (1 + of_user)) + 1
    sums.data *= weights.astype(np.float32)[sums.indices]
    vectors = TruncatedSVD(dimensions, random_state=seed).fit_transform(sums)
    return FilmVectors(ids, of_film, means.astype(np.float32), vectors.astype(np.float32))


def _numbered(values: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the distinct values in their order, and the place of each value among them."""
    distinct, places = np.unique(values, return_inverse=True)
    return distinct, places.astype(np.int32)


def _read_links(path: Path) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the movieIds that have an id, in their order, and the film's id for each."""
    tables = list(_blocks(path, _LINK_COLUMNS))
    linked = pa.Table.from_batches(tables).drop_null() if tables else None
    if not linked:
        raise DataError(f"{path} links no movieId to a tmdbId: give the links.csv that belongs to the ratings")
    films, ids = (_ids(linked[name].combine_chunks(), path) for name in _LINK_COLUMNS)
    # of a movieId that is linked twice, the last one counts
    films, last = np.unique(films[::-1], return_index=True)
    return films, ids[::-1][last]


def _blocks(path: Path, columns: dict[str, pa.DataType], share: ReadShare | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV, a block at a time."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise OSError("it is not a file")
        with path.open("rb") as file:
            if share:
                share.measure = lambda: file.tell() / max(size, 1)
            stream = pa.PythonFile(file, mode="r")
            if path.name.lower().endswith(".gz"):
                stream = pa.CompressedInputStream(stream, "gzip")
            options = pv.ConvertOptions(column_types=columns, include_columns=list(columns), strings_can_be_null=True)
            reading = pv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
            unpacked = 0
            for block in pv.open_csv(stream, read_options=reading, convert_options=options):
                unpacked += block.nbytes
                if unpacked > _MAX_EXPANSION * size + _BLOCK_BYTES:
                    raise pa.ArrowInvalid(f"its rows take more than {_MAX_EXPANSION} times the size of the file")
                yield block
    except (OSError, KeyError, pa.ArrowException) as error:
        names = " and ".join((", ".join(list(columns)[:-1]), list(columns)[-1]))
        raise DataError(
            f"{path} cannot be read as a table of {names} ({one_line(error)[:200]}): give a .csv or .csv.gz file with "
            "these columns, all numbers"
        ) from None


def _ids(column: pa.Array | pa.ChunkedArray, path: Path) -> NDArray[np.int32]:
    """Return the ids in 32 bits.

    Raises:
        DataError: One is missing, negative, larger or not whole.
    """
    values = column.to_numpy(zero_copy_only=False)
    right = len(values) == 0 or (0 <= values.min() <= values.max() < _LARGEST_ID and not (values % 1).any())
    if column.null_count or not right:
        raise DataError(
            f"{path} has ids that are missing or not whole numbers below {_LARGEST_ID:,}: correct or drop these rows"
        )
    return np.asarray(values, dtype=np.int32)
