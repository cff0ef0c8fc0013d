"""Each loss against its written formula in float64, against gradcheck, and where numbers get large."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genre_lightning.errors import ConfigError, DataError
from genre_lightning.losses import asymmetric, bce, distillation, focal, loss_function, positive_weights, zlpr
from genre_lightning.models.optimizer import schedule_factor
from genre_lightning.types import DataSpec

WEIGHT = torch.tensor([0.5, 1.0, 3.0, 20.0], dtype=torch.float64)


def pairs(seed=0, films=6):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(films, 4, generator=generator, dtype=torch.float64) * 3
    targets = (torch.rand(films, 4, generator=generator, dtype=torch.float64) < 0.4).double()
    return logits, targets


def written(logits, targets, weight, term):
    """Mean over genres of term(p, y, w), in Python's own arithmetic."""
    rows = []
    for film, truth in zip(logits.tolist(), targets.tolist(), strict=True):
        terms = [term(1 / (1 + math.exp(-x)), y, w) for x, y, w in zip(film, truth, weight.tolist(), strict=True)]
        rows.append(sum(terms) / len(terms))
    return torch.tensor(rows, dtype=torch.float64)


def bce_term(p, y, w):
    return -(w * y * math.log(p) + (1 - y) * math.log(1 - p))


def focal_term(gamma):
    return lambda p, y, w: -(w * y * (1 - p) ** gamma * math.log(p) + (1 - y) * p**gamma * math.log(1 - p))


def asymmetric_term(positive, negative, margin):
    def term(p, y, w):
        q = max(p - margin, 0)
        return -(w * y * (1 - p) ** positive * math.log(p) + (1 - y) * q**negative * math.log(1 - q))

    return term


def smoothed_term(p, y, w):
    y = 0.9 if y else 0.1
    return bce_term(p, y, w)


