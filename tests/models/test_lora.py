"""Where adapters start: the base's own outputs, exact decompositions, and one adapter again for export."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from small_llama import build, packed, padded, stir, texts, trained, with_labels
from test_distilbert import ENCODERS, batch_of, built
from torch.testing import assert_close
from transformers import DistilBertConfig, DistilBertModel

from genre_lightning.errors import ConfigError
from genre_lightning.models.activations import _components, start_from_activations
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.layers import packing
from genre_lightning.models.lora import START, LoraOptions, adapted_layers, add_lora, fold_start, merge_adapters
from genre_lightning.models.optimizer import parameter_groups, parts_of_backbone
from genre_lightning.models.quantization import memory_of

SHAPE = {"rank": 4, "dropout": 0.0}


def layer_of(model, name="q_proj"):
    return model.backbone.get_submodule(f"base_model.model.layers.1.self_attn.{name}")


def stirred(model):
    """Moves the trained adapters away from their start."""
    generator = torch.Generator().manual_seed(1)
    for name, p in trained(model).items():
        if "lora_" in name:
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return model


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_that_start_from_the_weights_change_no_logit_at_first(init, quantization):
    plain = build(quantization=quantization, lora=LoraOptions(**SHAPE))
    model = build(quantization=quantization, lora=LoraOptions(**SHAPE, init=init))
    assert_close(model(packed(texts())), plain(packed(texts())), rtol=1e-4, atol=1e-5)
    assert layer_of(model).lora_B["default"].weight.abs().max() > 1e-3
    assert not [name for name, p in model.named_parameters() if START in name.split(".") and p.requires_grad]


def test_pissa_takes_the_largest_singular_values():
    layer = layer_of(build(quantization="none", lora=LoraOptions(**SHAPE, init="pissa", rslora=True)))
    left, values, right = torch.linalg.svd(layer.base_layer.weight.data)
    largest = left[:, :4] * values[:4] @ right[:4]
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert_close(update, largest, rtol=1e-4, atol=1e-5)


def test_olora_starts_from_orthonormal_columns():
    layer = layer_of(build(quantization="none", lora=LoraOptions(**SHAPE, init="olora")))
    q = layer.lora_B["default"].weight
    assert_close(q.T @ q, torch.eye(4), rtol=0, atol=1e-5)
    # QR of the first columns alone gives the same
    low = layer.lora_A["default"].weight[:, :4]
    assert_close(q @ low, layer.base_layer.weight[:, :4], rtol=1e-4, atol=1e-5)


class Films:
    """What a trainer has that adapters start from, with the texts of these tests as films."""

    def __init__(self, batches):
        self.datamodule = SimpleNamespace(first_batches=lambda films: iter(batches))
        self.strategy = SimpleNamespace(batch_to_device=lambda batch, device: batch, broadcast=lambda found: found)
        self.precision_plugin = SimpleNamespace(forward_context=nullcontext)


def test_eva_starts_from_the_principal_components_of_the_inputs():
    plain = build(lora=LoraOptions(**SHAPE))
    inputs = []
    layer_of(plain).register_forward_pre_hook(lambda layer, given: inputs.append(given[0][0]))
    halves = texts()[:3], texts()[3:]
    with torch.no_grad():
        logits = [plain(packed(half)) for half in halves]
    expected = torch.from_numpy(PCA(n_components=4).fit(torch.cat(inputs).numpy()).components_)
    starts = []
    for lay_out in (packed, padded):
        model = build(lora=LoraOptions(**SHAPE, init="eva")).train()
        start_from_activations(model, Films([lay_out(half) for half in halves]))
        assert model.training
        with torch.no_grad():
            assert_close(model.eval()(packed(halves[0])), logits[0])  # B is 0
        starts.append(layer_of(model).lora_A["default"].weight.detach())
        assert_close((starts[-1] * expected).sum(1).abs(), torch.ones(4), rtol=0, atol=1e-3)  # but for the sign
    assert_close(starts[0] @ starts[0].T, torch.eye(4), rtol=0, atol=1e-5)


def test_eva_measures_layers_in_turn_if_memory_is_short(monkeypatch):
    model = build(lora=LoraOptions(**SHAPE, init="eva"))
    start_from_activations(model, Films([packed(texts())]))
    together = {name: p.clone() for name, p in trained(model).items()}
    monkeypatch.setattr("genre_lightning.models.activations._BYTES", 1)
    start_from_activations(model, Films([packed(texts())]))
    for name, p in trained(model).items():
        assert_close(p, together[name])


def test_eva_needs_films():
    with pytest.raises(ConfigError, match=r"model\.lora\.init is eva.*MovieDataModule"):
        start_from_activations(build(lora=LoraOptions(init="eva")), SimpleNamespace(datamodule=None))


def test_loftq_brings_quantised_weights_nearer_to_the_real_ones():
    real = layer_of(build(quantization="none")).base_layer.weight
    layer = layer_of(build(lora=LoraOptions(rank=16, dropout=0.0, init="loftq")))
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(layer.base_layer.weight.data, layer.base_layer.weight.quant_state)
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    error = real - weight
    left, values, right = torch.linalg.svd(error)
    assert_close(update, left[:, :16] * values[:16] @ right[:16], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("kind", [{"init": "pissa"}, {"init": "olora", "rslora": True}], ids=str)
def test_merged_and_folded_adapters_compute_the_same(quantization, kind):
    def model():
        return stirred(build(quantization=quantization, lora=LoraOptions(**SHAPE, **kind)))

    expected = model()(packed(texts()))
    assert not torch.allclose(expected, build(quantization=quantization)(packed(texts())), atol=1e-3)
    folded, merged = model(), model()
    fold_start(folded.backbone)
    assert list(folded.backbone.peft_config) == ["default"]
    config = folded.backbone.peft_config["default"]
    assert (config.r, config.lora_alpha / config.r) == (8, layer_of(folded).scaling["default"])
    assert_close(folded(packed(texts())), expected, rtol=1e-4, atol=1e-5)
    merged.backbone = merge_adapters(merged.backbone, torch.float32)
    assert_close(merged(packed(texts())), expected, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_brings_its_start_along():
    """A machine that decomposes the weights to other bits, or other signs, computes the same from it."""
    model = stirred(build(lora=LoraOptions(**SHAPE, init="pissa")))
    content = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    again = build(lora=LoraOptions(**SHAPE, init="pissa"))
    for name, p in again.named_parameters():
        if "lora_" in name:
            p.data.neg_()
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"], strict=False)
    assert torch.equal(again(packed(texts())), model(packed(texts())))


def test_all_linear_layers_get_an_adapter():
    model = build(lora=LoraOptions(**SHAPE, targets="all-linear"))
    assert len([name for name in trained(model) if "lora_A" in name]) == 2 * 7
    assert memory_of(model)["trained"] > memory_of(build())["trained"]
    stir(model)
    assert_close(model(packed(texts())), model(padded(texts())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_encoders_take_every_target_and_start(family, tmp_path):
    torch.manual_seed(1)
    ENCODERS[family]().save_pretrained(tmp_path)
    plain = built(tmp_path, lora=LoraOptions(**SHAPE)).eval()
    model = built(tmp_path, lora=LoraOptions(**SHAPE, targets="all-linear", init="pissa")).eval()
    model.head.load_state_dict(plain.head.state_dict())
    batch = batch_of([5, 11])
    assert_close(model(batch), plain(batch), rtol=1e-4, atol=1e-5)
    # DDP waits for each
    model(batch).sum().backward()
    assert not [name for name, p in trained(model).items() if p.grad is None]


def test_lora_plus_gives_b_a_rate_of_its_own():
    model = build(lora=LoraOptions(**SHAPE, lr_ratio_b=16.0))
    groups = parameter_groups(
        model.backbone.named_parameters(),
        model.head.named_parameters(),
        lr=1e-4,
        head_lr=1e-3,
        weight_decay=0.01,
        part_of=parts_of_backbone(model.backbone, 1e-4, ratio_b=16.0),
    )
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates.keys() == {id(p) for p in trained(model).values()}
    for name, p in model.backbone.named_parameters():
        if p.requires_grad:
            assert rates[id(p)] == pytest.approx(1.6e-3 if "lora_B" in name else 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": LoraOptions(init="loftq"), "quantization": "none"}, "not quantised"),
        ({"lora": LoraOptions(init="pissa", dora=True)}, "dora"),
        ({"lora": LoraOptions(lr_ratio_b=0.0)}, "lr_ratio_b"),
    ],
)
def test_starts_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_a_step_of_adapters_that_start_from_the_weights_moves_them_alone():
    model = build(lora=LoraOptions(**SHAPE, init="pissa"))
    rows = texts()
    model.model_step(with_labels(packed(rows), rows)).loss_sum.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(trained(model))


def test_eva_reads_no_tokens_that_a_packed_row_is_filled_up_with(monkeypatch):
    rng = np.random.default_rng(0)
    batches = [packed([rng.integers(5, 500, n).astype(np.int32) for n in (20, 31, 45)]) for _ in range(3)]
    config = DistilBertConfig(vocab_size=500, dim=64, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=64)

    def starts(multiple):
        monkeypatch.setitem(packing._TOKENS_MULTIPLES, "cpu", multiple)
        torch.manual_seed(0)
        backbone = DistilBertModel(config)
        backbone.set_attn_implementation(packing.FULL_ATTENTION)
        adapted = add_lora(backbone, LoraOptions(rank=8, dropout=0.0), "distilbert").eval()
        with torch.no_grad():
            layers = dict(adapted_layers(adapted))
            return _components(layers, batches, lambda batch: adapted(**packing.encoder_inputs(batch, config)))

    packing.register_attention()
    exact, filled_up = starts(1), starts(128)
    assert exact
    for name, rows in exact.items():
        assert_close((rows * filled_up[name]).sum(1).abs(), torch.ones(8), rtol=0, atol=1e-3)  # but for the sign


def test_eva_leaves_the_adapters_of_a_run_that_is_continued(monkeypatch):
    model = build(lora=LoraOptions(**SHAPE, init="eva"))
    called = []
    monkeypatch.setattr("genre_lightning.models.base.start_from", lambda *_: called.append("weights"))
    monkeypatch.setattr("genre_lightning.models.base.start_from_activations", lambda *_: called.append("eva"))
    trainer = SimpleNamespace(optimizers=[], ckpt_path=None)
    model.trainer = trainer
    GenreClassifier.on_fit_start(model)
    model.starts_from = "best.ckpt"
    GenreClassifier.on_predict_start(model)  # the parent's probabilities, for its distillation
    GenreClassifier.on_fit_start(model)
    assert called == ["eva", "weights"]
