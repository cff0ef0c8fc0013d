"""Languages of films: read if the files have them, and no part of what names the films of a run."""

import csv

import numpy as np

from genre_lightning.config.data import DataOptions
from genre_lightning.data.languages import languages_of
from genre_lightning.data.prepare import prepare_films

DRAMA, WAR = "[{'id': 18, 'name': 'Drama'}]", "[{'id': 19, 'name': 'War'}]"
LANGUAGES = ("en", "fr", "")


def write(path, first, languages=True):
    header = ["id", "overview", "genres", *(["original_language"] if languages else [])]
    rows = [
        [str(n), f"A man number {n} walks home.", DRAMA if n % 2 else WAR, *([LANGUAGES[n % 3]] if languages else [])]
        for n in range(first, first + 30)
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def prepared(tmp_path, csv_file, **options):
    return prepare_films(DataOptions(csv_file, cache_dir=tmp_path / "cache", **options))


def test_films_have_the_language_of_their_row(tmp_path):
    new, old = write(tmp_path / "new.csv", 1), write(tmp_path / "old.csv", 20)
    for older in (None, [old]):
        data = prepared(tmp_path, new, older_csv=older)
        rows = np.array([5, 0, 28])
        assert languages_of(data.films, data.language, rows) == [LANGUAGES[(row + 1) % 3] for row in rows]


def test_the_films_of_a_run_are_the_same_with_and_without_languages(tmp_path):
    file, older = write(tmp_path / "new.csv", 1), [write(tmp_path / "old.csv", 20)]
    for older_csv in (None, older):
        with_them, without = (
            prepared(tmp_path, file, older_csv=older_csv, language=name) for name in ("original_language", None)
        )
        assert with_them.films.digest == without.films.digest
        assert with_them.content == without.content
        assert languages_of(without.films, without.language, np.arange(3)) is None


def test_a_file_without_the_column_leaves_languages_out(tmp_path):
    new, old = write(tmp_path / "new.csv", 1), write(tmp_path / "old.csv", 20, languages=False)
    data = prepared(tmp_path, new, older_csv=[old])
    assert languages_of(data.films, data.language, np.arange(3)) is None


def test_a_language_that_is_an_input_is_read_once(tmp_path):
    features = [{"column": "original_language", "kind": "category", "min_films": 1}]
    data = prepared(tmp_path, write(tmp_path / "new.csv", 1), features=features)
    assert set(data.inputs[0].values) == {"en", "fr"}
    assert languages_of(data.films, data.language, np.arange(3)) == ["fr", "", "en"]
