"""Hidden tokens depend on seed, step, film and place alone; packed and padded texts have one loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from specs import data_spec

from genre_lightning.config.architectures import Architecture
from genre_lightning.config.encoder import EncoderOptions
from genre_lightning.data.collate import Padding, TokenisedFilms
from genre_lightning.data.steps import MicroBatch
from genre_lightning.data.tokens import TokenLists
from genre_lightning.models.masked_language import MaskedLanguageModel
from genre_lightning.models.token_masks import Vocabulary, mask_tokens

VOCABULARY = Vocabulary(1000, 4, torch.tensor([0, 2, 3, 4]))


def masked(films, seed=0, step=0, fraction=0.15, tokens=200):
    """Mask the same tokens of each film."""
    ids = torch.arange(5, 5 + tokens).repeat(len(films))
    places = torch.arange(tokens).repeat(len(films))
    of_film = torch.tensor(films).repeat_interleave(tokens)
    hidden, chosen = mask_tokens(ids, of_film, places, VOCABULARY, fraction=fraction, seed=seed, step=step)
    return hidden.view(len(films), tokens), chosen.view(len(films), tokens)


def test_a_film_is_masked_alike_in_any_batch():
    (together, chosen), (alone, chosen_alone) = masked([7, 2, 9]), masked([2])
    assert torch.equal(together[1], alone[0])
    assert torch.equal(chosen[1], chosen_alone[0])


def test_films_steps_and_seeds_are_masked_differently():
    masks = [masked([film], seed, step)[1] for film, seed, step in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    overlaps = [float((a & b).sum() / a.sum()) for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) < 0.5


def test_the_fractions_of_bert():
    hidden, chosen = masked(list(range(200)), tokens=500)
    ids = torch.arange(5, 505).expand_as(hidden)
    n = int(chosen.sum())
    assert n / chosen.numel() == pytest.approx(0.15, abs=0.005)
    assert int((hidden[chosen] == VOCABULARY.mask).sum()) / n == pytest.approx(0.8, abs=0.01)
    assert int((hidden[chosen] == ids[chosen]).sum()) / n == pytest.approx(0.1, abs=0.01)
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert int(hidden.max()) < VOCABULARY.size


def test_special_tokens_are_never_predicted():
    ids = torch.tensor([2, 10, 3, 0])
    _, chosen = mask_tokens(ids, torch.zeros(4, dtype=torch.long), torch.arange(4), VOCABULARY,
                            fraction=1.0, seed=0, step=0)  # fmt: skip
    assert chosen.tolist() == [False, True, False, False]


def test_packed_and_padded_texts_have_one_loss():
    options = EncoderOptions(
        backbone="small", architecture=Architecture(layers=2, width=32, heads=2, inner_width=64), dropout=0.0, seed=1
    )
    model = MaskedLanguageModel(options, mask_fraction=0.4)
    tokenizer = SimpleNamespace(mask_token_id=4, all_special_ids=[0, 2, 3, 4], unk_token_id=1)
    model.bind(data_spec(["a", "b"], 60, 32, tokenizer=tokenizer))
    model.assemble()
    model._trainer = SimpleNamespace(global_step=3)
    rng = np.random.default_rng(0)
    store = TokenLists([[2, *rng.integers(5, 60, length).tolist(), 3] for length in (4, 17, 9)])
    found = []
    for layout in ("padded", "packed"):
        films = TokenisedFilms(store, np.arange(3), None, Padding(0), layout)
        loss = model.model_step(films[MicroBatch(np.array([2, 0, 1]), 3)]).loss_sum
        parts = [model.model_step(films[MicroBatch(np.array([film]), 3)]).loss_sum for film in range(3)]
        torch.testing.assert_close(sum(parts), loss)
        model.zero_grad()
        loss.backward()
        found.append((loss.detach(), [w.grad.clone() for w in model.backbone.parameters()]))
    torch.testing.assert_close(found[0], found[1])
    assert float(found[0][0]) / 3 == pytest.approx(np.log(60), rel=0.2)
