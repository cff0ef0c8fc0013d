"""The embedded sample: its shape is counted here from the written file with csv and ast alone."""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer

from genre_lightning.data.sample.generate import COLUMNS, GENRE_IDS, generate_rows, planted_counts, write_sample
from genre_lightning.data.sample.phrases import KINDS, phrases
from genre_lightning.errors import ConfigError

Film = tuple[str, str, list[str]]  # title, overview, genres

HEADER = (
    "adult,belongs_to_collection,budget,genres,homepage,id,imdb_id,original_language,original_title,overview,popularity,"
    "poster_path,production_companies,production_countries,release_date,revenue,runtime,spoken_languages,status,tagline,"
    "title,video,vote_average,vote_count"
)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def genres_of(cell: str) -> list[str] | None:
    """Names in a well-formed genres cell, else None."""
    try:
        value = ast.literal_eval(cell)
    except (SyntaxError, ValueError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) and {"id", "name"} <= set(item) for item in value):
        return None
    return [item["name"] for item in value]


def count(rows: list[dict[str, str]]) -> tuple[dict[str, int], list[Film]]:
    """Put each row under the first reason that fits; an audit written independently of the package's own."""
    reasons: Counter[str] = Counter()
    films: list[Film] = []
    seen: set[str] = set()
    for row in rows:
        names = genres_of(row["genres"])
        overview = row["overview"].strip()
        if not row["id"].isdigit() or names is None:
            reason = "malformed"
        elif row["id"] in seen:
            reason = "duplicate_id"
        elif not overview:
            reason = "missing_overview"
        elif overview in {"No overview found.", "No overview yet.", "Released", "n/a"}:
            reason = "placeholder_overview"
        elif not names:
            reason = "no_genres"
        else:
            reason = "kept"
            films.append((row["title"], row["overview"], names))
        if reason != "malformed":
            seen.add(row["id"])
        reasons[reason] += 1
    return dict(reasons), films


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample") / "movies.csv")


@pytest.fixture(scope="module")
def films(sample: Path) -> list[Film]:
    return count(read(sample))[1]


def test_the_columns_are_the_real_ones_in_order(sample: Path):
    lines = sample.read_bytes().split(b"\n")
    assert lines[0].decode() == HEADER == ",".join(COLUMNS)
    assert b"\r" not in sample.read_bytes()
    with sample.open(encoding="utf-8", newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {24}


@pytest.mark.parametrize(("films", "seed"), [(2000, 0), (2000, 7), (300, 1), (40, 2), (1, 0)])
def test_planted_counts_equal_an_independent_count(tmp_path: Path, films: int, seed: int):
    counted, _ = count(read(write_sample(tmp_path / "movies.csv", films, seed)))
    planted = planted_counts(films, seed)
    assert counted == planted
    assert list(planted) == [
        *("malformed", "duplicate_id", "missing_overview", "placeholder_overview", "no_genres", "kept"),
    ]
    assert planted["kept"] == films
    assert min(planted.values()) >= 1


def test_every_kind_of_bad_row_is_there(sample: Path):
    rows = read(sample)
    shifted = [at for at, row in enumerate(rows) if not row["id"].isdigit()]
    assert len(shifted) == 3
    for at in shifted:
        rest, head = rows[at], rows[at - 1]
        assert rest["id"].count("-") == 2, "the id of a shifted row is a release date"
        assert genres_of(rest["genres"]) is not None, "the companies stand where the genres should"
        assert (rest["overview"], rest["imdb_id"].isdigit()) == ("Released", True)
        # its head, the row before, is a good one that ends at its overview
        assert head["id"].isdigit()
        assert head["overview"]
        assert not any(head[column] for column in COLUMNS[COLUMNS.index("popularity") :])
    cells = [row["genres"] for row in rows if row["id"].isdigit() and genres_of(row["genres"]) is None]
    assert len(cells) == len(set(cells)) == 7
    texts = Counter(row["overview"] for row in rows)
    assert {"", " ", "No overview found.", "No overview yet.", "Released", "n/a"} <= set(texts)
    both = [row for row in rows if row["genres"] == "[]" and not row["overview"].strip()]
    assert both, "a row with two faults shows whether an audit keeps its order"
    first: dict[str, dict[str, str]] = {}
    again = [(first[row["id"]], row) for row in rows if first.setdefault(row["id"], row) is not row]
    assert {row["overview"] == "" for _, row in again} == {True, False}
    assert all(kept["overview"] for kept, _ in again)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    one = write_sample(tmp_path / "one.csv", 200, 3).read_bytes()
    assert write_sample(tmp_path / "two.csv", 200, 3).read_bytes() == one
    assert write_sample(tmp_path / "other.csv", 200, 4).read_bytes() != one
    zipped = write_sample(tmp_path / "one.csv.gz", 200, 3)
    assert gzip.decompress(zipped.read_bytes()) == one
    assert write_sample(tmp_path / "two.csv.gz", 200, 3).read_bytes() == zipped.read_bytes()
    # in another process too, whatever order its sets and dicts of strings hash to
    code = "import sys; from pathlib import Path; from genre_lightning.data.sample.generate import write_sample; "
    code += "write_sample(Path(sys.argv[1]), 200, 3); assert 'torch' not in sys.modules"
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "apart.csv")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "123"})
    assert (tmp_path / "apart.csv").read_bytes() == one


