"""Norms and gates in one kernel each: logits and gradients of transformers' own, by the same graphs for all lengths."""

import shutil

import pytest
import torch
from small_llama import build, packed, stir, texts, trained, with_labels
from torch._dynamo.utils import counters
from torch.testing import assert_close

from genre_lightning.models.layers.elementwise import fuse_elementwise

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU by g++"),
    # torch hides it by a filter of its own, which warnings that are errors come before
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    # torch reads its own attribute of an older name while it traces
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
LAYERS = 2


def results(model):
    found = []
    for lengths in ((5, 9, 21), (8, 20, 3, 7), (30, 21)):
        rows = texts(lengths)
        output = model.model_step(with_labels(packed(rows), rows))
        found.append((output.logits, *torch.autograd.grad(output.loss_sum, list(trained(model).values()))))
    return found


@pytest.mark.slow
def test_fused_norms_and_gates_compute_what_transformers_does():
    model = stir(build(quantization="nf4")).train()
    names = list(model.state_dict())
    plain = results(model)
    torch._dynamo.reset()
    counters.clear()
    assert fuse_elementwise(model.backbone) == 3 * LAYERS + 1
    fused = results(model)
    assert_close(fused, plain, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
    # a gate, a norm, and the first norm again, whose states need no gradient
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("family", "norms"), [("llama", 2 * LAYERS + 1), ("mistral", 2 * LAYERS + 1), ("qwen3", 4 * LAYERS + 1)]
)
def test_families_with_norms_that_train_beside_checkpointing(family, norms, tmp_path):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        family, vocab_size=120, hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = stir(build(backbone=str(tmp_path), quantization="none", unfreeze=1, activation_checkpointing=True)).train()
    plain = results(model)
    torch._dynamo.reset()
    assert fuse_elementwise(model.backbone) == norms + LAYERS
    assert_close(results(model), plain, rtol=1e-4, atol=1e-5)
