"""Votes on a text, resolved to one set of genres and a weight."""

from dataclasses import replace

import pytest

from genre_lightning.config.continuation import ContinueOptions
from genre_lightning.learning.store import Feedback
from genre_lightning.learning.votes import resolve


def said(text, user, genres, source="import"):
    return Feedback(text, tuple(genres), user, "2026-01-01T00:00:00Z", source)


def genres_of(rows, **options):
    return {one.text: set(one.genres) for one in resolve(rows, **options)}


def test_the_majority_decides_each_genre():
    rows = [said("a", "x", ["Drama", "War"]), said("a", "y", ["Drama"]), said("a", "z", ["War", "Drama", "Crime"])]
    assert genres_of(rows) == {"a": {"Drama", "War"}}


def test_the_newest_opinion_decides_a_tie():
    rows = [said("a", "x", ["Drama"]), said("a", "y", ["Comedy"])]
    assert genres_of(rows) == {"a": {"Comedy"}}
    assert genres_of(rows[::-1]) == {"a": {"Drama"}}


def test_the_time_decides_which_opinion_is_the_newest():
    rows = [replace(said("a", "x", ["Drama"]), time="2026-02-01T00:00:00Z"), said("a", "y", ["Comedy"])]
    assert genres_of(rows) == genres_of(rows[::-1]) == {"a": {"Drama"}}
    assert genres_of(rows, trusted=["x", "y"]) == {"a": {"Drama"}}


def test_the_newest_trusted_user_decides_alone():
    rows = [said("a", "x", ["Drama"]), said("a", "boss", ["War"]), said("a", "y", ["Drama"])]
    assert genres_of(rows, trusted=["boss"]) == {"a": {"War"}}
    assert genres_of(rows) == {"a": {"Drama"}}


def test_weights_are_of_the_source():
    rows = [said("a", "x", ["Drama"], "tag"), said("a", "y", ["Drama"]), said("b", "x", ["War"], "page")]
    found = {one.text: one.weight for one in resolve(rows, weights={"tag": 0.5, "page": 0})}
    assert found == {"a": 0.75}


def test_a_negative_weight_is_refused():
    assert "feedback_weights has tag: -1" in ContinueOptions(feedback_weights={"tag": -1}).problems()[0]


def test_nobody_says_a_genre():
    (one,) = resolve([said("a", "x", [])])
    assert (one.genres, one.weight) == ((), pytest.approx(1))
