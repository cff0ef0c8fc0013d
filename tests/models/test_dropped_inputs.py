"""TF-IDF baselines of texts and inputs: films without inputs are tagged well, as some are learnt from without them."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit

from genre_lightning.data.features.encode import encode_inputs
from genre_lightning.data.features.matrix import input_matrix
from genre_lightning.models.linear import missing_columns
from genre_lightning.models.tfidf import TfidfLogisticRegression, TfidfNaiveBayes, read_baseline
from genre_lightning.types import FittedInput

INPUTS = (
    FittedInput("tags", "tags", values=("heist", "war")),
    FittedInput("runtime", "number", mean=(90.0,), std=(20.0,)),
)


def films(count=400, seed=0):
    """Texts that say something of the genre, and tags that say nearly all; a fifth of the tags are missing."""
    numbers = np.random.default_rng(seed)
    labels = numbers.random((count, 1)) < 0.3
    words = np.where(numbers.random(count) < 0.8, labels[:, 0], ~labels[:, 0])
    texts = [f"a {'gun' if word else 'kiss'} in the city" for word in words]
    # only films of the genre lack tags, as catalogues are kept with different care
    tags = [
        None if label and numbers.random() < 0.5 else ["war"] if label else ["heist"] for label in labels[:, 0].tolist()
    ]
    runtimes = numbers.normal(90, 20, count).tolist()
    encoded = encode_inputs(INPUTS, lambda name: tags if name == "tags" else runtimes)
    return texts, labels, input_matrix(encoded)


def loss_without_inputs(kind, drop_inputs):
    texts, labels, columns = films()
    model = kind(min_films=1, max_share=1.0, drop_inputs=drop_inputs)
    model.fit(texts, labels, ("War",), 0, INPUTS, columns)
    texts, labels, _ = films(seed=1)
    p = expit(model.logits(texts, missing_columns(INPUTS, len(texts))).astype(np.float64))
    return float(-np.log(np.where(labels, p, 1 - p)).mean())


@pytest.mark.parametrize("kind", [TfidfLogisticRegression, TfidfNaiveBayes])
def test_films_without_inputs_are_tagged_better(kind):
    assert loss_without_inputs(kind, 0.2) < 0.8 * loss_without_inputs(kind, 0.0)


def test_missing_columns_are_those_of_films_without_inputs():
    encoded = encode_inputs(INPUTS, lambda name: [None] * 3)
    assert (missing_columns(INPUTS, 3) != input_matrix(encoded)).nnz == 0


def test_labels_that_are_not_known_stay_unknown_for_the_second_time():
    texts, labels, columns = films(60)
    known = np.arange(60)[:, None] < 40
    made = []
    for others in (labels, labels ^ ~known):  # what is not known may be anything
        model = TfidfLogisticRegression(min_films=1, drop_inputs=0.5)
        model.fit(texts, others, ("War",), 0, INPUTS, columns, known)
        made.append(model.logits(texts, columns))
    np.testing.assert_allclose(*made)


def test_films_are_learnt_from_a_second_time_by_their_overviews():
    texts, labels, columns = films()
    model = TfidfLogisticRegression(min_films=1, max_share=1.0)
    titled = [f"{text} {'north' if label else 'south'}" for text, label in zip(texts, labels[:, 0], strict=True)]
    alone = []
    for overviews in (None, texts):
        model.fit(titled, labels, ("War",), 0, INPUTS, columns, None, overviews)
        alone.append(model.logits(["a gun in the city"], missing_columns(INPUTS, 1))[0, 0])
    # the title says all, so that only films without one show what the overview's words say
    assert alone[1] > alone[0] + 0.5


def test_texts_alone_are_learnt_from_once(tmp_path):
    texts, labels, columns = films(60)
    files = []
    for drop_inputs in (0.0, 0.5):
        model = TfidfNaiveBayes(min_films=1, drop_inputs=drop_inputs)
        model.fit(texts, labels, ("War",))
        model.write(tmp_path / "model")
        files.append((tmp_path / "model").read_bytes())
    assert files[0] == files[1]
    model = TfidfNaiveBayes(min_films=1, drop_inputs=0.5)
    model.fit(texts, labels, ("War",), 0, INPUTS, csr_matrix(columns))
    model.write(tmp_path / "model")
    assert read_baseline(tmp_path / "model").drop_inputs == 0.5
