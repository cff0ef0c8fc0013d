"""Baselines against scikit-learn's own classifiers, and their file against what a stranger might put in it."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from genre_lightning.errors import CheckpointError, ConfigError, DataError
from genre_lightning.models.linear import naive_bayes
from genre_lightning.models.tfidf import TfidfLogisticRegression, TfidfNaiveBayes, read_baseline

WORDS = ["love", "gun", "moon", "ghost", "train", "café", "river", "war", "wedding", "robot"]
GENRES = ("A", "B", "C")


def made_texts(films=60, seed=0):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 9))) for _ in range(films)]
    labels = np.array([["love" in text, "gun" in text or "war" in text, "moon" in text] for text in texts])
    return texts, labels


def features_of(texts, new, **options):
    vectorizer = TfidfVectorizer(strip_accents="unicode", sublinear_tf=True, stop_words="english", **options)
    return vectorizer.fit_transform(texts), vectorizer.transform(new)


def test_naive_bayes_is_scikit_learns():
    texts, labels = made_texts()
    new, _ = made_texts(20, seed=1)
    train, test = features_of(texts, new, ngram_range=(1, 2), min_df=3, max_df=0.5)
    model = TfidfNaiveBayes(smoothing=0.3, evidence=1.0)
    model.fit(texts, labels, GENRES)
    logits = model.logits(new)
    assert logits.dtype == np.float32
    for genre in range(3):
        log = MultinomialNB(alpha=0.3).fit(train, labels[:, genre]).predict_log_proba(test)
        np.testing.assert_allclose(logits[:, genre], log[:, 1] - log[:, 0], atol=1e-4)


def test_evidence_scales_the_words_and_not_the_prior():
    texts, labels = made_texts()
    plain, weighted = (TfidfNaiveBayes(evidence=e) for e in (1.0, 3.0))
    for model in (plain, weighted):
        model.fit(texts, labels, GENRES)
    np.testing.assert_allclose(weighted.linear.weights, 3 * plain.linear.weights, rtol=1e-5)
    np.testing.assert_array_equal(weighted.linear.bias, plain.linear.bias)
    share = labels.mean(axis=0)
    np.testing.assert_allclose(plain.linear.bias, np.log(share / (1 - share)))


@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_logistic_regression_is_scikit_learns(weighting):
    texts, labels = made_texts()
    new, _ = made_texts(20, seed=1)
    train, test = features_of(texts, new, ngram_range=(1, 1), min_df=2, max_df=0.9)
    model = TfidfLogisticRegression(max_ngram=1, max_share=0.9, inverse_penalty=2.0, class_weight=weighting)
    model.fit(texts, labels, GENRES)
    for genre in range(3):
        solver = LogisticRegression(
            C=2.0, solver="liblinear", class_weight="balanced" if weighting == "balanced" else None, random_state=0
        )
        expected = solver.fit(train, labels[:, genre]).decision_function(test)
        np.testing.assert_allclose(model.logits(new)[:, genre], expected, atol=1e-3)


@pytest.mark.parametrize("kind", [TfidfNaiveBayes, TfidfLogisticRegression])
def test_a_genre_of_no_film_and_one_of_all_keep_finite_logits(kind):
    texts, labels = made_texts()
    labels[:, 1], labels[:, 2] = False, True
    model = kind()
    model.fit(texts, labels, GENRES)
    logits = model.logits([*texts, "", "unheard of"])
    assert np.isfinite(logits).all()
    assert (logits[:, 1] < -4).all()
    assert (logits[:, 2] > 4).all()
    assert np.ptp(logits[:, 1]) == np.ptp(logits[:, 2]) == 0
    assert model.logits([]).shape == (0, 3)


def test_naive_bayes_of_negative_rounding_stays_finite():
    from scipy.sparse import csr_matrix

    features = csr_matrix(np.array([[0.1, 0.2], [0.3, 0.0]], dtype=np.float32))
    weights, bias = naive_bayes(features, np.array([[True], [False]]), 1e-6)
    assert np.isfinite(weights).all()
    assert bias == 0


@pytest.mark.parametrize("kind", [TfidfNaiveBayes, TfidfLogisticRegression])
def test_the_file_gives_the_same_model_back(kind, tmp_path):
    texts, labels = made_texts()
    model = kind(min_films=2, max_share=0.8)
    model.fit(texts, labels, GENRES)
    digest = model.write(tmp_path / "model.safetensors")
    back = read_baseline(tmp_path / "model.safetensors", digest)
    assert back == model
    assert back != kind()
    assert back.linear.terms == model.linear.terms
    assert back.linear.genres == GENRES
    np.testing.assert_array_equal(back.logits(texts), model.logits(texts))
    assert model.parameters == len(model.linear.terms) * 3 + 3
    assert model.write(tmp_path / "again.safetensors") == digest


def test_other_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    texts, labels = made_texts()
    model = TfidfNaiveBayes()
    with pytest.raises(CheckpointError, match="not been trained"):
        model.write(tmp_path / "none.safetensors")
    model.fit(texts, labels, GENRES)
    path = tmp_path / "model.safetensors"
    model.write(path)
    with pytest.raises(CheckpointError, match="not the model that its decision"):
        read_baseline(path, "0" * 64)
    with pytest.raises(CheckpointError, match="is missing"):
        read_baseline(tmp_path / "nosuch.safetensors")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="not a readable baseline"):
        read_baseline(path)
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="not a readable baseline"):
        read_baseline(path)
    save_file({"x": np.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a readable baseline"):
        read_baseline(path)
    tensors = {
        "terms": np.frombuffer(b"a\nb", np.uint8),
        "idf": np.ones(3),
        "weights": np.ones((2, 1)),
        "bias": np.ones(1),
    }
    save_file(tensors, path, {"facts": '{"baseline": "tfidf_nb", "options": {}, "genres": ["A"]}'})
    with pytest.raises(CheckpointError, match="is damaged"):
        read_baseline(path)


def test_impossible_options_are_named_together():
    with pytest.raises(ConfigError) as caught:
        TfidfNaiveBayes(max_ngram=0, min_films=0, max_share=0, smoothing=0, evidence=float("inf")).check()
    for name in ("max_ngram", "min_films", "max_share", "smoothing", "evidence"):
        assert f"model.{name}" in str(caught.value)
    with pytest.raises(ConfigError, match=r"inverse_penalty.*max_iter"):
        TfidfLogisticRegression(inverse_penalty=-1, max_iter=0).check()
    TfidfNaiveBayes().check()
    TfidfLogisticRegression().check()


def test_texts_without_terms_and_solvers_without_end_are_refused():
    texts, labels = made_texts()
    with pytest.raises(DataError, match="leave no term"):
        TfidfNaiveBayes(min_films=1000).fit(texts, labels, GENRES)
    with pytest.raises(ConfigError, match="did not converge in 1 iterations"):
        TfidfLogisticRegression(max_iter=1, inverse_penalty=1e6).fit(texts, labels, GENRES)
