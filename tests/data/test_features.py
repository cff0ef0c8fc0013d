"""Inputs of the head: read from cells, fitted on training films alone, encoded and batched; and lines of the text."""

import csv
import datetime
import tracemalloc

import numpy as np
import pytest

from genre_lightning.config.columns import TextTemplate
from genre_lightning.config.data import DataOptions
from genre_lightning.config.features import Feature
from genre_lightning.data.cells import MalformedCellError
from genre_lightning.data.collate import Padding, TokenisedFilms
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.features.encode import EncodedInputs, encode_input
from genre_lightning.data.features.fit import NamesOfFilms, find_leaks, fit_names, fit_numbers
from genre_lightning.data.features.read import value_of
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.steps import MicroBatch
from genre_lightning.data.tokens import TokenLists
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.types import FittedInput


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("tags", "[{'name': 'toy'}, {'name': 'boy'}]", ["toy", "boy"]),
        ("tags", '["a", "b"]', ["a", "b"]),
        ("tags", "heist, robbery", ["heist", "robbery"]),
        ("tags", "sun, sea|sand", ["sun, sea", "sand"]),
        ("tags", ["a", "a", "b"], ["a", "b"]),
        ("tags", "[]", None),
        ("category", "en", "en"),
        ("category", "{'id': 1, 'name': 'Toy Story Collection'}", "Toy Story Collection"),
        ("category", False, "False"),
        ("number", "81.0", 81.0),
        ("number", "1,200", 1200.0),
        ("number", "-30,000,000.5", -30000000.5),
        ("number", float("nan"), None),
        ("date", "1995-01-01", 1995.0),
        ("date", "1995", 1995.0),
        ("date", datetime.date(1995, 7, 1), 1995.5),
        ("vector", "[0.5, -1e-3]", [0.5, -0.001]),
        ("vector", "0.5 1", [0.5, 1.0]),
        ("vector", [1, 2.5], [1.0, 2.5]),
        *(
            (kind, cell, None)
            for kind in ("tags", "category", "number", "date", "vector")
            for cell in (None, "", "nan")
        ),
    ],
)
def test_values(kind, cell, value):
    feature = Feature("x", kind)
    found = value_of(feature, cell)
    assert found == value
    assert value_of(feature, found) == value


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        ("tags", "[{'name': 'toy'"), ("number", "long"), ("number", "7,5"), ("number", "1,2345"), ("number", "1,234,5"),
        ("date", "soon"), ("date", "1995-13-01"), ("vector", "[a, b]"),
        ("vector", "[1, inf]"), ("vector", [1, 1e300]), ("vector", [10**400]), ("number", "-1e39"), ("number", [1]),
    ],
)  # fmt: skip
def test_other_cells_are_malformed(kind, cell):
    if kind == "tags":  # no list: one name
        assert value_of(Feature("x", kind), cell) == [cell]
        return
    with pytest.raises(MalformedCellError):
        value_of(Feature("x", kind), cell)


def test_a_number_of_zero_may_be_missing():
    assert value_of(Feature("runtime", "number", zero_is_missing=True), "0.0") is None
    assert value_of(Feature("runtime", "number"), "0.0") == 0


def test_vocabularies_are_capped_by_frequency():
    values = NamesOfFilms.collect([["a", "b"], ["a", "c"], ["a", "b"], None, ["d", "d"]])
    assert fit_names(Feature("x", "tags", min_films=1, max_values=3), values).values == ("a", "b", "c")
    assert fit_names(Feature("x", "tags", min_films=2), values).values == ("a", "b")
    assert fit_names(Feature("x", "tags", min_films=1), values, frozenset("a")).values == ("b", "c", "d")


