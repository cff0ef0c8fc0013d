"""Cut-offs of pseudo-labels: as many films as the wanted precision allows, none if too few say so."""

import numpy as np

from genre_lightning.learning.cutoffs import LEAST, fit_cutoffs


def fitted(probabilities, labels, known=None, precision=0.9, negative_precision=0.95):
    """Of one genre."""
    columns = [np.array(values)[:, None] for values in (probabilities, labels)]
    mask = None if known is None else np.array(known)[:, None]
    return fit_cutoffs(columns[0], columns[1].astype(bool), mask, precision=precision,
                       negative_precision=negative_precision)  # fmt: skip


def test_the_precision_beyond_the_cutoffs_is_the_wanted_one():
    rng = np.random.default_rng(0)
    probabilities = rng.random(4000)
    labels = rng.random(4000) < probabilities
    cutoffs = fitted(probabilities, labels)
    positive, known = cutoffs.apply(probabilities[:, None])
    negative = known & ~positive
    assert labels[positive[:, 0]].mean() >= 0.9
    assert (~labels[negative[:, 0]]).mean() >= 0.95
    # of a calibrated model: about the probability whose mean beyond it is the precision
    assert 0.75 < cutoffs.upper[0] < 0.85
    assert 0.05 < cutoffs.lower[0] < 0.15


def test_a_genre_that_is_never_right_is_not_given():
    cutoffs = fitted(np.linspace(0.1, 0.9, 50), np.zeros(50))
    assert cutoffs.upper[0] == np.inf
    assert cutoffs.lower[0] == 0.9
    assert not cutoffs.apply(np.array([[0.99]]))[0].any()


def test_few_films_say_nothing():
    probabilities = [*[0.9] * (LEAST - 1), *[0.2] * 20]
    assert fitted(probabilities, [*[1] * (LEAST - 1), *[0] * 20]).upper[0] == np.inf


def test_films_with_one_probability_are_on_one_side():
    assert fitted([0.8] * 20, [1] * 15 + [0] * 5).upper[0] == np.inf
    assert fitted([0.8] * 20, [1] * 15 + [0] * 5, precision=0.75).upper[0] == 0.8


def test_unknown_labels_do_not_count():
    probabilities, labels = [0.9] * 10 + [0.1] * 10, [1] * 9 + [0] * 11
    assert fitted(probabilities, labels, [True] * 9 + [False] + [True] * 10, precision=1.0).upper[0] == 0.9
    assert fitted(probabilities, labels, precision=1.0).upper[0] == np.inf


def test_crossed_cutoffs_are_not_a_contradiction():
    cutoffs = fitted([0.5] * 10, [1] * 10, precision=0.5, negative_precision=0.5)
    positive, known = cutoffs.apply(np.array([[0.5], [0.4]]))
    assert positive[:, 0].tolist() == [True, False]
    assert known[0, 0]
