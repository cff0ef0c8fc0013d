"""An embedding that keeps its gradient's memory, against torch's own."""

import copy

import pytest
import torch
from specs import data_spec
from torch import nn

from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.layers import cpu_embedding as embedding
from genre_lightning.models.layers.cpu_embedding import Embedding, keep_embedding_gradients

WORDS, WIDTH = 4096, 256


@pytest.fixture
def pair():
    """torch's embedding and ours with the same weights; the pad word is 0."""
    torch.manual_seed(0)
    theirs = nn.Embedding(WORDS, WIDTH, padding_idx=0)
    model = nn.Sequential(copy.deepcopy(theirs))
    keep_embedding_gradients(model)
    assert type(model[0]) is Embedding
    return theirs, model[0]


def backward(layer, *batches):
    """The gradient of one loss over batches of ids, each position of another weight."""
    generator = torch.Generator().manual_seed(len(batches))
    states = [layer(ids) for ids in batches]
    sum((s * torch.randn(s.shape, generator=generator)).sum() for s in states).backward()
    return layer.weight.grad


def ids(seed, count=300, highest=90):
    """Ids with many repeated, and with the pad word."""
    return torch.randint(0, highest, (1, count), generator=torch.Generator().manual_seed(seed))


def test_gradients_are_those_of_torch_bit_for_bit_in_the_same_memory(pair):
    places = set()
    for step in range(3):
        for layer in pair:
            layer.zero_grad()
            backward(layer, ids(step))
        theirs, ours = (layer.weight.grad for layer in pair)
        assert torch.equal(ours, theirs)
        assert not ours[0].any()
        places.add(ours.data_ptr())
        del ours
    assert len(places) == 1


def test_micro_batches_add_up(pair):
    for layer in pair:
        for part in range(3):
            backward(layer, ids(part))
    theirs, ours = (layer.weight.grad for layer in pair)
    assert torch.equal(ours, theirs)


def test_two_looks_in_one_loss_add_up(pair):
    for step in range(2):
        for layer in pair:
            layer.zero_grad()
            backward(layer, ids(step), ids(step + 10))
        theirs, ours = (layer.weight.grad for layer in pair)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # the order of the sum may differ


def test_a_gradient_that_somebody_keeps_stays_unchanged(pair):
    _, ours = pair
    for view in (lambda gradient: gradient, lambda gradient: gradient[50:60], lambda gradient: gradient.numpy()):
        first = view(backward(ours, ids(0)))
        kept = torch.as_tensor(first).clone()
        ours.zero_grad()
        backward(ours, ids(1))
        assert torch.equal(torch.as_tensor(first), kept)
        ours.zero_grad()


def test_what_it_keeps_is_neither_saved_nor_copied(pair):
    theirs, ours = pair
    backward(ours, ids(0))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert {name for name, _ in ours.named_parameters()} == {"weight"}
    other = copy.deepcopy(ours)
    other.zero_grad()
    assert backward(other, ids(0)).data_ptr() != ours.weight.grad.data_ptr()
    assert torch.equal(other.weight.grad, ours.weight.grad)


def test_evaluation_is_that_of_torch(pair):
    theirs, ours = pair
    ours.eval()
    assert torch.equal(ours(ids(0)), theirs(ids(0)))
    assert "EmbeddingBackward" in type(ours(ids(0)).grad_fn).__name__


def test_only_large_embeddings_that_train_are_changed():
    model = nn.ModuleList(
        [
            nn.Embedding(8, 4),
            nn.Embedding(WORDS, WIDTH),
            nn.Embedding(WORDS, WIDTH, max_norm=1.0),
            nn.Embedding(WORDS, WIDTH),
        ]
    )
    model[3].requires_grad_(False)
    keep_embedding_gradients(model)
    assert [type(layer) for layer in model] == [nn.Embedding, Embedding, nn.Embedding, nn.Embedding]


def test_a_classifier_that_trains_its_words_has_it(monkeypatch):
    monkeypatch.setattr(embedding, "_LARGE", 1000)
    model = DistilBertClassifier(backbone="small")
    model.bind(data_spec("abc", vocab_size=500, max_tokens=16))
    model.configure_model()
    assert sum(type(module) is Embedding for module in model.modules()) >= 1
