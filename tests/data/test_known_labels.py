"""Which labels of films are known: by dates, files, a column, and the run in which a genre came."""

import csv

import numpy as np
import pytest

from genre_lightning.config.data import DataOptions
from genre_lightning.data.collate import Padding, TokenisedFilms
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.steps import MicroBatch
from genre_lightning.data.tokens import TokenLists
from genre_lightning.errors import ConfigError

WORDS = ["war", "love", "train", "island", "ghost", "money", "king", "school", "snow", "river"]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "overview", "genres", "release_date", "looked_for"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def films(first, count, genres, date="2000-01-01", looked_for=""):
    rng = np.random.default_rng(first)
    return [
        {"id": first + i, "overview": " ".join(rng.choice(WORDS, 8)) + f" {first + i}",
         "genres": "|".join(genres[: 1 + i % len(genres)]), "release_date": date, "looked_for": looked_for}
        for i in range(count)
    ]  # fmt: skip


def known_of(options):
    """The known labels by film id and genre, in all splits; None if all are known."""
    data = prepare_films(options)
    if data.splits["train"].known is None:
        return None
    found = {}
    for split in data.splits.values():
        for film, row in zip(data.films.ids[data.rows[split.films]].tolist(), split.known, strict=True):
            found[film] = dict(zip(data.vocabulary.names, row.tolist(), strict=True))
    return found


@pytest.fixture
def two_files(tmp_path):
    old = write(tmp_path / "old.csv", films(0, 40, ["Drama", "Comedy"]))
    new = write(tmp_path / "new.csv", films(100, 40, ["Drama", "War"], "2012-06-01"))
    return old, new


def test_everything_is_known_without_a_rule(two_files, tmp_path):
    assert known_of(DataOptions(csv=two_files[1], older_csv=[two_files[0]], cache_dir=tmp_path)) is None


@pytest.mark.parametrize("since", [2012, "2012-01-01", ["new.csv"], "new.csv"])
def test_a_genre_is_known_from_a_date_or_of_a_file(two_files, tmp_path, since):
    old, new = two_files
    known = known_of(DataOptions(csv=new, older_csv=[old], label_since={"War": since}, cache_dir=tmp_path))
    assert {film: row["War"] for film, row in known.items()} == {film: film >= 100 for film in known}
    assert all(row["Drama"] and row["Comedy"] for row in known.values())


def test_a_film_with_the_genre_or_after_the_very_day_is_known(tmp_path):
    rows = [
        *films(0, 30, ["Drama"], "2010-12-31"),
        *films(50, 10, ["War"], ""),
        *films(70, 10, ["Drama"], "2011-05-01"),
    ]
    file = write(tmp_path / "all.csv", rows)
    known = known_of(DataOptions(csv=file, label_since={"War": "2011-05-01"}, cache_dir=tmp_path))
    assert all(row["War"] == (film >= 50) for film, row in known.items())


def test_a_column_lists_the_genres_that_were_looked_for(tmp_path):
    rows = [
        *films(0, 30, ["Drama", "War"]),
        *films(50, 10, ["Drama"], looked_for="Drama, Comedy"),
        *films(70, 9, ["Comedy"]),
    ]
    known = known_of(DataOptions(csv=write(tmp_path / "a.csv", rows), known_genres="looked_for", cache_dir=tmp_path))
    assert all(row["War"] == (not 50 <= film < 70) for film, row in known.items())
    assert all(row["Comedy"] and row["Drama"] for row in known.values())


def test_a_rule_for_a_genre_that_no_film_has_is_refused(two_files, tmp_path):
    options = DataOptions(csv=two_files[1], older_csv=[two_files[0]], label_since={"Western": 2011}, cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="'Western', which no film has"):
        prepare_films(options)


@pytest.mark.parametrize("since", ["newer.csv", -5, 99999, "2011-13-01", "x", ["old.csv", "x"]])
def test_a_rule_by_what_is_neither_date_nor_file_is_refused_before_anything_is_read(two_files, since):
    options = DataOptions(csv=two_files[1], older_csv=[two_files[0]], label_since={"War": since})
    with pytest.raises(ConfigError, match=r"neither a date .* old.csv: fix it"):
        options.check_options()


def test_the_audit_counts_known_unknown_and_positive_labels(two_files, tmp_path):
    old, new = two_files
    audit = prepare_films(DataOptions(csv=new, older_csv=[old], label_since={"War": 2012}, cache_dir=tmp_path)).audit
    assert sum(split["known"]["War"] for split in audit["splits"].values()) == 40
    assert "War is known of 40 films (20 have it) and unknown of 40" in audit["notes"]
    assert (audit["rows"], audit["kept"]) == (80, 80)


def test_the_newest_row_of_a_film_counts(two_files, tmp_path):
    old, _ = two_files
    again = films(0, 40, ["Drama", "Comedy"])[:5]
    new = write(tmp_path / "newer.csv", [{**row, "genres": "War"} for row in again])
    data = prepare_films(DataOptions(csv=new, older_csv=[old], cache_dir=tmp_path))
    genres = dict(zip(data.films.ids.tolist(), data.films.genres(), strict=True))
    assert genres[3] == ["War"]
    assert genres[20] != ["War"]
    assert (data.audit["rows"], data.audit["kept"], data.audit["duplicate_id"]) == (45, 40, 5)


def test_batches_carry_the_known_labels():
    store = TokenLists([np.array([1, 2], dtype=np.int32)] * 3)
    known = np.array([[True, False], [True, True], [False, True]])
    part = TokenisedFilms(store, np.arange(3), np.zeros((3, 2), dtype=bool), Padding(0), known=known)
    assert part[MicroBatch(np.array([2, 0]), 2)]["known"].tolist() == [[0, 1], [1, 0]]
    assert part[MicroBatch(np.zeros(0, dtype=np.int64), 2)]["known"].tolist() == [[0, 0]]
