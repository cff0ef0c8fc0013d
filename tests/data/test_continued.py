"""Which side films have in a run that continues from another."""

import numpy as np
import pytest

from genre_lightning.data.continued import (
    OldFilms,
    check_genres,
    continued_parts,
    continued_sides,
    films_in_use,
    origins,
)
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import ConfigError

OLD_IDS = np.arange(100)
OLD_TEXTS = [f"overview {number}" for number in OLD_IDS]
OLD_PARTS = [np.arange(80), np.arange(80, 90), np.arange(90, 100)]


def old_films(**options):
    sides = KeptSplits.of_parts(OLD_IDS, text_digests(OLD_TEXTS), OLD_PARTS, "old.csv")
    return OldFilms("runs/old", sides, ("Comedy", "Drama"), **options)


def split(old, ids, texts, seed=0):
    digests = text_digests(texts)
    found = origins(old, ids, digests)
    labels = np.random.default_rng(0).random((len(ids), 2)) < 0.5
    return found, continued_parts(found, labels, digests, old.sides.names, [0.8, 0.1, 0.1], seed)


def test_held_out_films_keep_their_side_by_id_and_by_text():
    ids = np.array([95, 85, 500, 501, 3])
    texts = ["another text", "overview 85", "Overview 99!", "overview 81", "overview 3"]
    _, (train, validation, test) = split(old_films(), ids, texts)
    assert test.tolist() == [0, 2]  # by id with a new text, and by the text of test film 99 with a new id
    assert validation.tolist() == [1, 3]
    assert train.tolist() == [4]


def test_a_text_that_was_held_out_takes_its_copies_with_it():
    # film 3 was trained on, and now has the text of a test film; so has a new film
    _, (train, _, test) = split(old_films(), np.array([3, 700, 4]), ["overview 91", "overview 91", "overview 4"])
    assert test.tolist() == [0, 1]
    assert train.tolist() == [2]


def test_new_films_are_split_by_the_fractions():
    ids = np.arange(1000, 1200)
    found, parts = split(old_films(), ids, [f"new {number}" for number in ids])
    assert found.new.all()
    assert [len(part) for part in parts] == [160, 20, 20]
    assert sorted(np.concatenate(parts)) == list(range(200))


@pytest.mark.parametrize(("replay", "trained"), [(1.0, 80), (0.25, 20), (0.0, 0)])
def test_replay_chooses_old_training_films_alone(replay, trained):
    old = old_films(replay=replay)
    ids = np.concatenate([OLD_IDS, [1000, 1001]])
    found = origins(old, ids, text_digests([*OLD_TEXTS, "new one", "new two"]))
    used = films_in_use(old, found, np.zeros(len(ids), dtype=bool), None, seed=0)
    assert (used < 80).sum() == trained
    assert (used >= 80).sum() == 22


def test_films_that_a_subset_left_out_are_not_new_ones():
    old = old_films(subset=True)
    found = origins(old, np.array([5, 900, 901]), text_digests(["overview 5", "never seen", "new"]))
    from_older = np.array([True, True, False])
    assert films_in_use(old, found, from_older, None, seed=0).tolist() == [0, 2]


def test_sides_of_unused_films_are_kept_over_generations(tmp_path):
    old = old_films(replay=0.0)
    ids, texts = np.array([1000, 1001, 1002, 95]), ["a new", "b new", "c new", "overview 95"]
    digests = text_digests(texts)
    found = origins(old, ids, digests)
    parts = [np.array([0]), np.array([1]), np.array([2, 3])]
    sides = continued_sides(old, found, ids, digests, parts, ("Comedy", "Drama", "War"), "new.csv")
    sides.write(tmp_path / "splits.parquet")
    read = KeptSplits.read(tmp_path / "splits.parquet")
    assert (read.generation, read.genres) == (1, {"War": 1})
    assert [part.tolist() for part in read.parts(ids, digests, tmp_path)] == [[0], [1], [2, 3]]
    assert dict(zip(read.ids, read.born, strict=True))["1000"] == 1
    # film 2 was trained on by the first run and is not used by the second: the third still knows it
    third, (train, _, _) = split(OldFilms("runs/new", read, read.genres), np.array([2]), ["overview 2"])
    assert train.tolist() == [0]
    assert third.born.tolist() == [0]


def test_numbers_of_rows_are_not_ids(tmp_path):
    kept = KeptSplits.of_parts(OLD_IDS, text_digests(OLD_TEXTS), OLD_PARTS, "old.csv", numbered=True)
    kept.write(tmp_path / "splits.parquet")
    sides = KeptSplits.read(tmp_path / "splits.parquet")
    assert (sides.numbered, KeptSplits.read(written(tmp_path, old_films().sides)).numbered) == (True, False)
    ids, digests = np.array([95, 85, 3]), text_digests(["a new text", "overview 99", "overview 3"])
    for old, numbered in ((OldFilms("runs/old", sides, ("Comedy",)), False), (old_films(), True)):
        assert origins(old, ids, digests, numbered=numbered).side.tolist() == [-1, 2, 0]
    by_text, by_id = sides.on_side(ids, digests, "test")
    assert (by_text.tolist(), by_id.any()) == ([False, True, False], False)
    old = OldFilms("runs/old", sides, ("Comedy",))
    found = origins(old, ids, digests)
    parts = [np.array([0, 2]), np.array([], dtype=np.int64), np.array([1])]
    child = continued_sides(old, found, ids, digests, parts, ("Comedy",), "new.csv")
    child.write(tmp_path / "child.parquet")  # its ids are distinct
    assert sorted(child.digests) == sorted([*sides.digests, digests[0].tobytes()])
    assert not child.numbered


def written(folder, sides):
    sides.write(folder / "named.parquet")
    return folder / "named.parquet"


def test_a_genre_that_disappears_is_refused_or_reported():
    with pytest.raises(ConfigError, match=r"no film of new.csv has Drama, .*--continue.drop_genres true"):
        check_genres(old_films(), ["Comedy", "War"], "new.csv")
    notes = check_genres(old_films(drop_genres=True), ["Comedy", "War"], "new.csv")
    assert "left out, as no film has them: Drama" in notes[0]
    assert "does not know: War" in notes[1]
