"""Exact explanations of TF-IDF runs."""

import numpy as np
import pytest

from genre_lightning.explain.terms import TermAttributor
from genre_lightning.models.tfidf import TfidfLogisticRegression, TfidfNaiveBayes

TEXTS = [
    "Love at the river: a café, a train and a wedding.",
    "A gun, a ghost and a haunted house by the river.",
    "The ghost train; the ghost train! A gun on the ghost train.",
    "Love and war and a wedding by the haunted house.",
    "A robot on the moon finds love at the café.",
    "War on the moon: a robot with a gun.",
]
LABELS = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0], [0, 1]], dtype=bool)


@pytest.mark.parametrize("kind", [TfidfNaiveBayes, TfidfLogisticRegression])
@pytest.mark.parametrize(
    "text", [*TEXTS, "LOVE, cafe’s Ghost-train™ — ½ “haunted house”… 海 robot", "nothing known", "?"]
)
def test_words_add_up_to_the_log_odds(kind, text):
    model = kind(min_films=1)
    model.fit(TEXTS, LABELS, ("Love", "Fear"))
    got = TermAttributor(model).attribute(text, [1, 0])
    np.testing.assert_allclose(got.log_odds, model.logits([text])[0, ::-1], atol=1e-6)
    np.testing.assert_allclose(got.baseline, model.linear.bias[::-1])
    assert got.errors.max() < 1e-6
    assert got.steps.tolist() == [0, 0]


def test_a_term_of_two_words_gives_each_a_half():
    model = TfidfNaiveBayes(min_films=1)
    model.fit(TEXTS, LABELS, ("Love", "Fear"))
    text = "The haunted house"
    got = TermAttributor(model).attribute(text, [0])
    terms = {"haunted": 0, "house": 1}
    weight = {term: model.linear.weights[model.linear.terms.index(term), 0] for term in (*terms, "haunted house")}
    idf = {term: model.linear.idf[model.linear.terms.index(term)] for term in weight}
    length = np.sqrt(sum(value**2 for value in idf.values()))
    both = idf["haunted house"] / length * weight["haunted house"]
    expected = [0, *(idf[term] / length * weight[term] + both / 2 for term in terms)]
    np.testing.assert_allclose(got.values[:, 0], expected, rtol=1e-5)
