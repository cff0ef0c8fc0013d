"""A model that is built under FSDP: the weights of the plain build, and no more memory than shards and a block."""

import re
from pathlib import Path

import pytest
import torch
from ranks import run_on_ranks
from small_llama import build, packed, stir, texts
from specs import data_spec
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import LlamaModel

from genre_lightning.distributed.sharded import shard, whole
from genre_lightning.models.decoder import LlamaArchitecture
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.lora import LoraOptions


def sharded(model, dtype=torch.float32):
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    shard(model.backbone, model.head, mesh, compute_dtype=dtype, materialise=model.materialise)
    return model


def same_weights(rank, quantization, precision, options):
    plain = build(quantization=quantization, precision=precision, **options)
    model = build(quantization=quantization, precision=precision, sharded=True, **options)
    placeholders = [p for p in model.backbone.parameters() if p.numel() > 1 and p.untyped_storage().nbytes() <= 4]
    assert len(placeholders) == (0 if model.lora.dora else 2 * 9 + 2)
    sharded(model)
    weights = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert parameter.dtype == weights[name].dtype, name
        assert torch.equal(whole(parameter), weights[name].data), name
    for name, module in plain.named_modules():
        if quantization == "nf4" and hasattr(module, "quant_state"):
            ours = model.get_submodule(name).quant_state
            assert torch.equal(ours.absmax, module.quant_state.absmax), name
            assert torch.equal(ours.state2.absmax, module.quant_state.state2.absmax), name
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(packed(texts())), plain.eval()(packed(texts())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("quantization", "options"),
    [("nf4", {}), ("none", {}), ("none", {"lora": LoraOptions(rank=4, dropout=0.0, dora=True)})],
)
def test_weights_are_those_of_the_plain_build_to_the_bit(quantization, options):
    run_on_ranks(same_weights, 2, quantization, "32-true", options)


def test_a_stored_model_is_read_into_its_shards(tmp_path):
    torch.manual_seed(0)
    LlamaModel(build(quantization="none").backbone_config).save_pretrained(tmp_path)
    run_on_ranks(same_weights, 3, "nf4", "32-true", {"backbone": str(tmp_path)})


def megabytes(field):
    return int(re.search(field + r":\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1000


def peak_of_the_build(rank):
    width, layers = 512, 24
    shape = LlamaArchitecture(layers=layers, width=width, heads=8, inner_width=5 * width // 2, vocab_size=500)
    block = 4 * (4 * width**2 + 3 * width * shape.inner_width) / 1e6
    model = LlamaQLoraClassifier(backbone="random", architecture=shape, quantization="none", lora=LoraOptions(rank=1))
    model.bind(data_spec("ab", 500, 64))
    sharded(build(sharded=True))  # libraries and connections are loaded
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    model.assemble(sharded=True)
    assert megabytes("VmHWM") - before < block, "placeholders take no memory"
    sharded(model)
    peak = megabytes("VmHWM") - before
    print(f"rank {rank}: peak {peak:.0f} MB; all weights {layers * block:.0f} MB, a block {block:.0f} MB")
    assert peak < layers * block / 2 + 4 * block


def test_a_ranks_peak_is_its_shards_and_little_more():
    run_on_ranks(peak_of_the_build, 2)


def test_what_is_filled_stays():
    model = stir(build(sharded=True))
    block = model.backbone.base_model.model.layers[1]
    model.materialise(block)
    weights = dict(block.named_parameters())
    model.materialise(model.backbone)
    assert all(parameter is weights[name] for name, parameter in block.named_parameters())
    assert all(p.is_contiguous() for p in model.parameters())
