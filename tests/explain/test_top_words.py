"""The words that add most to each genre, against means worked out by hand."""

import numpy as np
import pytest

from genre_lightning.explain.attribution import Attribution
from genre_lightning.explain.top_words import WordMeans, draw_films
from genre_lightning.explain.words import split_words


def film(text, *values, read=None):
    words = split_words(text)
    columns = np.array(values, dtype=np.float64).T
    nothing = np.zeros(columns.shape[1])
    return Attribution(words, len(text) if read is None else read, columns, nothing, nothing, nothing.astype(np.int64))


def test_means_over_the_films_that_have_the_genre_and_the_word():
    means = WordMeans(("War", "Love", "Music"))
    means.add(film("Gun, gun kiss", [1.0, 9.0, 2.0, 0.5], [0.1, 9.0, 0.1, 3.0]), [0, 1])
    means.add(film("GUN’s kiss", [5.0, -0.1]), [0])
    means.add(film("kiss gun", [1.0, 4.0], read=4), [1])
    war, love, music = means.rows(fewest=2)
    # twice in one film is the sum, and it is one film; the comma is not a word
    assert war == {
        "genre": "War", "films": 2,
        "words": [
            {"word": "gun", "films": 2, "log_odds": 4.0},
            {"word": "kiss", "films": 2, "log_odds": pytest.approx(0.2)},
        ],
    }  # fmt: skip
    # what was cut is not counted
    assert love == {"genre": "Love", "films": 2, "words": [{"word": "kiss", "films": 2, "log_odds": 2.0}]}
    assert music == {"genre": "Music", "films": 0, "words": []}
    assert [word["word"] for word in means.rows(fewest=1)[1]["words"]] == ["kiss", "gun"]
    assert [word["word"] for word in means.rows(fewest=1, kept=1)[0]["words"]] == ["gun"]


def test_words_that_say_nothing_or_speak_against_are_left_out():
    means = WordMeans(("War",))
    means.add(film("flower of", [-2.0, 0.05]), [0])
    assert means.rows(fewest=1)[0]["words"] == []


def test_rare_genres_have_their_share_of_the_sample():
    numbers = np.random.default_rng(4)
    decided = numbers.random((500, 4)) < [0.7, 0.3, 0.03, 0.0]
    few = int(decided[:, 2].sum())
    assert 0 < few < 25
    drawn = draw_films(decided, 100, seed=0)
    assert len(drawn) == len(set(drawn)) == 100
    assert (np.diff(drawn) > 0).all()
    assert decided[drawn].sum(axis=0)[2] == few
    assert (decided[drawn].sum(axis=0)[:2] >= 25).all()
    np.testing.assert_array_equal(draw_films(decided, 100, seed=0), drawn)
    assert not np.array_equal(draw_films(decided, 100, seed=1), drawn)
    assert len(draw_films(decided, 3, seed=0)) == 3
    np.testing.assert_array_equal(draw_films(decided, 900, seed=0), np.arange(500))