def test_the_bytes_are_those_of_every_platform(tmp_path: Path):
    # changes with the phrases or the order of the draws: then write the new one here and in the changelog
    digest = hashlib.sha256(write_sample(tmp_path / "movies.csv", 50, 0).read_bytes()).hexdigest()
    assert digest == "e20ca7917918fcdba8bebe21bf3fecae70bdbf95c58789ab92f13d824997e393"


def test_rows_in_memory_are_those_of_the_file(sample: Path):
    assert generate_rows() == read(sample)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_every_genre_is_there_about_as_often_as_in_the_real_file(seed: int):
    films = count(generate_rows(2000, seed))[1]
    share = {name: value / 2000 for name, value in Counter(name for *_, names in films for name in names).items()}
    assert set(share) == set(GENRE_IDS)
    assert min(share.values()) * 2000 >= 25
    # measured on the real file's films with an overview and a genre
    real = {"Drama": 0.496, "Comedy": 0.338, "Thriller": 0.216, "Action": 0.188, "Romance": 0.186, "Horror": 0.121}
    real |= {"Crime": 0.116, "Adventure": 0.107, "Science Fiction": 0.088, "Family": 0.082, "Documentary": 0.055}
    real |= {"War": 0.032, "Foreign": 0.025, "Western": 0.020}
    for name, expected in real.items():
        # five standard errors of a fraction of 2,000 films
        assert abs(share[name] - expected) < 5 * (expected * (1 - expected) / 2000) ** 0.5, name
    sizes = Counter(len(names) for *_, names in films)
    assert sum(size * number for size, number in sizes.items()) / 2000 == pytest.approx(2.33, abs=0.12)
    assert sizes[1] / 2000 == pytest.approx(0.25, abs=0.05)
    assert all(len(names) == len(set(names)) for *_, names in films)


def test_genres_meet_as_in_the_real_file(films: list[Film]):
    def given(genre: str, other: str) -> float:
        having = [names for *_, names in films if genre in names]
        return sum(other in names for names in having) / len(having)

    # the shares of the real file are 0.70, 0.57, 0.67 and 0.54
    for genre, other in [
        ("Romance", "Drama"),
        ("Animation", "Family"),
        ("Mystery", "Thriller"),
        ("Adventure", "Action"),
    ]:
        assert given(genre, other) > 0.4
    assert given("Family", "Horror") < 0.05


