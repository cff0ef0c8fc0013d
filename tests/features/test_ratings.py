"""Film vectors from users' ratings, against a dense SVD, and what files are refused."""

import gzip
import re
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

from genre_lightning.__main__ import main
from genre_lightning.errors import DataError
from genre_lightning.features.ratings import Ratings, film_vectors, read_ratings

ROWS = [(u, f, 1 + (u * f) % 5) for u in range(1, 13) for f in range(1, 31) if (u + f * f) % 3]


@pytest.fixture
def files(tmp_path):
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("userId,movieId,rating,timestamp\n" + "".join(f"{u},{f},{r},0\n" for u, f, r in ROWS))
    links = tmp_path / "links.csv"
    # film 30 has no id in the movies file
    links.write_text(
        "movieId,imdbId,tmdbId\n" + "".join(f"{f},{f:07},{f + 1000 if f < 30 else ''}\n" for f in range(1, 31))
    )
    return ratings, links


def dense(rows):
    matrix = np.zeros((30, 12))
    for u, f, r in rows:
        matrix[f - 1, u - 1] = r
    weights = np.log((1 + len(matrix)) / (1 + (matrix > 0).sum(axis=0))) + 1
    return matrix * weights


def test_vectors_equal_a_dense_svd(files):
    films = film_vectors(read_ratings(files[0]), dimensions=4, seed=0)
    left, values, _ = np.linalg.svd(dense(ROWS), full_matrices=False)
    expected = left[:, :4] * values[:4]
    np.testing.assert_allclose(np.abs(films.vectors), np.abs(expected), atol=2e-3 * values[0])
    assert films.ids.tolist() == list(range(1, 31))
    by_film = [[r for _, f, r in ROWS if f == film] for film in films.ids]
    assert films.ratings.tolist() == [len(of) for of in by_film]
    np.testing.assert_allclose(films.means, [np.mean(of) for of in by_film], rtol=1e-6)


def test_equal_seeds_give_equal_vectors(files):
    read = read_ratings(files[0])
    one, two = (film_vectors(read, 4, seed=3).vectors for _ in range(2))
    assert (one == two).all()


def test_ids_as_pandas_writes_them(files, tmp_path):
    links = tmp_path / "floats.csv"
    links.write_text(re.sub(r"(\d+)$", r"\1.0", files[1].read_text(), flags=re.MULTILINE))
    assert "1001.0" in links.read_text()
    expected, found = (read_ratings(files[0], each) for each in (files[1], links))
    assert (found.films == expected.films).all()
    links.write_text("movieId,tmdbId\n1,1001.5\n")
    with pytest.raises(DataError, match="not whole numbers"):
        read_ratings(files[0], links)


def test_ratings_as_pandas_writes_them(files, tmp_path):
    written = tmp_path / "written.csv"
    written.write_text("userId,movieId,rating\n" + "".join(f"{u}.0,{f}.0,{r}\n" for u, f, r in ROWS))
    found, expected = read_ratings(written), read_ratings(files[0])
    np.testing.assert_array_equal(found.films, expected.films)
    np.testing.assert_array_equal(found.users, expected.users)


def test_a_film_rated_twice_by_a_user_has_the_mean():
    one = Ratings(*(np.array(a, np.int32) for a in ([1, 1, 2, 3, 3], [1, 1, 1, 2, 3])), np.float32([2, 4, 5, 1, 3]))
    merged = Ratings(*(np.array(a, np.int32) for a in ([1, 2, 3, 3], [1, 1, 2, 3])), np.float32([3, 5, 1, 3]))
    a, b = (film_vectors(ratings, 2, seed=0) for ratings in (one, merged))
    np.testing.assert_allclose(a.vectors, b.vectors, rtol=1e-6)
    assert a.ratings.tolist() == [1, 1, 2]
    assert a.means.tolist() == [3, 5, 2]


def test_the_command_writes_the_ids_of_the_movies_file(files, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    ratings, links = files
    assert main(["features", "ratings", str(ratings), "--links", str(links), "--out", str(out), "--dimensions=3"]) == 0
    table = pq.read_table(out)
    assert table.column_names == ["id", "ratings", "mean_rating", "vector"]
    assert table["id"].to_pylist() == [f + 1000 for f in range(1, 30)]
    assert table["vector"].type.list_size == 3
    unlinked = sum(f == 30 for _, f, _ in ROWS)
    assert f"{unlinked} ratings of films without an id were left out" in capsys.readouterr().err


def test_a_gzip_file_is_read(files, tmp_path):
    packed = tmp_path / "ratings.csv.gz"
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    assert (read_ratings(packed).values == read_ratings(files[0]).values).all()


def test_a_huge_movie_id_costs_no_memory(files):
    ratings, links = files
    plain = read_ratings(ratings, links)
    links.write_text(links.read_text() + f"{2**31 - 1},1,7\n")
    tracemalloc.start()
    read = read_ratings(ratings, links)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert (read.films == plain.films).all()


def test_a_gzip_file_that_unpacks_to_far_more_is_refused(tmp_path):
    packed = tmp_path / "ratings.csv.gz"
    packed.write_bytes(gzip.compress(b"userId,movieId,rating\n" + b"1,2,3\n" * 10**6))
    with pytest.raises(DataError, match="more than 50 times the size"):
        read_ratings(packed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "cannot be read"),
        ("userId,movieId\n1,2\n", "'rating'"),
        ("userId,movieId,rating\n1,2,good\n", "all numbers"),
        ("userId,movieId,rating\n1,,3\n", "ids that are missing"),
        ("userId,movieId,rating\n1,-2,3\n", "ids that are missing"),
        ("userId,movieId,rating\n1,99999999999,3\n", "ids that are missing"),
        ("userId,movieId,rating\n1,2,nan\n", "not finite"),
        ("userId,movieId,rating\n1,2,-1\n", "negative"),
        ("userId,movieId,rating\n", "no ratings"),
        ("userId,movieId,rating\n1,2,3\n2,3,4\n", "too few for 2 dimensions: give a file of more ratings"),
    ],
)
def test_a_bad_file_is_one_line(content, said, tmp_path, capsys):
    ratings, out = tmp_path / "ratings.csv", tmp_path / "out.parquet"
    if content is not None:
        ratings.write_text(content)
    assert main(["features", "ratings", str(ratings), "--out", str(out), "--dimensions=2"]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_links_of_another_file_are_refused(files, tmp_path):
    links = tmp_path / "others.csv"
    links.write_text("movieId,tmdbId\n500,1\n")
    with pytest.raises(DataError, match="--links"):
        read_ratings(files[0], links)


def test_the_output_must_be_a_parquet_file(files, tmp_path, capsys):
    assert main(["features", "ratings", str(files[0]), "--out", str(tmp_path / "out.csv")]) == 2
    assert ".parquet" in capsys.readouterr().err