CASES = {
    "bce smoothed": (lambda *a: bce(*a, label_smoothing=0.2), smoothed_term),
    "bce": (bce, bce_term),
    "focal 2": (focal, focal_term(2.0)),
    "focal 0.5": (lambda *a: focal(*a, gamma=0.5), focal_term(0.5)),
    "asymmetric": (asymmetric, asymmetric_term(0.0, 4.0, 0.05)),
    "asymmetric 1 2": (
        lambda *a: asymmetric(*a, gamma_positive=1.0, gamma_negative=2.0, margin=0.2),
        asymmetric_term(1.0, 2.0, 0.2),
    ),
    "asymmetric no margin": (lambda *a: asymmetric(*a, margin=0.0), asymmetric_term(0.0, 4.0, 0.0)),
    "asymmetric slow": (lambda *a: asymmetric(*a, gamma_negative=0.5), asymmetric_term(0.0, 0.5, 0.05)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_written_formula(name):
    loss, term = CASES[name]
    logits, targets = pairs()
    torch.testing.assert_close(loss(logits, targets, WEIGHT), written(logits, targets, WEIGHT, term))
    ones = torch.ones_like(WEIGHT)
    torch.testing.assert_close(loss(logits, targets, None), written(logits, targets, ones, term))


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    logits, targets = pairs(seed=1)
    loss = CASES[name][0]
    assert torch.autograd.gradcheck(lambda x: loss(x, targets, WEIGHT), logits.requires_grad_())


def test_bce_is_torchs():
    logits, targets = pairs(films=50)
    torch.testing.assert_close(
        bce(logits, targets, WEIGHT).mean(), torch.nn.BCEWithLogitsLoss(pos_weight=WEIGHT)(logits, targets)
    )
    torch.testing.assert_close(bce(logits, targets).mean(), F.binary_cross_entropy_with_logits(logits, targets))


def test_special_cases_are_bce():
    logits, targets = pairs(films=50)
    plain = bce(logits, targets, WEIGHT)
    torch.testing.assert_close(focal(logits, targets, WEIGHT, gamma=0.0), plain)
    flat = {"gamma_positive": 0.0, "gamma_negative": 0.0}
    torch.testing.assert_close(asymmetric(logits, targets, WEIGHT, margin=0.0, **flat), plain)
    # without a margin, equal exponents are the focal loss
    torch.testing.assert_close(
        asymmetric(logits, targets, WEIGHT, margin=0.0, gamma_positive=2.0, gamma_negative=2.0),
        focal(logits, targets, WEIGHT),
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_are_finite_with_finite_gradients(name, dtype):
    logits = torch.tensor([[-1e4, -100.0, -20.0, -0.0], [0.0, 20.0, 100.0, 1e4]], dtype=dtype, requires_grad=True)
    for value in (0.0, 1.0):
        losses = CASES[name][0](logits, torch.full_like(logits, value), WEIGHT.to(dtype))
        assert losses.dtype == dtype
        assert losses.isfinite().all()
        assert (losses >= 0).all()
        (gradient,) = torch.autograd.grad(losses.sum(), logits)
        assert gradient.isfinite().all()


def test_pos_weight_weighs_positives_only():
    logits, _ = pairs()
    for name, (loss, _) in CASES.items():
        if "smoothed" in name:  # a negative is a little positive
            continue
        none, all_true = torch.zeros_like(logits), torch.ones_like(logits)
        torch.testing.assert_close(loss(logits, none, WEIGHT), loss(logits, none, None), msg=name)
        single = loss(logits[:, :1], all_true[:, :1], WEIGHT[3:])
        torch.testing.assert_close(single, 20 * loss(logits[:, :1], all_true[:, :1], None), msg=name)


def test_negatives_below_the_margin_count_nothing():
    logits = torch.tensor([[-5.0, -4.0]], dtype=torch.float64, requires_grad=True)
    loss = asymmetric(logits, torch.zeros_like(logits))
    assert loss.item() == 0
    assert torch.autograd.grad(loss.sum(), logits)[0].abs().max() == 0


def test_zlpr_is_its_written_formula():
    logits, targets = pairs()
    for weight in (torch.ones_like(WEIGHT), WEIGHT):
        expected = [
            math.log(1 + sum(w * math.exp(-x) for x, y, w in zip(film, truth, weight.tolist(), strict=True) if y))
            + math.log(1 + sum(math.exp(x) for x, y in zip(film, truth, strict=True) if not y))
            for film, truth in zip(logits.tolist(), targets.tolist(), strict=True)
        ]
        torch.testing.assert_close(zlpr(logits, targets, weight), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(zlpr(logits, targets), zlpr(logits, targets, torch.ones_like(WEIGHT)))
    assert loss_function("zlpr") is zlpr


def test_zlpr_is_differentiable_and_finite_for_any_targets_and_logits():
    logits, targets = pairs(seed=1)
    targets[0], targets[1] = 0, 1
    assert torch.autograd.gradcheck(lambda x: zlpr(x, targets, WEIGHT), logits.requires_grad_())
    extreme = torch.tensor([[-1e4, -100.0, 20.0, 1e4]], requires_grad=True)
    for value in (0.0, 1.0):
        losses = zlpr(extreme, torch.full_like(extreme, value), WEIGHT.float())
        (gradient,) = torch.autograd.grad(losses.sum(), extreme)
        assert losses.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", ["focal", "zlpr"])
def test_label_smoothing_of_another_loss_is_refused(loss):
    from genre_lightning.models.distilbert import DistilBertClassifier

    with pytest.raises(ConfigError, match=r"model\.label_smoothing is 0\.1 with model\.loss"):
        DistilBertClassifier(backbone="small", loss=loss, label_smoothing=0.1).check()


def test_loss_function_binds_its_parameters():
    logits, targets = pairs()
    torch.testing.assert_close(
        loss_function("bce", label_smoothing=0.3)(logits, targets, WEIGHT),
        bce(logits, targets, WEIGHT, label_smoothing=0.3),
    )
    torch.testing.assert_close(loss_function("bce")(logits, targets, WEIGHT), bce(logits, targets, WEIGHT))
    torch.testing.assert_close(
        loss_function("focal", focal_gamma=3.0)(logits, targets, WEIGHT), focal(logits, targets, WEIGHT, gamma=3.0)
    )
    options = {"gamma_positive": 1.0, "gamma_negative": 3.0, "margin": 0.1}
    torch.testing.assert_close(
        loss_function("asymmetric", **{f"asymmetric_{name}": value for name, value in options.items()})(
            logits, targets, WEIGHT
        ),
        asymmetric(logits, targets, WEIGHT, **options),
    )


def test_an_unknown_loss_is_refused_and_a_function_is_used():
    from genre_lightning.models.distilbert import DistilBertClassifier

    for name in ("focall", "BCE", None):
        with pytest.raises(ConfigError, match=r"model\.loss is .*choose one of bce"):
            loss_function(name)
        with pytest.raises(ConfigError, match=r"model\.loss is"):
            DistilBertClassifier(backbone="small", loss=name).check()
    logits, targets = pairs()

    def own(logits, targets, pos_weight):
        return 3 * bce(logits, targets, pos_weight)

    model = DistilBertClassifier(backbone="small", loss=own)
    torch.testing.assert_close(model.loss_function(logits, targets, WEIGHT), 3 * bce(logits, targets, WEIGHT))
    with pytest.raises(ConfigError, match="one value for each film"):
        loss_function(lambda *arguments: own(*arguments).mean())(logits, targets, None)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match=r"model\.schedule is 'cosin': choose one of"):
        schedule_factor("cosin", warmup_steps=1, total_steps=2)


GENRES = ("Action", "Comedy", "Drama", "War")


def counts(labels, genres):
    return DataSpec(tuple(genres), labels.sum(axis=0), len(labels), vocab_size=9, pad_token_id=0, max_tokens=8)


@pytest.mark.parametrize("cap", [None, 0.5, 2.0, 1000.0])
@pytest.mark.parametrize("mode", ["full", "sqrt", "none"])
def test_pos_weight_is_the_written_formula(mode, cap):
    labels = np.random.default_rng(0).random((200, 4)) < [0.9, 0.5, 0.1, 0.02]
    weight = positive_weights(counts(labels, GENRES[:4]), mode, cap)
    assert weight.dtype == np.float32
    for column in range(4):
        positives = sum(bool(row[column]) for row in labels)
        ratio = (200 - positives) / positives
        written = {"full": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[mode]
        if cap is not None and mode != "none":
            written = min(written, cap)
        assert weight[column] == pytest.approx(written, rel=1e-6)


@pytest.mark.parametrize("mode", ["full", "sqrt", "none"])
def test_a_genre_without_a_positive_is_refused(mode):
    labels = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    with pytest.raises(DataError, match=r"genre Drama: .*data\.max_films"):
        positive_weights(counts(labels, GENRES[:3]), mode)
    with pytest.raises(DataError, match="genres Comedy, Drama"):
        positive_weights(counts(labels[:1], GENRES[:3]), mode)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match=r"model\.pos_weight is 'half'.*full, sqrt, none"):
        positive_weights(counts(np.ones((2, 1), dtype=bool), ["A"]), "half")


@pytest.mark.parametrize("loss", [bce, partial(bce, label_smoothing=0.1), focal, asymmetric, zlpr])
def test_a_label_that_is_not_known_changes_nothing(loss):
    logits, targets = pairs()
    known = torch.ones_like(targets)
    known[0, 1] = known[2, 3] = 0
    known[4] = 0
    logits.requires_grad_()
    losses = loss(logits, targets, WEIGHT, known)
    other = torch.where(known > 0, targets, 1 - targets)
    torch.testing.assert_close(loss(logits, other, WEIGHT, known), losses)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (gradient[known == 0] == 0).all()
    assert (gradient[known > 0] != 0).any(dim=-1).all() or loss is not bce
    # of a film whose labels are known but for one: the loss of the others alone
    rest = [0, 2, 3]
    torch.testing.assert_close(losses[0], loss(logits[:1, rest], targets[:1, rest], WEIGHT[rest])[0])
    torch.testing.assert_close(losses[1], loss(logits, targets, WEIGHT)[1])
    assert losses[4] == 0


def test_weights_of_positives_count_known_films():
    counts = np.array([10, 5]), np.array([100, 20])
    spec = DataSpec(("Drama", "War"), counts[0], 100, 1, 0, 1, known=counts[1])
    np.testing.assert_allclose(positive_weights(spec), [9, 3])


def test_a_loss_of_ones_own_must_take_the_mask():
    logits, targets = pairs()
    known = torch.ones_like(targets)
    with pytest.raises(ConfigError, match="has no parameter `known`"):
        loss_function(lambda x, y, w: (x * y).mean(-1))(logits, targets, WEIGHT, known=known)
    masked = loss_function(lambda x, y, w, known=None: (x * y * known).mean(-1))
    torch.testing.assert_close(masked(logits, targets, WEIGHT, known=known), (logits * targets).mean(-1))


def test_distillation_is_least_at_the_teachers_log_odds_and_leaves_other_genres_alone():
    teacher, _ = pairs()
    teacher[:, 3] = math.nan
    logits = torch.where(teacher.isnan(), torch.ones_like(teacher), teacher).requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(logits, teacher).sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    moved = (logits.detach() + 0.5).requires_grad_()
    losses = distillation(moved, teacher)
    (gradient,) = torch.autograd.grad(losses.sum(), moved)
    assert (gradient[:, :3] > 0).all()
    assert (gradient[:, 3] == 0).all()
    assert (losses > distillation(logits, teacher)).all()