def test_genre_ids_are_those_of_tmdb(sample: Path):
    ids = {
        item["name"]: item["id"]
        for row in read(sample)
        if row["id"].isdigit() and genres_of(row["genres"])
        for item in ast.literal_eval(row["genres"])
    }
    assert ids == GENRE_IDS
    assert (ids["Drama"], ids["Science Fiction"], ids["TV Movie"], ids["Foreign"]) == (18, 878, 10770, 10769)


def test_overviews_are_as_long_as_real_ones(films: list[Film]):
    words = np.array([len(overview.split()) for _, overview, _ in films])
    assert words.mean() == pytest.approx(55, abs=4)
    assert np.median(words) == pytest.approx(49, abs=4)
    assert np.percentile(words, 95) == pytest.approx(110, abs=10)
    assert words.min() >= 5
    assert 140 < words.max() < 220


def test_texts_and_titles_are_varied(films: list[Film]):
    texts = Counter(overview for _, overview, _ in films)
    repeated = sum(number for number in texts.values() if number > 1)
    assert 0 < repeated <= 0.005 * len(films), "a few remakes share a text, for the splits to keep together"
    assert len({overview[:60] for overview in texts}) > 0.9 * len(texts)
    titles = {title for title, *_ in films if title}
    assert len(titles) > 0.6 * len(films)
    assert max(Counter(title for title, *_ in films).values()) < 0.01 * len(films)


def test_texts_read_as_sentences():
    for _, overview, _ in count(generate_rows(400, 11))[1]:
        assert overview[0].isupper() or not overview[0].isalpha(), overview
        assert overview[-1] in ".?!", overview
        assert not set(overview) & set("{}|\\"), overview
        assert ".." not in overview
        assert " ," not in overview
        assert " a a" not in overview
        assert "  " not in overview.replace(".  ", ". ").replace("?  ", "? ")


@pytest.mark.parametrize("genre", sorted(GENRE_IDS))
def test_each_genre_has_phrases_of_each_kind(genre: str):
    written = phrases(genre)
    assert set(written) == set(KINDS)
    assert all(len(written[kind]) >= 2 for kind in "RSGEB")
    for phrase in (phrase for group in written.values() for phrase in group):
        assert phrase.count("{") == phrase.count("}")
        assert not phrase.endswith((".", " "))


def test_genres_can_be_learnt_but_not_wholly(films: list[Film]):
    labels = MultiLabelBinarizer().fit_transform([names for *_, names in films])
    texts = [overview for _, overview, _ in films]
    train = 1600  # the file is shuffled
    features = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(texts[:train])
    model = OneVsRestClassifier(LogisticRegression(C=5, class_weight="balanced", solver="liblinear"))
    model.fit(features.transform(texts[:train]), labels[:train])
    decided = model.predict_proba(features.transform(texts[train:])) > 0.4
    learnt = f1_score(labels[train:], decided, average="micro")
    # the best of the baselines that give each film the same most frequent genres
    order = np.argsort(-labels[:train].sum(axis=0))
    truth = labels[train:]
    constant = max(
        f1_score(truth, np.tile(np.isin(np.arange(20), order[:top]), (len(truth), 1)), average="micro")
        for top in range(1, 7)
    )
    assert 0.63 < learnt < 0.85
    assert learnt > constant + 0.2
    assert f1_score(truth, decided, average="macro", zero_division=0) > 0.45


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "movies.csv"

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_sample(path, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "movies.csv"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"movies\.csv exists already: delete it, or name another"):
        write_sample(path, 10)
    assert path.read_text() == "mine"


def test_a_missing_directory_is_made(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "movies.csv"
    assert write_sample(path, 5) == path
    assert path.exists()


@pytest.mark.parametrize(
    ("films", "seed", "match"), [(0, 0, "films is 0"), (-3, 0, "films is -3"), (5, -1, "seed is -1")]
)
def test_bad_numbers_are_refused(films: int, seed: int, match: str):
    for function in (generate_rows, planted_counts):
        with pytest.raises(ConfigError, match=match):
            function(films, seed)


def test_an_unknown_ending_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\.csv or \.csv\.gz"):
        write_sample(tmp_path / "movies.json")
