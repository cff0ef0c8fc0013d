"""Splits: a partition that keeps films of one text together, repeats itself, and is well stratified."""

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.config.data import check_fractions
from genre_lightning.data.splits import ids_digest, normalised_text, split_films, text_groups
from genre_lightning.errors import ConfigError

FRACTIONS = st.sampled_from([(0.8, 0.1, 0.1), (0.8, 0.2), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33)])


def made_films(films, genres, seed, copies=0):
    """Labels with frequencies that fall geometrically, and groups of which some have several films."""
    rng = np.random.default_rng(seed)
    labels = rng.random((films, genres)) < 0.5 * 0.7 ** np.arange(genres)
    groups = np.arange(films)
    groups[rng.integers(0, films, copies)] = groups[rng.integers(0, films, copies)]
    return labels, groups


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    films=st.integers(1, 120),
    genres=st.integers(1, 8),
    copies=st.integers(0, 20),
    seed=st.integers(0, 2**32),
    fractions=FRACTIONS,
)
def test_a_partition_that_keeps_groups_together_and_repeats_itself(films, genres, copies, seed, fractions):
    labels, groups = made_films(films, genres, seed, copies)
    parts = split_films(labels, groups, fractions, seed)
    assert len(parts) == len(fractions)
    assert sorted(np.concatenate(parts).tolist()) == list(range(films))
    for part in parts:
        assert part.tolist() == sorted(part.tolist())
    of_split = [set(groups[part].tolist()) for part in parts]
    for first in range(len(parts)):
        for second in range(first):
            assert not of_split[first] & of_split[second]
    again = split_films(labels, groups, fractions, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_another_seed_deals_otherwise():
    labels, groups = made_films(200, 5, 0)
    first, second = (split_films(labels, groups, (0.8, 0.1, 0.1), seed) for seed in (0, 1))
    assert not np.array_equal(first[0], second[0])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 1000), fractions=FRACTIONS)
def test_shares(seed, fractions):
    labels, groups = made_films(600, 6, seed)
    parts = split_films(labels, groups, fractions, seed)
    for part, share in zip(parts, fractions, strict=True):
        # each genre is assigned once: at most one film of rounding for each
        assert abs(len(part) - share * 600) <= labels.shape[1] + 1
        assert np.abs(labels[part].sum(axis=0) - share * labels.sum(axis=0)).max() <= 0.03 * 600


def deviation(labels, parts, fractions):
    """Mean over genres and splits of |fraction of the genre's films - wanted share|, rare genres as heavy as others."""
    total = labels.sum(axis=0)
    return np.mean(
        [np.abs(labels[part].sum(axis=0) / total - share).mean() for part, share in zip(parts, fractions, strict=True)]
    )


def random_parts(films, fractions, seed):
    bounds = np.cumsum([round(share * films) for share in fractions])[:-1]
    return np.split(np.random.default_rng(seed).permutation(films), bounds)


def test_stratification_beats_chance_and_is_as_good_as_the_reference():
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    fractions = (0.8, 0.2)
    ours, theirs, chance = [], [], []
    for seed in range(5):
        labels, groups = made_films(1500, 15, seed)
        ours.append(deviation(labels, split_films(labels, groups, fractions, seed), fractions))
        chance.append(deviation(labels, random_parts(1500, fractions, seed), fractions))
        folds = MultilabelStratifiedKFold(5, shuffle=True, random_state=seed).split(np.zeros((1500, 1)), labels)
        theirs.append(deviation(labels, next(iter(folds)), fractions))
    assert np.mean(ours) < 0.5 * np.mean(chance)
    assert np.mean(ours) < np.mean(theirs) + 0.005


def test_a_rare_genre_has_films_in_training():
    for seed in range(30):
        labels, groups = made_films(300, 4, seed)
        rare = np.zeros((300, 2), dtype=bool)
        rare[[7, 90], 0] = True
        rare[33, 1] = True
        train = split_films(np.hstack([labels, rare]), groups, (0.8, 0.1, 0.1), seed)[0]
        assert rare[train].any(axis=0).all()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("A man walks.", "  a MAN -- walks!"),
        ("Café", unicodedata.normalize("NFD", "CAFÉ")),
        ("STRASSE", "straße"),
        ("ﬁlm", "film"),
        ("a_b", "a b"),
        ("don't", "don’t"),
    ],
)
def test_texts_that_are_equal(a, b):
    assert normalised_text(a) == normalised_text(b)
    assert text_groups(["x", a, "y", b]).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(("a", "b"), [("A man", "Aman"), ("resume", "résumé"), ("part 1", "part 2")])
def test_texts_that_are_not(a, b):
    assert normalised_text(a) != normalised_text(b)
    assert text_groups([a, b]).tolist() == [0, 1]


@pytest.mark.parametrize("fractions", [[0.8, 0.1, 0.1], [0.8, 0.2], [1 / 3, 1 / 3, 1 / 3]])
def test_fractions_that_are_taken(fractions):
    check_fractions(fractions)


@pytest.mark.parametrize(
    "fractions",
    [[], [1.0], [0.8, 0.1], [0.8, 0.3], [1.0, 0.0], [1.2, -0.2], [0.25] * 4, [float("nan"), 0.5], [float("inf"), 0.5]],
)
def test_fractions_that_are_refused(fractions):
    with pytest.raises(ConfigError, match=r"data\.split"):
        check_fractions(fractions)


def test_digest_of_a_split():
    ids = np.array([30, -1, 2], dtype=np.int64)
    written = b"".join(number.to_bytes(8, "little", signed=True) for number in (-1, 2, 30))
    assert ids_digest(ids) == hashlib.sha256(written).hexdigest() == ids_digest(ids[::-1])
    assert ids_digest(ids) != ids_digest(ids[:2])


def test_groups_are_those_of_a_dictionary():
    rng = np.random.default_rng(0)
    texts = [f"text {number}" for number in rng.integers(0, 400, 1000)]
    first = {}
    assert text_groups(iter(texts)).tolist() == [first.setdefault(text, place) for place, text in enumerate(texts)]
    assert text_groups([]).tolist() == []
