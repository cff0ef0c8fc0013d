"""Top blocks and norms that train in full above adapters: which they are, their rates, and their checkpoints."""

import pytest
import torch
from small_llama import build, packed, texts, trained, with_labels
from specs import data_spec
from torch.testing import assert_close
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from genre_lightning.errors import ConfigError
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.lora import LoraOptions, merge_adapters
from genre_lightning.models.optimizer import parameter_groups, parts_of_backbone

LORA = LoraOptions(rank=2, dropout=0.0, targets="all-linear")
ENCODERS = {
    "bert": lambda: BertModel(BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=12, num_attention_heads=2,
                                         intermediate_size=32, max_position_embeddings=40)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=60, dim=16, n_layers=12, n_heads=2,
                                                           hidden_dim=32, max_position_embeddings=40)),
}  # fmt: skip


@pytest.fixture(params=ENCODERS)
def encoder(request, tmp_path):
    torch.manual_seed(1)
    ENCODERS[request.param]().save_pretrained(tmp_path)

    def made(**options):
        model = DistilBertClassifier(backbone=str(tmp_path), dropout=0.0, **{"lora": LORA, **options})
        model.check(max_tokens=24)
        model.bind(data_spec(("Action", "Drama"), vocab_size=60, max_tokens=24))
        model.configure_model()
        return model

    return made


def test_top_blocks_and_norms_train_and_the_rest_has_adapters(encoder):
    names = {name for name in trained(encoder(unfreeze=2)) if name.startswith("backbone.")}
    top = {name for name in names if ".layer.10." in name or ".layer.11." in name}
    assert top
    assert not [name for name in top if "lora_" in name]
    assert any(name.endswith("weight") and "norm" not in name.lower() for name in top)
    below = names - top
    assert all("lora_" in name or "norm" in name.lower() for name in below)
    # block 1 is not one of the top blocks because its number begins theirs
    assert {name.split(".layer.")[1].split(".")[0] for name in below if "lora_" in name} == set(map(str, range(10)))


def test_norms_alone(encoder):
    names = {name for name in trained(encoder(unfreeze=0)) if name.startswith("backbone.")}
    assert all("lora_" in name or "norm" in name.lower() for name in names)
    assert len([name for name in names if "lora_" not in name]) == 2 * (1 + 2 * 12)


def test_each_part_has_its_rate(encoder):
    model = encoder(unfreeze=2)
    part_of = parts_of_backbone(model.backbone, 1e-3, unfrozen_lr=1e-5)
    parts = list(model.backbone.named_parameters())
    groups = parameter_groups(parts, [], lr=1e-3, head_lr=1e-2, weight_decay=0.01, part_of=part_of)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, p in parts:
        assert rates.get(id(p)) == ((1e-3 if "lora_" in name else 1e-5) if p.requires_grad else None), name
    assert model.unfrozen_learning_rate() == 2e-4
    assert encoder(unfreeze=2, unfreeze_lr=3e-5).unfrozen_learning_rate() == 3e-5


def test_a_checkpoint_holds_what_was_unfrozen(encoder):
    model = encoder(unfreeze=1)
    for p in trained(model).values():
        p.data += 0.02
    content = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    assert set(content["state_dict"]) == set(trained(model))
    again = encoder(unfreeze=1)
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"], strict=False)
    batch = {"input_ids": torch.arange(3, 12)[None], "attention_mask": torch.ones(1, 9, dtype=torch.long)}
    expected = model.eval()(batch)
    assert torch.equal(again.eval()(batch), expected)
    model.backbone = merge_adapters(model.backbone, torch.float32)
    assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_decoder_trains_its_top_block_in_float32(precision):
    model = build(quantization="none", precision=precision, lora=LORA, unfreeze=1)
    top = {name: p for name, p in trained(model).items() if ".layers.1." in name}
    assert len(top) == 7 + 2
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    rows = texts()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        model.model_step(with_labels(packed(rows), rows)).loss_sum.backward()
    assert not [name for name, p in trained(model).items() if p.grad is None]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unfreeze": 1}, "too coarse"), ({"unfreeze": 2, "quantization": "none"}, "has 2 blocks")],
)
def test_what_cannot_be_unfrozen_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_unfreezing_what_trains_anyway_is_refused(encoder):
    with pytest.raises(ConfigError, match="without adapters"):
        encoder(lora=None, unfreeze=1)
