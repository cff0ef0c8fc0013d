"""Integrated gradients against closed forms and a sum written out, on encoders and Llamas of a few layers."""

from types import SimpleNamespace

import numpy as np
import pytest
import small_llama
import torch
from specs import data_spec
from torch import nn

from genre_lightning.data.tokenizers import train_wordpiece
from genre_lightning.data.tokens import encode_with_places
from genre_lightning.explain.gradients import FIRST_STEPS, LEAST_CHANGE, MOST_STEPS, GradientAttributor
from genre_lightning.models.distilbert import Architecture, DistilBertClassifier
from genre_lightning.models.layers.packing import last_tokens
from genre_lightning.models.layers.pooling import pool
from genre_lightning.models.lora import LoraOptions

TEXT = "A boy finds a map, and pirates are after him."
GENRES = tuple("abcd")


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    place = tmp_path_factory.mktemp("cache")
    return train_wordpiece([TEXT, "a ship at sea"], vocab_size=70, max_tokens=64, cache_dir=place, content="gradients")


class Linear(nn.Module):
    """Logits that are a fixed weight times the mean embedding: gradients are the same everywhere."""

    def __init__(self, tokens):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Module()
        self.backbone.words = nn.Embedding(tokens, 8)
        self.backbone.get_input_embeddings = lambda: self.backbone.words
        self.weight = nn.Parameter(torch.randn(8, len(GENRES)))

    def forward(self, batch):
        return self.backbone.words(batch["input_ids"]).mean(dim=1) @ self.weight + 1


def encoder(tokenizer):
    model = DistilBertClassifier(backbone="small", architecture=Architecture(2, 32, 2, 64), seed=1)
    model.bind(data_spec(GENRES, vocab_size=len(tokenizer), max_tokens=64, pad_token_id=tokenizer.pad_token_id))
    model.configure_model()
    with torch.no_grad():  # new weights say nearly the same of all texts
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def llama(tokenizer, quantization):
    model = small_llama.LlamaQLoraClassifier(
        backbone="random",
        architecture=small_llama.ARCHITECTURE,
        lora=LoraOptions(rank=4, dropout=0.0),
        quantization=quantization,
    )
    model.bind(small_llama.labelling(vocab_size=len(tokenizer)))
    model.configure_model()
    return small_llama.stir(model)


def attributor(model, tokenizer, steps=None, micro_batch_tokens=256, max_tokens=64):
    scorer = SimpleNamespace(
        model=model.eval(), tokenizer=tokenizer, max_tokens=max_tokens, device=torch.device("cpu"),
        micro_batch_tokens=micro_batch_tokens,
    )  # fmt: skip
    return GradientAttributor(scorer, steps)


@pytest.fixture(scope="module", params=["encoder", "llama", "qlora"])
def trained(request, wordpiece):
    if request.param == "encoder":
        return encoder(wordpiece), wordpiece
    tokenizer = small_llama.tokenizer()
    return llama(tokenizer, "nf4" if request.param == "qlora" else "none"), tokenizer


def logits_of_embeddings(model, states):
    """The model without its embedding layer, written with transformers' own argument for that."""
    mask = torch.ones(states.shape[:2], dtype=torch.long)
    if isinstance(model, DistilBertClassifier):
        return model.head(pool(model.backbone(inputs_embeds=states).last_hidden_state, mask, model.options.pooling))
    out = model.backbone(inputs_embeds=states, use_cache=False).last_hidden_state
    return model.head(last_tokens(out, {"attention_mask": mask}))


def test_a_linear_models_attributions_are_its_weights_times_the_difference(wordpiece):
    model = Linear(len(wordpiece))
    got = attributor(model, wordpiece, steps=2).attribute(TEXT, [2, 0])
    tokens = encode_with_places(TEXT, wordpiece, 64)
    own = ~tokens.special
    table, weight = model.backbone.words.weight.detach().double(), model.weight.detach().double()[:, [2, 0]]
    difference = table[tokens.ids[own]] - table[wordpiece.pad_token_id]
    expected = (difference @ weight / len(own)).numpy()
    np.testing.assert_allclose(
        got.values, got.words.sum_by_word(tokens.starts[own], tokens.ends[own], expected), atol=1e-6
    )
    assert got.errors.max() < 1e-6
    assert got.steps.tolist() == [2, 2]


