"""Joined files: films are found by id, every row is counted, and what cannot be joined is refused in one line."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre_lightning.config.data import DataOptions
from genre_lightning.data.films import load_films
from genre_lightning.data.join_rows import join_key
from genre_lightning.data.movies import check_data
from genre_lightning.errors import ConfigError, DataError

DRAMA = "[{'id': 18, 'name': 'Drama'}]"
FILMS = [[str(n), f"tt{n:07}", f"Film {n}", f"A man number {n} walks.", DRAMA] for n in range(1, 7)]
KEYWORDS = {"column": "keywords", "kind": "tags"}


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def movies(tmp_path):
    return write(tmp_path / "movies.csv", ["id", "imdb_id", "title", "overview", "genres"], FILMS)


def load(movies, tmp_path, join, features=(KEYWORDS,), **options):
    options = DataOptions(movies, join=join, features=list(features), **options)
    check_data(options)
    return load_films(options.source, tmp_path / "cache")


def test_rows_are_matched_and_counted(movies, tmp_path):
    rows = [
        ["1.0", "[{'name': 'toy'}, {'name': 'boy, young'}]"],
        [" 2 ", '["heist"]'],
        ["2", "a second row"],
        ["4", "war; peace"],
        ["5", "[]"],
        ["99", "nobody"],
        ["", "no key"],
    ]
    keywords = write(tmp_path / "keywords.csv", ["id", "keywords"], rows)
    films = load(movies, tmp_path, [{"file": keywords}])
    assert films.table["input:keywords"].to_pylist() == [
        ["toy", "boy, young"], ["heist"], None, ["war", "peace"], None, None,
    ]  # fmt: skip
    (audit,) = films.joins
    assert audit == {
        "file": "keywords.csv", "key": "id", "rows": 7, "duplicate_keys": 1, "rows_without_key": 1,
        "films_matched": 4, "films_unmatched": 2, "rows_unmatched": 1,
    }  # fmt: skip
    assert films.inputs == {"keywords": {"known": 3, "missing": 3, "malformed": 0}}


def test_a_relative_file_is_found_beside_the_movies_file(movies, tmp_path):
    write(tmp_path / "keywords.csv", ["id", "keywords"], [["1", "heist"]])
    films = load(movies, tmp_path, [{"file": "keywords.csv"}])
    assert films.table["input:keywords"].to_pylist()[0] == ["heist"]


@pytest.mark.parametrize("keys", [["tt0000003", "tt0000005"], ["3", "0000005"]])
def test_imdb_ids(movies, tmp_path, keys):
    file = write(tmp_path / "k.csv", ["tconst", "keywords"], [[key, "heist"] for key in keys])
    films = load(movies, tmp_path, [{"file": file, "key": "tconst", "on": "imdb_id"}])
    assert films.table["input:keywords"].to_pylist() == [None, None, ["heist"], None, ["heist"], None]


@pytest.mark.parametrize("join", [{}, {"to": "imdbId", "on": "imdb_id"}])
def test_films_are_found_through_a_file_of_links(movies, tmp_path, join):
    links = [["11", "0000001", "1"], ["13", "0000003", "3.0"], ["15", "", ""], ["13", "0000006", "6"]]
    write(tmp_path / "links.csv", ["movieId", "imdbId", "tmdbId"], links)
    rows = [["13", "heist"], ["13", "again"], ["99", "no link"], ["15", "no film"], ["", "no key"], ["3", "film 3"]]
    write(tmp_path / "tags.csv", ["movieId", "keywords"], rows)
    films = load(movies, tmp_path, [{"file": "tags.csv", "key": "movieId", "via": "links.csv", **join}])
    assert films.table["input:keywords"].to_pylist() == [None, None, ["heist"], None, None, None]
    (audit,) = films.joins
    assert audit == {
        "file": "tags.csv", "key": "movieId", "via": "links.csv", "rows": 6, "duplicate_keys": 1,
        "rows_without_key": 1, "rows_without_link": 3, "films_matched": 1, "films_unmatched": 5, "rows_unmatched": 0,
    }  # fmt: skip
    links[0][1:], links[1][1:] = links[1][1:], links[0][1:]  # the films change with the links alone
    write(tmp_path / "links.csv", ["movieId", "imdbId", "tmdbId"], links)
    again = load(movies, tmp_path, [{"file": "tags.csv", "key": "movieId", "via": "links.csv", **join}])
    assert again.table["input:keywords"].to_pylist()[0] == ["heist"]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"via": "gone.csv"}, "k.csv names via .*gone.csv, which is not a file: give its path"),
        ({"via": "links.csv", "key": "film"}, "k.csv has no column 'film'"),
        ({"via": "links.csv", "key": "keywords"}, "linked by 'keywords', and .*links.csv has no such column"),
        ({"via": "links.csv", "to": "imdb"}, "links.csv has no column 'imdb' .movieId, tmdbId.: set to to its column"),
    ],
)
def test_links_that_cannot_be_used_are_refused_by_the_headers(movies, tmp_path, join, message):
    write(tmp_path / "k.csv", ["movieId", "keywords"], [["1", "heist"]])
    write(tmp_path / "links.csv", ["movieId", "tmdbId"], [["1", "1"]])
    with pytest.raises(DataError, match=message) as refusal:
        check_data(DataOptions(movies, join=[{"file": "k.csv", "key": "movieId", **join}], features=[KEYWORDS]))
    assert "\n" not in str(refusal.value)


def test_links_to_no_film(movies, tmp_path):
    write(tmp_path / "k.csv", ["movieId", "keywords"], [["1", "heist"]])
    write(tmp_path / "links.csv", ["movieId", "tmdbId"], [["1", "tt0000001"]])
    with pytest.raises(DataError, match=r"none of its 1 rows matches a film through 'tmdbId' of links.csv .*set to"):
        load(movies, tmp_path, [{"file": "k.csv", "key": "movieId", "via": "links.csv"}])


def test_a_column_of_links_without_the_file_of_links(movies):
    with pytest.raises(ConfigError, match=r"data.join k.csv: to is 'imdbId', a column of via: set via"):
        DataOptions(movies, join=[{"file": "k.csv", "to": "imdbId"}])


@pytest.mark.parametrize(
    ("cell", "key"), [("862.0", "862"), (862, "862"), (862.0, "862"), ("tt0114709", "tt0114709"), ("", None)]
)
def test_keys(cell, key):
    assert join_key(cell) == key


def test_long_keys_are_kept_apart():
    one, two = (join_key("x" * 200 + end) for end in "ab")
    assert one != two
    assert join_key("x" * 200 + "a") == one


def test_a_join_that_nothing_is_read_from_is_reported(movies, tmp_path, capfd):
    write(tmp_path / "k.csv", ["id", "keywords"], [["1", "toy"]])
    load(movies, tmp_path, [{"file": "k.csv"}], features=())
    assert "k.csv is joined, and no column of it is read" in capfd.readouterr().err


def test_columns_of_several_files_are_named_by_their_file(movies, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", ["id", "tags", name], [["1", f"from {name}", "x"]])
    join = [{"file": "a.csv"}, {"file": "b.csv"}]
    films = load(movies, tmp_path, join, [{"column": "b.tags", "kind": "tags"}, {"column": "a", "kind": "category"}])
    assert films.table["input:b.tags"].to_pylist()[0] == ["from b"]
    with pytest.raises(DataError, match=r"several joined files: name a.tags and b.tags"):
        load(movies, tmp_path, join, [{"column": "tags", "kind": "tags"}])


def test_a_joined_column_in_the_template(movies, tmp_path):
    write(tmp_path / "keywords.csv", ["id", "keywords"], [["1", "[{'name': 'toy'}]"]])
    films = load(movies, tmp_path, [{"file": "keywords.csv"}], [], text="{overview} {keywords}")
    assert films.strings("text")[:2] == ["A man number 1 walks. toy", "A man number 2 walks."]


def test_vectors_of_a_parquet_file(movies, tmp_path):
    table = pa.table({"id": [1, 2], "vector": [[0.5, 1.0], None]})
    pq.write_table(table, tmp_path / "v.parquet")
    films = load(movies, tmp_path, [{"file": "v.parquet"}], [{"column": "vector", "kind": "vector"}])
    assert films.table["input:vector"].to_pylist()[:2] == [[0.5, 1.0], None]


def test_lines_of_json(movies, tmp_path):
    lines = [{"id": "1", "keywords": ["toy", "boy"]}, {"id": 2}]
    (tmp_path / "k.jsonl").write_text("\n".join(map(json.dumps, lines)))
    films = load(movies, tmp_path, [{"file": "k.jsonl"}])
    assert films.table["input:keywords"].to_pylist()[:2] == [["toy", "boy"], None]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"file": "gone.csv"}, "gone.csv, which is not a file: give its path"),
        ({"file": "k.csv", "key": "film"}, "has no column 'film' .id, keywords.: set key to its column of ids"),
        ({"file": "k.csv", "on": "imdb"}, "matched on the column 'imdb', which .* does not have"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_the_headers(movies, tmp_path, join, message):
    write(tmp_path / "k.csv", ["id", "keywords"], [["tt1", "heist"]])
    with pytest.raises(DataError, match=message) as refusal:
        check_data(DataOptions(movies, join=[join], features=[KEYWORDS]))
    assert "\n" not in str(refusal.value)


def test_ids_of_another_kind(movies, tmp_path):
    write(tmp_path / "k.csv", ["id", "keywords"], [["tt0000001", "heist"]])
    with pytest.raises(DataError, match=r"none of its 1 rows matches a film .*'tt0000001'.*such as '1'.*imdb_id"):
        load(movies, tmp_path, [{"file": "k.csv"}])


def test_a_feature_without_its_column(movies, tmp_path):
    write(tmp_path / "k.csv", ["id", "words"], [["1", "heist"]])
    with pytest.raises(DataError, match=r"names the column 'keywords', .*k.csv has id, words.*data.join"):
        check_data(DataOptions(movies, join=[{"file": "k.csv"}], features=[KEYWORDS]))


def test_what_a_joined_file_holds_names_the_films(movies, tmp_path):
    write(tmp_path / "k.csv", ["id", "keywords"], [["1", "heist"]])
    first = load(movies, tmp_path, [{"file": "k.csv"}])
    assert load(movies, tmp_path, [{"file": "k.csv"}]).digest == first.digest
    write(tmp_path / "k.csv", ["id", "keywords"], [["1", "war"]])
    second = load(movies, tmp_path, [{"file": "k.csv"}])
    assert second.digest != first.digest
    assert second.table["input:keywords"].to_pylist()[0] == ["war"]


def test_genres_of_a_joined_file_are_refused_in_the_text(movies):
    with pytest.raises(ConfigError, match=r"holds \{movies\.genres\}, the genres that the model is to predict"):
        DataOptions(movies, join=[{"file": movies}], text="{overview} {movies.genres}")


def test_a_column_that_is_twice_in_a_joined_file(movies, tmp_path):
    keywords = write(tmp_path / "keywords.csv", ["id", "keywords", "keywords"], [["1", "a", "b"]])
    with pytest.raises(DataError, match=r"data\.join .*keywords\.csv has 2 columns 'keywords'"):
        load(movies, tmp_path, [{"file": keywords}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"join": ["keywords.csv"]}, r"data\.join has 'keywords\.csv': give mappings of file, key, on, via, to"),
        ({"features": ["keywords"]}, r"data\.features has 'keywords': give mappings of column, kind"),
        ({"features": [{"column": "a", "kind": "tag"}]}, r"kind is 'tag': give text, tags"),
        ({"features": [{"column": "a", "kind": "tags", "place": "tail"}]}, r"place is 'tail': give text, head"),
    ],
)
def test_options_of_another_kind_are_refused(movies, options, message):
    with pytest.raises(ConfigError, match=message):
        DataOptions(movies, **options)
