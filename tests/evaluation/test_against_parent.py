"""A continued run against its parent: the films and genres that both have, and what is significantly worse."""

from dataclasses import replace

import numpy as np
import pytest

from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import DataError
from genre_lightning.evaluation.against_parent import (
    against_cells,
    against_parent,
    is_worse,
    named_as_in,
    on_shared_films,
    verdict,
)
from genre_lightning.evaluation.decisions import fit_decision
from genre_lightning.evaluation.predictions import Predictions, StoredPredictions
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.runs import RunDirectory

OLD, NEW = ("Comedy", "Drama"), ("Comedy", "Drama", "War")


class Stored:
    """A run of which only its predictions are asked."""

    def __init__(self, stored):
        self.stored, self.directory = stored, "runs/old"

    def predictions(self, split):
        assert split == "test"
        return self.stored


def stored(genres, ids, noise, seed=0, known=None):
    rng = np.random.default_rng([seed, 1])
    truth = {name: np.random.default_rng([7, n]).normal(size=1000) for n, name in enumerate(NEW)}
    labels = np.stack([truth[name][ids] > 0.5 for name in genres], axis=1)
    scores = np.stack([truth[name][ids] for name in genres], axis=1)
    logits = (3 * (scores - 0.5) + rng.normal(size=scores.shape) * np.asarray(noise)).astype(np.float32)
    films = Predictions(genres, ids, ["t"] * len(ids), ["x"] * len(ids), labels, logits, known)
    scored = ScoredSplit(films, fit_decision(films, "validation", resamples=5))
    return StoredPredictions(films, scored.probabilities, scored.decided["per_genre"], {"split_sha256": str(len(ids))})


def test_shared_films_are_in_one_order_with_the_newest_labels():
    old, new = stored(OLD, np.arange(50), 1), stored(NEW, np.arange(90, 20, -1), 1)
    labels = new.predictions.labels.copy()
    labels[new.predictions.ids == 30, 0] ^= True
    new = replace(new, predictions=replace(new.predictions, labels=labels))
    first, second = on_shared_films([old, new], truth=1)
    assert first.predictions.ids.tolist() == second.predictions.ids.tolist()
    assert {int(name) for name in first.predictions.ids} == set(range(21, 50))
    assert first.predictions.genres == OLD
    np.testing.assert_array_equal(first.predictions.labels, second.predictions.labels)
    place = first.predictions.ids.tolist().index("30")
    assert first.predictions.labels[place, 0] == labels[new.predictions.ids == 30, 0][0]
    np.testing.assert_array_equal(first.predictions.logits[place], old.predictions.logits[30])


def test_films_of_a_parent_without_ids_are_found_by_their_texts(tmp_path):
    texts = text_digests([f"overview {number}" for number in range(60)])
    parts = [np.arange(40), np.arange(40, 50), np.arange(50, 60)]
    # the parent's films are numbered from 1, in the other order
    for name, ids, digests, numbered in (
        ("old", np.arange(1, 61), texts[::-1], True),
        ("new", np.arange(60), texts, False),
    ):
        (tmp_path / name).mkdir()
        kept = KeptSplits.of_parts(ids, digests, parts, "a.csv", numbered=numbered)
        kept.write(RunDirectory(tmp_path / name).splits)
    old, new = stored(OLD, np.arange(60), 1), stored(NEW, np.arange(60), 1)
    old = replace(old, predictions=replace(old.predictions, ids=np.arange(1, 61)))
    named = named_as_in(Run(tmp_path / "new"), Run(tmp_path / "old"), old)
    assert named.predictions.ids.tolist() == [str(number) for number in range(59, -1, -1)]
    assert named_as_in(Run(tmp_path / "new"), Run(tmp_path / "new"), new) is new
    assert named_as_in(Run(tmp_path / "old"), Run(tmp_path / "old"), old) is old


def test_runs_without_a_film_in_common_are_refused():
    with pytest.raises(DataError, match="no test film and genre in common"):
        on_shared_films([stored(OLD, np.arange(10), 1), stored(NEW, np.arange(20, 30), 1)], truth=0)


def test_a_forgotten_genre_is_worse_and_the_others_are_not():
    ids = np.arange(400)
    old = stored(OLD, ids, 0.5)
    new = stored(NEW, np.arange(500), [0.5, 8, 0.5], seed=0)
    found = against_parent(Stored(new), Stored(old), resamples=300)
    assert found["n"] == 400
    assert is_worse(found) == ["micro-F1", "macro-F1", "mAP", "Drama"]
    assert "worse than the parent on its test films: micro-F1" in verdict(found)
    same = against_parent(Stored(stored(NEW, np.arange(500), 0.5)), Stored(old), resamples=300)
    assert not is_worse(same)


def test_a_genre_of_many_can_be_worse():
    genres = tuple(f"genre {number:02}" for number in range(30))
    rng = np.random.default_rng(3)
    truth = rng.random((300, 30)) < 0.3
    right = np.where(truth, 4, -4).astype(np.float32)
    wrong = right.copy()
    wrong[:, 7] *= -1

    def run(logits):
        films = Predictions(genres, np.arange(300), ["t"] * 300, ["x"] * 300, truth, logits, None)
        probabilities = 1 / (1 + np.exp(-logits))
        return Stored(StoredPredictions(films, probabilities, probabilities > 0.5, {"split_sha256": "a"}))

    assert is_worse(against_parent(run(wrong), run(right)))[3:] == ["genre 07"]


def test_films_that_are_unknown_for_a_genre_do_not_count():
    ids = np.arange(400)
    known = np.ones((400, 2), dtype=bool)
    known[:200, 1] = False
    clean, noisy = stored(OLD, ids, 0.5, known=known), stored(OLD, ids, 0.5, known=known)
    logits = np.where(known, noisy.predictions.logits, 9).astype(np.float32)
    noisy = replace(noisy, predictions=replace(noisy.predictions, logits=logits), decided=noisy.decided | ~known)
    found = against_parent(Stored(noisy), Stored(clean), resamples=50)
    assert [row["old"] for row in found["genres"]] == [row["new"] for row in found["genres"]]
    assert found["partly_known"]


def test_a_change_that_rounds_to_nothing_has_no_minus():
    row = {"name": "mAP", "old": 0.5001, "new": 0.5, "p": 1.0, "worse": False}
    assert against_cells({"n": 5, "overall": [row], "genres": []})[0][4] == "+0.000"