def test_a_sum_written_out_gives_the_same(trained):
    model, tokenizer = trained
    steps, genre = 24, 1
    got = attributor(model, tokenizer, steps=steps).attribute(TEXT, [genre])
    tokens = encode_with_places(TEXT, tokenizer, 64)
    ids, special = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.special)
    kept = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id
    table = model.backbone.get_input_embeddings().weight.detach()
    end, start = table[ids], table[torch.where(special, ids, kept)]
    total = torch.zeros_like(end)
    for step in range(steps):
        point = (start + (step + 0.5) / steps * (end - start))[None].requires_grad_()
        logits_of_embeddings(model, point)[0, genre].backward()
        total += point.grad[0] / steps
    expected = (total * (end - start)).sum(dim=1, keepdim=True).double().numpy()
    own = ~tokens.special
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(expected[~own], 0, atol=1e-7)
    np.testing.assert_allclose(
        got.values, got.words.sum_by_word(tokens.starts[own], tokens.ends[own], expected[own]), atol=2e-5
    )


def test_words_add_up_to_the_change_of_the_logit(trained):
    model, tokenizer = trained
    columns = [3, 0]
    got = attributor(model, tokenizer).attribute(TEXT, columns)
    tokens = encode_with_places(TEXT, tokenizer, 64)
    with torch.no_grad():
        batch = small_llama.padded([tokens.ids.astype(np.int32)])
        logits = model(batch)[0, columns].double().numpy()
    np.testing.assert_allclose(got.log_odds, logits, atol=1e-5)
    change = got.log_odds - got.baseline
    missed = np.abs(got.values.sum(axis=0) - change)
    np.testing.assert_allclose(got.errors, missed)
    assert (missed <= 0.01 * np.maximum(np.abs(change), LEAST_CHANGE)).all()
    assert all(FIRST_STEPS <= steps <= MOST_STEPS for steps in got.steps)
    assert np.abs(change).max() > 0.1 * LEAST_CHANGE


def test_steps_are_doubled_until_the_words_add_up(wordpiece, monkeypatch):
    monkeypatch.setattr("genre_lightning.explain.gradients.FIRST_STEPS", 2)
    model = encoder(wordpiece)
    two = attributor(model, wordpiece, steps=2).attribute(TEXT, [0, 1, 2, 3])
    doubled = attributor(model, wordpiece).attribute(TEXT, [0, 1, 2, 3])
    bound = 0.01 * np.maximum(np.abs(two.log_odds - two.baseline), LEAST_CHANGE)
    assert (two.errors > bound).any()
    assert (doubled.errors <= bound).all()
    assert ((doubled.steps > 2) == (two.errors > bound)).all()
    monkeypatch.setattr("genre_lightning.explain.gradients.MOST_STEPS", 2)
    assert attributor(model, wordpiece).attribute(TEXT, [0, 1, 2, 3]).steps.tolist() == [2] * 4


def test_points_of_the_path_are_computed_within_the_budget(wordpiece):
    model, rows = encoder(wordpiece), []
    model.register_forward_pre_hook(lambda module, arguments: rows.append(arguments[0]["input_ids"].shape))
    whole = attributor(model, wordpiece, steps=40, micro_batch_tokens=10**6).attribute(TEXT, [0])
    assert max(shape[0] for shape in rows) == 40
    rows.clear()
    length = len(encode_with_places(TEXT, wordpiece, 64).ids)
    parts = attributor(model, wordpiece, steps=40, micro_batch_tokens=7 * length + 1).attribute(TEXT, [0])
    assert max(shape[0] for shape in rows) == 7
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)
    # a text longer than the budget goes one point at a time
    rows.clear()
    attributor(model, wordpiece, steps=4, micro_batch_tokens=1).attribute(TEXT, [0])
    assert {shape[0] for shape in rows if shape[0] != 2} == {1}


def test_what_is_cut_says_nothing(wordpiece):
    model = encoder(wordpiece)
    got = attributor(model, wordpiece, max_tokens=8).attribute(TEXT, [0])
    cut = got.words.ends > got.read
    assert cut.any()
    assert not got.values[cut & (got.words.starts >= got.read)].any()
    assert np.abs(got.values[~cut]).max() > 0