def test_numbers_are_standardised():
    fitted = fit_numbers(Feature("x", "number"), [1.0, None, 3.0])
    assert (fitted.mean, fitted.std) == ((2.0,), (1.0,))
    encoded = encode_input(fitted, [3.0, None, 2.0, 1e9])
    assert encoded.numbers.tolist() == [[1, 1], [0, 0], [0, 1], [5, 1]]
    logs = fit_numbers(Feature("x", "number", log=True), [0.0, np.e - 1])
    assert (logs.mean[0], logs.std[0]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert fit_numbers(Feature("x", "number"), [7.0, 7.0]).std == (1.0,)


def test_vectors_have_one_length():
    fitted = fit_numbers(Feature("x", "vector"), [[1.0, 0.0], [3.0, 0.0]])
    assert encode_input(fitted, [[3.0, 0.0], None]).numbers.tolist() == [[1, 0, 1], [0, 0, 0]]
    with pytest.raises(DataError, match="vectors of 2 and of 3 numbers"):
        fit_numbers(Feature("x", "vector"), [[1.0, 0.0], [1.0, 2.0, 3.0]])
    with pytest.raises(DataError, match="a vector of 1 numbers, and the training films have 2"):
        encode_input(fitted, [[3.0]])
    with pytest.raises(DataError, match="no training film has a value"):
        fit_numbers(Feature("x", "vector"), [None])


def test_a_column_of_malformed_cells_is_refused_with_one_of_them(tmp_path):
    rows = [f"{n},A man number {n} walks.,Drama,10/{n % 28 + 1}/1995" for n in range(30)]
    (tmp_path / "films.csv").write_text("\n".join(["id,overview,genres,released", *rows]))
    options = DataOptions(tmp_path / "films.csv", features=[Feature("released", "date")], cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match=r"'released': no training film has a value \('10/\d+/1995' is not a date such"):
        prepare_films(options)


def test_unseen_names_and_none_are_apart():
    encoded = encode_input(FittedInput("x", "tags", values=("a", "b")), [["b", "a"], None, ["z"], ["z", "b"]])
    assert encoded.batch(np.array([0, 1, 2])).tolist() == [[3, 2], [0, 0], [1, 0]]
    assert encoded.batch(np.array([3])).tolist() == [[1, 3]]
    assert encoded.batch(np.array([], dtype=np.int64)).tolist() == [[0]]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_inputs_travel_beside_the_tokens(layout):
    fitted = FittedInput("tags", "tags", values=("a",)), FittedInput("year", "date", mean=(2000.0,), std=(10.0,))
    inputs = EncodedInputs([encode_input(fitted[0], [["a"], None]), encode_input(fitted[1], [None, 2010.0])])
    store = TokenLists([[1, 2, 3], [4]])
    films = TokenisedFilms(store, np.array([1, 0]), None, Padding(0), layout, inputs)
    batch = films[MicroBatch(np.array([0, 1]), 2)]
    assert batch["input:tags"].tolist() == [[0], [2]]
    assert batch["input:year"].tolist() == [[1, 1], [0, 0]]
    empty = films[MicroBatch(np.array([], dtype=np.int64), 2)]
    assert empty["input:tags"].tolist() == [[0]]
    assert empty["input:year"].tolist() == [[0, 0]]


def test_leaks_are_found():
    values = [["sword"]] * 60 + [["love"]] * 60 + [["rare"]] * 10
    labels = np.zeros((130, 2), dtype=bool)
    labels[:59, 0] = labels[60:100, 1] = labels[120:, 1] = True
    (leak,) = find_leaks("keywords", NamesOfFilms.collect(values), labels, ("War", "Romance"))
    assert (leak.value, leak.genre, leak.films, leak.with_genre) == ("sword", "War", 60, 59)
    assert find_leaks("keywords", NamesOfFilms.collect([None] * 130), labels, ("War", "Romance")) == []


@pytest.mark.parametrize(("kind", "bytes_of_a_film"), [("tags", 70), ("number", 20)])
def test_inputs_of_many_films_need_little_memory(kind, bytes_of_a_film):
    """Of a film 5 names of 4 bytes and an offset of 8, or two numbers of 4, and what growing arrays have in reserve."""
    films = 100_000
    tags = FittedInput("x", "tags", values=tuple("abcdefgh")), ["a", "c", "d", "g", "z"]
    number = FittedInput("x", "number", mean=(1.0,), std=(2.0,)), 3.0
    fitted, value = tags if kind == "tags" else number
    tracemalloc.start()
    encoded = encode_input(fitted, (value for _ in range(films)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(encoded.numbers) == (5 * films if kind == "tags" else films)
    assert peak < bytes_of_a_film * films


def test_lines_of_the_text():
    lines = Feature("tagline", "text"), Feature("keywords", "tags", place="text", marker="Keywords")
    template = TextTemplate("{title}. {overview}", lines)
    assert template.fields == ("title", "overview", "tagline", "keywords")
    values = {"title": "", "overview": "A man\nwalks.", "tagline": "Go!  Now!", "keywords": ""}
    assert template.fill(values) == "A man walks.\ntagline: Go! Now!"
    assert template.fill({**values, "keywords": "a, b"}) == "A man walks.\ntagline: Go! Now!\nKeywords: a, b"


@pytest.fixture(scope="module")
def rich_csv(tmp_path_factory, sample_csv):
    """The sample with a column of tags that gives one genre away, and one of a long cast."""
    path = tmp_path_factory.mktemp("rich") / "rich.csv"
    with sample_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["hints"] = "['drama hint']" if "'Drama'" in row["genres"] else f"['word {number % 3}']"
        row["cast"] = ", ".join(f"Actor {n}" for n in range(60)) if number % 2 else ""
        row["size"] = str(number) if number % 5 else ""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def module(path, features, **options):
    options = {"tokenizer": "wordpiece", "vocab_size": 600, "max_tokens": 64, **options}
    return MovieDataModule(path, features=features, **options)


HINTS, SIZE = {"column": "hints", "kind": "tags", "min_films": 1}, {"column": "size", "kind": "number"}
CAST = {"column": "cast", "kind": "tags", "place": "text", "max_tokens": 10, "marker": "Cast"}


def test_inputs_are_fitted_on_training_films_alone(rich_csv):
    data = module(rich_csv, [SIZE]).prepare()
    train = data.rows[data.splits["train"].films]
    sizes = np.array([size for size in data.films.table["input:size"].take(train).to_pylist() if size is not None])
    assert data.inputs[0].mean[0] == pytest.approx(sizes.mean())
    assert data.inputs[0].std[0] == pytest.approx(sizes.std())
    assert data.spec.inputs == data.inputs


def test_leaks_are_in_the_audit_and_may_be_left_out(rich_csv):
    data = module(rich_csv, [HINTS]).prepare()
    assert data.audit["leaks"][0] == {
        "column": "hints", "value": "drama hint", "genre": "Drama", "excluded": False,
        "films": data.audit["leaks"][0]["films"], "with_genre": data.audit["leaks"][0]["films"],
    }  # fmt: skip
    assert "drama hint" in data.inputs[0].values
    without = module(rich_csv, [HINTS], exclude_leaks=True).prepare()
    assert "drama hint" not in without.inputs[0].values
    assert without.audit["leaks"][0]["excluded"] is True


def test_features_known_after_release_are_left_out_as_a_group(rich_csv):
    data = module(rich_csv, [HINTS, {**SIZE, "after_release": True}], leave_out_after_release=True).prepare()
    assert [one.name for one in data.inputs] == ["hints"]


def test_a_long_line_does_not_push_out_the_overview(rich_csv):
    plain, rich = module(rich_csv, None).prepare(), module(rich_csv, [CAST]).prepare()
    tokenizer = rich.tokenizer
    texts = rich.films.strings("text")
    longest = max(len(tokens) for tokens in (rich.tokens[film] for film in range(len(rich.tokens))))
    assert longest <= 64
    for film in range(20):
        text = texts[rich.rows[film]]
        main, _, cast = text.partition("\n")
        whole = tokenizer(main)["input_ids"][1:-1]
        own = rich.tokens[film].tolist()[1:-1]
        assert own[: min(len(whole), 52)] == whole[:52]
        assert len(own) - min(len(whole), 52 if cast else 62) == (10 if cast else 0)
    assert len(plain.tokens) == len(rich.tokens)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"column": "genres", "kind": "tags"}], "'genres', the genres that the model is to predict"),
        ([HINTS, HINTS], "names 'hints' twice"),
        ([{"column": "cast", "kind": "text", "place": "head"}], "a text goes into the text"),
        ([{"column": "v", "kind": "vector", "place": "text"}], "a vector has no words"),
        ([{**HINTS, "max_values": 0}], "max_values is 0"),
        ([{**HINTS, "size": 1}], "data.features cannot be read"),
    ],
)
def test_impossible_features_are_refused(rich_csv, features, message):
    with pytest.raises(ConfigError, match=message):
        module(rich_csv, features)


def test_lines_may_take_half_of_the_text(rich_csv):
    with pytest.raises(ConfigError, match=r"take up to 40 of data.max_tokens 64, more than half"):
        module(rich_csv, [{**CAST, "max_tokens": 40}]).prepare()
