"""Labels that are not known, of other files than a run's own: `evaluate RUN --data.csv FILE` and `monitor`."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csv_files import rows_of, written
from made_runs import without_page

from genre_lightning.__main__ import main
from genre_lightning.config.data import DataOptions
from genre_lightning.data.genres import GenreVocabulary
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.known_labels import LabelRules
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.files import read_json

HIDDEN = ("Drama", "Comedy")
"""Genres of which the second half of the films is not labelled."""


def usable_rows(path):
    return [row for row in rows_of(path) if len(row["overview"] or "") > 40 and row["id"].isdecimal()]


def half_labelled(rows):
    """Films of which only the first half is labelled for all genres."""
    others = ", ".join(name for name in names_in(rows) if name not in HIDDEN)
    found = []
    for number, row in enumerate(rows):
        genres, old = genres_of(row), number >= len(rows) // 2
        kept = [name for name in genres if not (old and name in HIDDEN)]
        date = "1990-01-01" if old else "2020-01-01"
        found.append(
            {"id": row["id"], "title": row["title"], "overview": row["overview"], "genres": "|".join(kept),
             "looked_for": others if old else "", "release_date": date}
        )  # fmt: skip
    return found


def genres_of(row):
    return [one["name"] for one in json.loads(row["genres"].replace("'", '"'))] if row["genres"].startswith("[") else []


def names_in(rows):
    return sorted({name for row in rows for name in genres_of(row)})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of films, another one, and both half labelled."""
    place = tmp_path_factory.mktemp("unknown")
    own, other = (
        usable_rows(write_sample(place / f"{n}.csv", films=240, seed=seed)) for n, seed in (("a", 3), ("b", 9))
    )
    return written(place / "own.csv", half_labelled(own)), written(place / "other.csv", half_labelled(other))


def trained(file, place, *more):
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        words = [f"--data.csv={file}", f"--run_dir={place}", "--data.genre_separator=|", *more]
        assert main(["baseline", "tfidf_nb", *words]) == 0
    return place


def known_of(run, name="other"):
    """The known labels by film id and genre."""
    table = pq.read_table(run / f"evaluation/{name}/predictions.parquet")
    genres = json.loads(table.schema.metadata[b"vocabulary"])
    if "known" not in table.column_names:
        return None
    return {
        film: dict(zip(genres, map(bool, row), strict=True))
        for film, row in zip(table["id"].to_pylist(), table["known"].to_pylist(), strict=True)
    }


RULES = [
    ["--data.known_genres=looked_for"],
    ["--data.label_since={Drama: 2010, Comedy: 2010-01-01}"],
]


@pytest.mark.parametrize("rule", RULES, ids=["column", "dates"])
def test_evaluate_applies_the_rules_of_the_run(made, tmp_path, monkeypatch, capfd, rule):
    own, other = made
    run = trained(own, tmp_path / "run", *rule)
    without_page(monkeypatch)
    assert main(["evaluate", str(run), f"--data.csv={other}"]) == 0
    assert "are not known" in capfd.readouterr().out
    rows = {int(row["id"]): row for row in usable_rows(other)}
    known = known_of(run)
    assert len(known) > 100
    for film, labels in known.items():
        old = bool(rows[film]["looked_for"])
        has = rows[film]["genres"].split("|")
        assert {name: labels[name] for name in HIDDEN} == {name: not old or name in has for name in HIDDEN}
        assert all(labels[name] for name in labels if name not in HIDDEN)
    films = read_json(run / "evaluation/other/metrics.json")["films"]
    assert films["unknown_labels"] == sum(not value for labels in known.values() for value in labels.values())
    # a film without genres has none of those it was labelled for; without the column it is left out
    none = sum(not row["genres"] and bool(row["looked_for"]) for row in rows.values())
    assert films["audit"]["no_genres"] + (none if "known" in rule[0] else 0) == sum(
        not row["genres"] for row in rows.values()
    )


