"""The predictions table: round trip, refusals, and a file written whole or not at all."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from genre_lightning.errors import CheckpointError, DataError
from genre_lightning.evaluation import predictions as module
from genre_lightning.evaluation.predictions import Predictions, read_stored_predictions
from genre_lightning.files import read_json, replacing, write_csv, write_json


def replaced(predictions, **changes):
    names = ("genres", "ids", "titles", "texts", "labels", "logits")
    return Predictions(**{**{name: getattr(predictions, name) for name in names}, **changes})


def write(predictions, path, **metadata):
    probabilities = (1 / (1 + np.exp(-predictions.logits))).astype(np.float32)
    predictions.write_parquet(path, probabilities, probabilities >= 0.5, metadata)
    return probabilities


def test_round_trip_is_exact(predictions, tmp_path):
    odd = replaced(predictions, titles=["<script>", "日本 \ud800", *predictions.titles[2:]])
    probabilities = write(odd, tmp_path / "p.parquet", split="test", split_sha256="abc")
    stored = read_stored_predictions(tmp_path / "p.parquet")
    assert stored.predictions.genres == predictions.genres
    assert stored.predictions.texts == predictions.texts
    assert stored.predictions.titles[:2] == ["<script>", "日本 ?"]
    for name in ("ids", "labels", "logits"):
        np.testing.assert_array_equal(getattr(stored.predictions, name), getattr(predictions, name))
    np.testing.assert_array_equal(stored.probabilities, probabilities)
    np.testing.assert_array_equal(stored.decided, probabilities >= 0.5)
    assert stored.metadata == {"split": "test", "split_sha256": "abc"}


def test_other_programs_read_the_columns(predictions, tmp_path):
    write(predictions, tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert tuple(table.column_names) == module.COLUMNS
    row = table.slice(3, 1).to_pylist()[0]
    assert row["labels"] == predictions.labels[3].astype(int).tolist()
    assert row["true_genres"] == [g for g, y in zip(predictions.genres, predictions.labels[3], strict=True) if y]
    assert str(table.schema.field("probabilities").type) == "fixed_size_list<element: float>[5]"


def test_no_films_make_a_readable_file(predictions, tmp_path):
    empty = replaced(predictions, ids=[], titles=[], texts=[], labels=[], logits=[])
    write(empty, tmp_path / "p.parquet")
    assert len(read_stored_predictions(tmp_path / "p.parquet").predictions) == 0
    with pytest.raises(DataError, match="no film to fit"):
        empty.require_films("fit")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused_by_the_first_film(predictions, value):
    logits = predictions.logits.copy()
    logits[[4, 9], 2] = value
    with pytest.raises(DataError, match="of 2 films are NaN or infinite, first of film id 104") as caught:
        replaced(predictions, logits=logits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((300, 4))}, "labels of shape"),
        ({"logits": np.zeros((299, 5))}, "logits of shape"),
        ({"titles": ["one"]}, "1 titles"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(predictions, changes, message):
    with pytest.raises(DataError, match=message):
        replaced(predictions, **changes)


def test_another_vocabulary_is_refused(predictions, tmp_path):
    write(predictions, tmp_path / "p.parquet")
    read = read_stored_predictions(tmp_path / "p.parquet").predictions
    read.require_genres(predictions.genres)
    assert len(read) == 300
    with pytest.raises(DataError, match=r"another vocabulary .*Sport"):
        read.require_genres(("Sport", *predictions.genres[1:]))
    with pytest.raises(DataError, match="another order"):
        read.require_genres(predictions.genres[::-1])


def test_missing_damaged_and_foreign_files_are_refused(predictions, tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(CheckpointError, match="is missing: run the command"):
        read_stored_predictions(path)
    write(predictions, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"is damaged .*run the command"):
        read_stored_predictions(path)
    pq.write_table(pq.read_table(_restore(path, whole)).drop_columns(["logits"]), path)
    with pytest.raises(CheckpointError, match="lacks logits"):
        read_stored_predictions(path)


def _restore(path, content):
    path.write_bytes(content)
    return path


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "sub" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert path.read_text() == "old"
    assert [item.name for item in path.parent.iterdir()] == ["file.txt"]


def _interrupted(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_json_is_strict_and_csv_leaves_undefined_cells_empty(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": np.float32(0.5)})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": null,\n  "y": 0.5\n}\n'
    assert read_json(tmp_path / "a.json") == {"x": None, "y": 0.5}
    write_csv(tmp_path / "a.csv", [{"genre": 'a,"b"', "f1": float("nan")}, {"genre": "c", "f1": 0.25}])
    assert (tmp_path / "a.csv").read_bytes() == b'genre,f1\n"a,""b""",\nc,0.25\n'
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="JSON object"):
        read_json(tmp_path / "a.json")
