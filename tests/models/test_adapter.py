"""Adapters of peft's other methods: what trains, what a checkpoint holds, and what may not be named."""

import pytest
import torch
from small_llama import build, packed, padded, texts, trained, with_labels
from test_distilbert import ENCODERS, batch_of, built
from torch.testing import assert_close

from genre_lightning.config.adapters import AdapterOptions, LoraOptions
from genre_lightning.errors import ConfigError
from genre_lightning.models.adapter import merge_adapter, methods

ARGUMENTS = {
    "BEFT": {}, "C3A": {"block_size": 8}, "DEFT": {"r": 4}, "DELORA": {"r": 4}, "FOURIERFT": {"n_frequency": 20},
    "GLORA": {"r": 4}, "GRALORA": {"r": 4, "gralora_k": 2}, "HIRA": {"r": 4}, "HRA": {"r": 4}, "IA3": {},
    "LILY": {"r": 4}, "LOHA": {"r": 4}, "LOKR": {"r": 4},
    "MISS": {"r": 4}, "OFT": {"oft_block_size": 8}, "PEANUT": {"r": 4}, "PSOFT": {"r": 4}, "PVERA": {"r": 4},
    "RANDLORA": {"r": 4}, "ROAD": {"group_size": 8}, "SUPERTUNING": {}, "TINYLORA": {},
    "VBLORA": {"vector_length": 8}, "VERA": {"r": 4}, "WAVEFT": {"n_frequency": 20},
}  # fmt: skip
"""Every method that may be named, at the size of a small encoder."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    ENCODERS["bert"]().save_pretrained(place)
    return place


def adapter(method):
    return AdapterOptions(method, ARGUMENTS[method])


def test_every_method_is_tried():
    assert set(ARGUMENTS) == set(methods())


@pytest.mark.parametrize("method", ARGUMENTS)
def test_a_checkpoint_of_the_trained_part_gives_the_same_logits(method, bert):
    model = built(bert, adapter=adapter(method))
    base = {name for name, p in model.named_parameters() if not p.requires_grad} - model.adapter_state
    generator = torch.Generator().manual_seed(1)
    batch = batch_of([5, 11])
    model.train()(batch).sum().backward()
    assert not [name for name, p in trained(model).items() if p.grad is None]  # DDP waits for each
    for p in trained(model).values():
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    content = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    assert not base & set(content["state_dict"])
    assert set(content["state_dict"]) >= set(trained(model))
    torch.manual_seed(99)
    again = built(bert, adapter=adapter(method))
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"], strict=False)
    assert torch.equal(again.eval()(batch), model.eval()(batch))
    assert not torch.equal(built(bert, adapter=adapter(method)).eval()(batch), model.eval()(batch))


@pytest.mark.parametrize(
    ("method", "quantization"), [("IA3", "nf4"), ("IA3", "none"), ("OFT", "none"), ("ROAD", "nf4")]
)
def test_decoders_take_them_in_every_layout(method, quantization):
    model = build(quantization=quantization, lora=None, adapter=adapter(method))
    assert model.lora is None
    rows = texts()
    for p in trained(model).values():
        p.data += 0.05
    model.model_step(with_labels(packed(rows), rows)).loss_sum.backward()
    assert not [name for name, p in trained(model).items() if p.grad is None]
    assert model.trained_names() >= set(trained(model))
    assert not [name for name in model.trained_names() if "base_layer" in name or "embed_tokens" in name]
    expected = model(packed(rows))
    assert_close(expected, model(padded(rows)), rtol=1e-4, atol=1e-5)
    if quantization == "none":
        model.backbone = merge_adapter(model.backbone, torch.float32)
        assert_close(model(packed(rows)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (AdapterOptions("os.system"), "choose one of"),
        (AdapterOptions("PROMPT_TUNING"), "choose one of"),
        (AdapterOptions("XLORA", {"adapters": {"a": "/etc"}}), "loads adapters from files"),
        (AdapterOptions("LORA"), r"is model\.lora"),
        (AdapterOptions("IA3", {"base_model_name_or_path": "stranger/model"}), "may be set"),
        (AdapterOptions("IA3", {"modules_to_save": ["embeddings"]}), "may be set"),
        (AdapterOptions("IA3", {"target_modules": "(a+)+b"}), "plain names"),
        (AdapterOptions("VERA", {"r": {"class_path": "os.system"}}), "plain names"),
        (AdapterOptions("IA3", {"target_modules": ["nosuch"]}), "does not fit"),
        (AdapterOptions("VERA", {"r": 0}), "does not fit"),
        (AdapterOptions("VERA", {"bias": 1}), "give a name, such as VERA's own 'none'"),
        (AdapterOptions("OFT", {"num_cayley_neumann_terms": 10**9}), "numbers up to 100,000"),
        (AdapterOptions("OFT", {"r": float("inf")}), "numbers up to 100,000"),
        (AdapterOptions("LOHA", {"module_dropout": "x"}), "give a number"),
        (AdapterOptions("LOKR", {"rank_pattern": 1}), "may be set"),
    ],
    ids=str,
)
def test_what_may_not_be_named_is_refused(options, message, bert):
    with pytest.raises(ConfigError, match=message):
        built(bert, adapter=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": adapter("HRA"), "lora": None}, "no layers over weights in nf4"),
        ({"adapter": adapter("IA3"), "lora": LoraOptions()}, "both set"),
        ({"adapter": adapter("IA3"), "lora": None, "unfreeze": 1}, r"model\.unfreeze is for"),
    ],
)
def test_what_cannot_work_together_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_shards_are_refused(bert):
    with pytest.raises(ConfigError, match="cannot be sharded"):
        built(bert, adapter=adapter("IA3")).check_trainer("fsdp")