def test_a_column_that_the_file_lacks_is_empty(made, tmp_path, monkeypatch):
    own, other = made
    without_page(monkeypatch)
    bare = [{n: row[n] for n in ("id", "title", "overview", "genres")} for row in usable_rows(other)]
    file = written(tmp_path / "bare.csv", bare)
    runs = [trained(own, tmp_path / f"run{n}", *rule) for n, rule in enumerate(RULES)]
    for run in runs:
        assert main(["evaluate", str(run), f"--data.csv={file}", "--name=other"]) == 0
    assert known_of(runs[0]) is None
    assert not any(labels["Drama"] for film, labels in known_of(runs[1]).items() if "Drama" not in has(bare, film))


def has(rows, film):
    return next(row["genres"] for row in rows if int(row["id"]) == film)


def known_in(tmp_path, films, **options):
    """The genres that are known of each film, of films given by their genres and what they were labelled for."""
    rows = [
        {"id": n, "overview": f"A road, number {n}.", "genres": genres, "known": known}
        for n, (genres, known) in enumerate(films * 10)
    ]
    file = written(tmp_path / "films.csv", rows)
    options = DataOptions(file, known_genres="known", cache_dir=tmp_path / "cache", **options)
    data = prepare_films(options)
    train = data.splits["train"]
    masks = np.ones_like(train.labels) if train.known is None else train.known
    found = dict(zip(data.rows[train.films].tolist(), masks, strict=True))
    return [
        {data.vocabulary.names[n] for n in np.flatnonzero(found[next(f for f in found if f % len(films) == one)])}
        for one in range(len(films))
    ]


@pytest.mark.parametrize("mark", ["#", "/", "|", ";"])
def test_genres_that_films_were_labelled_for_are_written_as_genres_are(tmp_path, mark):
    labelled = [
        (["Drama"], ["Drama", "War, Action"]),
        (["War, Action", "Drama"], ["War, Action"]),
        (["Comedy"], ["Comedy", "Drama"]),
    ]
    films = [(mark.join(genres), mark.join(known)) for genres, known in labelled]
    assert known_in(tmp_path, films, genre_separator=mark) == [
        {"Drama", "War, Action"}, {"Drama", "War, Action"}, {"Comedy", "Drama"},
    ]  # fmt: skip


def test_merged_genres_are_known_under_each_spelling(tmp_path):
    films = [("Drama", "drama|COMEDY"), ("drama", "Drama"), ("Comedy", "Comedy|DRAMA"), ("War", "")]
    found = known_in(tmp_path, films, merge_genre_case=True)
    assert found[:3] == [{"Comedy", "Drama"}, {"Drama"}, {"Comedy", "Drama"}]


def test_a_column_that_lists_no_genre_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.known_genres is 'known', a column that lists none of the genres"):
        known_in(tmp_path, [("Drama", "x"), ("Comedy", "y")])


@pytest.mark.parametrize(
    ("options", "name"),
    [({"known_genres": "looked_for"}, "known_genres"), ({"label_since": {"Drama": 2001}}, "label_date")],
)
def test_a_rule_by_a_column_that_is_missing_names_its_option(tmp_path, options, name):
    file = written(tmp_path / "films.csv", [{"id": 1, "overview": "A road.", "genres": "Drama"}])
    with pytest.raises(DataError, match=rf"^data\.{name} names the column"):
        prepare_films(DataOptions(file, cache_dir=tmp_path / "cache", **options))


def test_a_validation_split_without_a_genre_is_refused_before_the_training(tmp_path):
    rows = [
        {"id": n, "overview": f"A road, number {n}.", "genres": "Drama" if n < 2 else "", "known": "Drama"}
        for n in range(60)
    ]
    file = written(tmp_path / "films.csv", rows)
    with pytest.raises(DataError, match=r"none of the \d+ films of the validation split has a genre"):
        prepare_films(DataOptions(file, known_genres="known", cache_dir=tmp_path / "cache"))


