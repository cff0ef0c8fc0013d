"""The weights that a continued training starts from."""

import pytest
import torch
from specs import data_spec
from torch import nn

from genre_lightning.errors import CheckpointError
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.metadata import CHECKPOINT_KEY
from genre_lightning.models.start import carried_over, rows_by_genre, start_from
from genre_lightning.types import FittedInput

OLD, NEW = ("Comedy", "Drama", "War"), ("Comedy", "Crime", "War")


def encoder(**options):
    return DistilBertClassifier(
        backbone="small", architecture={"layers": 1, "width": 16, "heads": 2, "inner_width": 16}, **options
    )


def decoder(**options):
    shape = {"layers": 1, "width": 16, "heads": 2, "inner_width": 16}
    return LlamaQLoraClassifier(backbone="random", architecture=shape, quantization="none", **options)


def built(model, genres, seed=0, inputs=()):
    spec = data_spec(genres, vocab_size=30, max_tokens=8)
    model.take_seed(seed)
    model.bind(spec if not inputs else type(spec)(**{**vars(spec), "inputs": inputs}))
    model.assemble()
    return model


def saved(model, path):
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in model.trained_names():
                weight.add_(torch.rand_like(weight))
    names = model.trained_names()
    state = {name: value for name, value in model.state_dict().items() if name in names}
    content = {CHECKPOINT_KEY: model.checkpoint_metadata().to_json(), "state_dict": state, "global_step": 1, "epoch": 0}
    from genre_lightning.distributed.checkpoint.files import write_checkpoint

    write_checkpoint(content, path)
    return model


@pytest.mark.parametrize("make", [encoder, decoder])
def test_head_rows_are_carried_over_by_genre(make, tmp_path):
    # the frozen base of a random decoder is named by its seed
    old = saved(built(make(), OLD), tmp_path / "best.ckpt")
    new = built(make(), NEW)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    start_from(new, tmp_path / "best.ckpt")
    rows = rows_by_genre(new.head)
    assert len(rows) == 2
    for name in rows:
        theirs, ours = old.state_dict()[name], new.state_dict()[name]
        torch.testing.assert_close(ours[0], theirs[0])  # Comedy
        torch.testing.assert_close(ours[2], theirs[2])  # War
        torch.testing.assert_close(ours[1], fresh[name][1])  # Crime, which the old run does not know
    for name in new.trained_names() - set(rows):
        torch.testing.assert_close(new.state_dict()[name], old.state_dict()[name])


def test_a_head_with_inputs_carries_both_of_its_layers_over(tmp_path):
    inputs = (FittedInput("budget", "number", mean=(1.0,), std=(2.0,)),)
    old = saved(built(encoder(), OLD, inputs=inputs), tmp_path / "best.ckpt")
    new = built(encoder(), NEW, inputs=inputs)
    start_from(new, tmp_path / "best.ckpt")
    assert isinstance(new.head, FusionHead)
    assert rows_by_genre(new.head) == ["head.text.weight", "head.text.bias", "head.inputs.weight"]
    torch.testing.assert_close(new.head.inputs.weight[0], old.head.inputs.weight[0])
    torch.testing.assert_close(new.head.gate.weight, old.head.gate.weight)


def test_inputs_that_were_fitted_otherwise_are_refused(tmp_path):
    saved(built(encoder(), OLD), tmp_path / "best.ckpt")
    new = built(encoder(), NEW, inputs=(FittedInput("budget", "number", mean=(1.0,), std=(2.0,)),))
    with pytest.raises(CheckpointError, match="budget"):
        start_from(new, tmp_path / "best.ckpt")


def test_a_backbone_of_another_shape_is_refused(tmp_path):
    saved(built(encoder(), OLD), tmp_path / "best.ckpt")
    shape = {"layers": 2, "width": 16, "heads": 2, "inner_width": 16}
    with pytest.raises(CheckpointError, match="another model"):
        start_from(built(DistilBertClassifier(backbone="small", architecture=shape), NEW), tmp_path / "best.ckpt")


def test_rows_keep_the_names_of_their_genres():
    ours = carried_over(torch.tensor([[1.0], [2.0]]), torch.zeros(3, 1), ["a", "b"], ["b", "c", "a"])
    assert ours.flatten().tolist() == [2.0, 0.0, 1.0]
    head = nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 3))
    assert rows_by_genre(head) == ["head.1.weight", "head.1.bias"]
