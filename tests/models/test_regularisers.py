"""R-Drop and adversarial embeddings: their formulas, films apart from one another, and what refuses them."""

import numpy as np
import pytest
import torch
from small_llama import ARCHITECTURE, labelling, packed, padded
from specs import data_spec
from torch.distributions import Bernoulli, kl_divergence
from torch.testing import assert_close

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.architectures import Architecture
from genre_lightning.errors import ConfigError
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.regularisers import adversarial_offset, divergence

SMALL = Architecture(layers=2, width=32, heads=2, inner_width=64)
LENGTHS = (6, 19, 3)


def encoder(**options):
    model = DistilBertClassifier(backbone="small", architecture=SMALL, seed=1, **options)
    model.check(32)
    model.bind(data_spec("abcd", 60, 32))
    model.assemble()
    return model.train()


def decoder(**options):
    model = LlamaQLoraClassifier(
        backbone="random",
        architecture=ARCHITECTURE,
        quantization="none",
        lora=LoraOptions(rank=4, dropout=0.0),
        seed=1,
        **options,
    )
    model.check(64)
    model.bind(labelling())
    model.assemble()
    return model.train()


ROWS = [np.random.default_rng(n).integers(5, 60, n).astype(np.int32) for n in LENGTHS]


def batch_of(films, layout=packed):
    labels = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    batch = layout([ROWS[film] for film in films])
    return {**batch, "labels": labels[list(films)], "weights": torch.ones(len(films))}


def step(model, batch):
    """Loss and gradients of a step, with dropout from one seed."""
    model.zero_grad()
    torch.manual_seed(5)
    loss = model.model_step(batch).loss_sum
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_the_divergence_is_that_of_torch():
    torch.manual_seed(0)
    logits, others = 3 * torch.randn(5, 7), 3 * torch.randn(5, 7)
    p, q = Bernoulli(logits=logits), Bernoulli(logits=others)
    each = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
    assert_close(divergence(logits, others), each.mean(dim=1))
    known = (torch.rand(5, 7) < 0.5).float()
    known[0] = 0
    assert_close(divergence(logits, others, known), (each * known).sum(1) / known.sum(1).clamp(min=1))


def test_r_drop_is_the_mean_of_two_passes_and_their_divergence():
    model, batch = encoder(r_drop=2.0, dropout=0.3), batch_of((0, 1, 2))
    found, _ = step(model, batch)
    torch.manual_seed(5)
    one, other = model(batch), model(batch)
    assert not torch.equal(one, other)
    losses = (model.film_losses(one, batch) + model.film_losses(other, batch)) / 2 + 2.0 * divergence(one, other)
    assert_close(found, losses.sum().detach())


@pytest.mark.parametrize("make", [encoder, decoder])
@pytest.mark.parametrize("layout", [packed, padded])
def test_the_offset_of_fgm_raises_the_loss_and_films_stay_apart(make, layout):
    options = {"dropout": 0.0} if make is encoder else {}
    plain, attacked = make(**options), make(fgm=0.5, **options)
    batch = batch_of((0, 1, 2), layout)
    before, _ = step(plain, batch)
    together, gradients = step(attacked, batch)
    assert together > before
    parts = [step(attacked, batch_of((film,), layout)) for film in range(3)]
    assert_close(sum(loss for loss, _ in parts), together, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        assert_close(sum(of[name] for _, of in parts), gradient, rtol=1e-3, atol=1e-5, msg=name)
    assert gradients.keys() == step(plain, batch)[1].keys()


def test_an_offset_has_the_length_epsilon_in_each_text():
    batch = batch_of((0, 1, 2))
    gradient = torch.randn(1, sum(LENGTHS) + 4, 8)  # with a tail that belongs to no text
    gradient[:, : LENGTHS[0]] = 0
    offset = adversarial_offset(gradient, batch, 0.7)
    norms = [part.norm() for part in offset[0, : sum(LENGTHS)].split(LENGTHS)]
    assert_close(torch.stack(norms), torch.tensor([0.0, 0.7, 0.7]))
    assert not offset[0, sum(LENGTHS) :].any()


@pytest.mark.parametrize("options", [{"r_drop": 1.0, "dropout": 0.2}, {"fgm": 1.0}, {"r_drop": 1.0, "fgm": 1.0}])
def test_evaluation_has_one_pass(options):
    plain, model, batch = encoder().eval(), encoder(**options).eval(), batch_of((0, 1))
    with torch.no_grad():
        assert_close(model.model_step(batch).loss_sum, plain.model_step(batch).loss_sum)


def test_the_compute_is_counted():
    plain, dropped, attacked = encoder(), encoder(r_drop=1.0), encoder(fgm=1.0)
    costs = [model.training_cost() for model in (plain, dropped, attacked)]
    assert costs[1].per_token == 2 * costs[0].per_token
    assert costs[2].per_token == pytest.approx((2 + 1 / 3) * costs[0].per_token)
    assert costs[2].per_token_squared == pytest.approx((2 + 2 / 3) * costs[0].per_token_squared)


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (encoder, {"r_drop": 1.0, "dropout": 0.0}, "two passes are the same"),
        (decoder, {"r_drop": 1.0}, "two passes are the same"),
        (encoder, {"fgm": 1.0, "activation_checkpointing": True}, "leave one of them out"),
        (encoder, {"fgm": -1.0}, "model.fgm is -1"),
    ],
)
def test_what_cannot_work_is_refused(make, options, reason):
    with pytest.raises(ConfigError, match=reason):
        make(**options)


def test_strategies_and_precisions_that_cannot_work_are_refused():
    model = encoder(fgm=1.0)
    with pytest.raises(ConfigError, match=r"set trainer\.strategy=ddp"):
        model.check_trainer("fsdp")
    model.precision = "16-mixed"
    with pytest.raises(ConfigError, match="bf16-mixed or 32-true"):
        model.check_trainer("ddp")
    quantised = LlamaQLoraClassifier(backbone="random", architecture=ARCHITECTURE, quantization="nf4", fgm=1.0)
    with pytest.raises(ConfigError, match="coarse for the gradient"):
        quantised.check(64)