def test_merged_genres_of_another_file_count_in_any_case(made, tmp_path, monkeypatch):
    own, other = made
    run = trained(own, tmp_path / "run", "--data.merge_genre_case=true")
    without_page(monkeypatch)
    upper = written(tmp_path / "upper.csv", [{**row, "genres": row["genres"].upper()} for row in rows_of(other)])
    figures = []
    for name, file in (("as_written", other), ("upper", upper)):
        assert main(["evaluate", str(run), f"--data.csv={file}", f"--name={name}"]) == 0
        found = read_json(run / f"evaluation/{name}/metrics.json")
        assert found["films"]["unknown_genres"] == {}
        figures.append((found["policies"], found["threshold_free"]))
    assert figures[0] == figures[1]


def test_a_continued_run_keeps_the_spelling_of_merged_genres():
    films = pa.array([["DRAMA"], ["DRAMA", "War"], ["Drama"], ["COMEDY"]], pa.list_(pa.string()))
    vocabulary, labels = GenreVocabulary.from_batches([films], merge_case=True, own=("Comedy", "Drama"))
    assert vocabulary.names == ("Comedy", "Drama", "War")
    assert labels.tolist() == [[False, True, False], [False, True, True], [False, True, False], [True, False, False]]


def test_a_rule_by_a_name_of_two_files_is_refused(tmp_path):
    options = DataOptions(
        tmp_path / "new/films.csv", older_csv=[tmp_path / "old/films.csv"], label_since={"Drama": ["films.csv"]}
    )
    with pytest.raises(ConfigError, match=r"data\.label_since of 'Drama' is 'films\.csv', the name of 2 files"):
        options.check_options()


def test_a_rule_by_files_says_nothing_of_another_file():
    rules = LabelRules({"Drama": "new.csv"}, "release_date", None, ("new.csv", "old.csv"))
    files = np.array(["new.csv", "old.csv", "other.csv"], dtype=object)
    known = rules.known(None, np.arange(3), ("Comedy", "Drama"), files)
    assert known.tolist() == [[True, True], [True, False], [True, True]]
    settings = {"csv": "/a/new.csv", "older_csv": ["/b/old.csv"], "label_since": {"Drama": "new.csv"}}
    assert LabelRules.of_settings(settings) == LabelRules({"Drama": "new.csv"}, "", None, ("new.csv", "old.csv"))


def test_genres_of_a_later_run_are_unknown_for_films_of_earlier_ones(made, tmp_path, monkeypatch):
    own, _ = made
    run = trained(own, tmp_path / "run")
    without_page(monkeypatch)
    kept = KeptSplits.read(run / "splits.parquet")
    born = [n % 2 for n in range(len(kept.ids))]
    chain = KeptSplits(
        kept.ids, kept.digests, kept.sides, kept.file, born, [True] * len(born), {"Drama": 1}, generation=1
    )
    chain.write(run / "splits.parquet")
    assert main(["evaluate", str(run), f"--data.csv={own}", "--name=other"]) == 0
    births = dict(zip(map(int, kept.ids), born, strict=True))
    labels = {int(row["id"]): row["genres"].split("|") for row in usable_rows(own)}
    found = known_of(run)
    assert {film: row["Drama"] for film, row in found.items()} == {
        film: births[film] == 1 or "Drama" in labels[film] for film in found
    }


def test_monitor_applies_the_rules_of_the_run(made, tmp_path, capfd):
    own, other = made
    blind, run = trained(own, tmp_path / "blind"), trained(own, tmp_path / "run", *RULES[0])
    capfd.readouterr()
    found = {}
    for place in (blind, run):
        main(["monitor", str(place), f"--data.csv={other}", "--json"])
        found[place] = json.loads(capfd.readouterr().out)
    table = usable_rows(other)
    full = [row["genres"].split("|") for row in table if not row["looked_for"]]
    drama = next(check for check in found[run]["calibration"] if check["name"] == "Drama")
    films = [row for row in table if row["genres"] or row["looked_for"]]
    of_known = sum("Drama" in names for names in full) / sum(bool(names[0]) for names in full)
    assert found[run]["labelled"] == len(films)
    assert drama["new"] == pytest.approx(of_known)
    other_drama = next(check for check in found[blind]["calibration"] if check["name"] == "Drama")
    assert other_drama["new"] < 0.7 * drama["new"]
