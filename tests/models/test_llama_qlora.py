"""QLoRA: what is quantised, frozen and trained; equal logits in every layout; learning; errors before any work."""

import json
from types import SimpleNamespace

import pytest
import torch
from small_llama import ARCHITECTURE, GENRES, build, labelling, packed, padded, stir, texts, trained, with_labels
from torch.testing import assert_close
from transformers import LlamaModel

from genre_lightning.data.tokenizers import load_tokenizer
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.models.decoder import LlamaArchitecture
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.lora import LoraOptions, merge_adapters, trained_size
from genre_lightning.models.metadata import CHECKPOINT_KEY
from genre_lightning.models.quantization import memory_of

LINEAR = {"nf4": "Params4bit", "int8": "Int8Params", "none": "Parameter"}


@pytest.fixture(scope="module")
def checkpoint_dir(tmp_path_factory):
    """A plain Llama on disk: in half precision, as they come."""
    folder = tmp_path_factory.mktemp("llama")
    config = build(quantization="none").backbone_config
    torch.manual_seed(0)
    LlamaModel(config).half().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
@pytest.mark.parametrize("loaded", [False, True])
def test_every_parameter_is_quantised_frozen_or_trained_as_it_should_be(quantization, loaded, checkpoint_dir):
    model = build(quantization=quantization, **({"backbone": str(checkpoint_dir)} if loaded else {}))
    names = dict(model.named_parameters())
    assert len(names) == 1 + 2 * (7 + 2 + 8) + 1 + 2
    for name, parameter in names.items():
        kind = type(parameter).__name__
        trains = "lora_" in name or name.startswith("head.")
        assert parameter.requires_grad == trains, name
        if trains or "norm" in name:
            assert (kind, parameter.dtype) == ("Parameter", torch.float32), name
        elif "embed_tokens" in name:
            assert kind == "Parameter", name
        else:
            assert kind == LINEAR[quantization], name
    if quantization == "nf4":
        states = [p.quant_state for p in names.values() if hasattr(p, "quant_state")]
        assert len(states) == 14
        assert all(s.quant_type == "nf4" and s.nested and s.blocksize == 64 for s in states)


@pytest.mark.parametrize(("storage", "precision"), [("bfloat16", "bf16-mixed"), ("float32", "32-true")])
def test_storage_dtype_changes_no_logit(storage, precision):
    plain, stored = build(precision=precision), build(precision=precision, quant_storage=storage)
    weights = [p for p in stored.parameters() if type(p).__name__ == "Params4bit"]
    assert {p.dtype for p in weights} == {getattr(torch, storage)}
    assert_close(stored(packed(texts())), plain(packed(texts())), rtol=0, atol=0)


def test_trained_state_has_the_size_that_the_options_imply():
    model = build(lora=LoraOptions(rank=4, targets=["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]))
    width, inner = ARCHITECTURE.width, ARCHITECTURE.inner_width
    layer = [(width, width), (width // 2, width), (width // 2, width), (width, width), (width, inner)]
    expected = trained_size(layer * ARCHITECTURE.layers, 4) + (width + 1) * GENRES
    assert memory_of(model)["trained"] == 4 * expected
    linear = 2 * (2 * width * width + 2 * width * width // 2 + 3 * width * inner)
    floats = 4 * (120 * width + 5 * width)
    # NF4: half a byte a weight, a byte for each 64 weights, and four for each 256 of those
    assert memory_of(model)["frozen"] == pytest.approx(floats + linear * (1 / 2 + 1 / 64 + 4 / (64 * 256)), rel=0.01)
    content = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    assert sum(v.numel() * v.element_size() for v in content["state_dict"].values()) == 4 * expected


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_equals_padded_in_logits_and_gradients(quantization, checkpointing):
    model = stir(build(quantization=quantization, activation_checkpointing=checkpointing))
    rows = texts()
    results = []
    for batch in (padded(rows), packed(rows)):
        output = model.model_step(with_labels(batch, rows))
        gradients = torch.autograd.grad(output.loss_sum, list(trained(model).values()))
        results.append((output.logits, *gradients))
    assert any(g.abs().max() > 1e-3 for g in results[0][1:])
    assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [padded, packed])
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_one_and_of_many_give_equal_rows(layout, training):
    model = stir(build()).train(training)
    rows = texts()
    alone = torch.cat([model(layout([row])) for row in rows])
    assert_close(model(layout(rows)), alone, rtol=1e-4, atol=1e-5)


def test_packed_texts_do_not_see_each_other():
    model = stir(build())
    rows = texts()
    others = [rows[1], *texts((9, 30, 2))]
    assert_close(model(packed(rows))[1], model(packed(others))[0], rtol=1e-4, atol=1e-5)


def test_padding_token_is_never_read():
    model = stir(build())
    assert torch.equal(model(padded(texts(), token=0)), model(padded(texts(), token=77)))


def test_logits_are_those_of_plain_transformers(checkpoint_dir):
    """Against LlamaModel with its own attention and masks, and texts one by one."""
    model = build(backbone=str(checkpoint_dir), quantization="none").eval()
    plain = LlamaModel.from_pretrained(checkpoint_dir, dtype=torch.float32, attn_implementation="eager").eval()
    rows = texts()
    with torch.no_grad():
        states = [plain(torch.from_numpy(row)[None].long()).last_hidden_state[0, -1] for row in rows]
        # its own detection of packed rows is another reference
        batch = packed(rows)
        together = plain(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
        expected = model.head(torch.stack(states))
        assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)
        assert_close(together.last_hidden_state[0, batch["last_tokens"]], torch.stack(states), rtol=1e-4, atol=1e-5)


def test_nf4_computes_with_the_dequantised_weights(checkpoint_dir):
    from bitsandbytes.functional import dequantize_4bit

    model = build(backbone=str(checkpoint_dir), quantization="nf4").eval()
    plain = build(backbone=str(checkpoint_dir), quantization="none").eval()
    weights = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if type(parameter).__name__ == "Params4bit":
            weights[name].data = dequantize_4bit(parameter.data, parameter.quant_state).float()
    assert_close(model(packed(texts())), plain(packed(texts())), rtol=1e-4, atol=1e-5)


def test_training_after_an_evaluation_still_has_gradients():
    """On some CPUs bitsandbytes repacks NF4 weights when they are first used in evaluation mode."""
    model = stir(build())
    rows = texts()

    def gradients():
        loss = model.train().model_step(with_labels(packed(rows), rows)).loss_sum
        return torch.autograd.grad(loss, list(trained(model).values()))

    before = gradients()
    with torch.no_grad():
        model.eval()(packed(rows))
    assert_close(gradients(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({}, "32-true"),
        ({}, "bf16-mixed"),
        ({"quantization": "int8"}, "32-true"),
        pytest.param({"quantization": "none"}, "bf16-mixed", marks=pytest.mark.slow),
        ({"optimizer": "adamw_8bit"}, "32-true"),
        pytest.param(
            {"activation_checkpointing": True, "lora": LoraOptions(rank=4, dropout=0.0, rslora=True)},
            "32-true",
            marks=pytest.mark.slow,
        ),
        pytest.param({"lora": LoraOptions(rank=4, dropout=0.0, dora=True)}, "32-true", marks=pytest.mark.slow),
        pytest.param({"compute_dtype": "bfloat16"}, "32-true", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_few_texts_are_learnt_by_heart(options, precision):
    model = build(precision=precision, **options)
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    rows = texts((5, 17, 3, 9, 12, 6))
    batch = with_labels(packed(rows) if model.options.packing else padded(rows), rows)
    before = {name: p.detach().clone() for name, p in trained(model).items()}
    model.trainer = SimpleNamespace(precision=precision, gradient_clip_val=None, strategy=None)
    optimizer = model.new_optimizer([{"params": list(trained(model).values()), "lr": 5e-3, "name": "all"}])
    for _ in range(100):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = model.model_step(batch).loss_sum / len(rows)
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    assert not [name for name, p in trained(model).items() if torch.equal(p, before[name])]


def test_the_loss_scaler_of_fp16_takes_the_trained_parameters():
    model = build(precision="16-mixed")
    model.options.compute_dtype = "float32"
    rows = texts()
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=1024.0), torch.optim.AdamW(trained(model).values())
    with torch.autocast("cpu", torch.float16):
        loss = model.model_step(with_labels(packed(rows), rows)).loss_sum
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in trained(model).values())


def saved(model):
    content = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    return content


def test_a_checkpoint_gives_the_same_logits_to_the_bit(tmp_path):
    model = stir(build())
    torch.save(saved(model), tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert (tmp_path / "a.ckpt").stat().st_size < 200_000
    assert set(content["state_dict"]) == set(trained(model))
    again = build()
    again.on_load_checkpoint(content)
    again.load_state_dict(content["state_dict"], strict=False)
    assert torch.equal(again(packed(texts())), model(packed(texts())))


def test_random_weights_are_the_same_in_every_format_and_other_with_another_seed():
    nf4, plain = build(), build(quantization="none")
    assert torch.equal(nf4.backbone.get_input_embeddings().weight, plain.backbone.get_input_embeddings().weight)
    difference = nf4(packed(texts())) - plain(packed(texts()))
    assert difference.std() < 0.3 * plain(packed(texts())).std()
    other = build(seed=4)
    assert not torch.equal(other.backbone.get_input_embeddings().weight, plain.backbone.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed 4"),
        ({"quantization": "none"}, "quantization"),
        ({"architecture": LlamaArchitecture(layers=1, width=64, heads=4, kv_heads=2, inner_width=96)}, "1 layers"),
    ],
)
def test_another_base_is_refused(change, named):
    content = saved(build())
    with pytest.raises(CheckpointError, match=named):
        build(**change).on_load_checkpoint(content)


def test_the_base_is_known_by_its_content(checkpoint_dir, tmp_path):
    content = saved(build(backbone=str(checkpoint_dir)))
    digest = content[CHECKPOINT_KEY]["base"]["sha256"]
    for folder, scale in (("same", 1.0), ("other", 1.001)):
        copy = LlamaModel.from_pretrained(checkpoint_dir, dtype=torch.float16)
        copy.norm.weight.data *= scale
        copy.embed_tokens.weight.data[1] *= scale
        copy.save_pretrained(tmp_path / folder)
    # a copy elsewhere is the same base
    build(backbone=str(tmp_path / "same")).on_load_checkpoint(content)
    with pytest.raises(CheckpointError, match=digest[:12]):
        build(backbone=str(tmp_path / "other")).on_load_checkpoint(content)


@pytest.mark.parametrize(
    ("options", "changes", "cure"),
    [
        ({"compute_dtype": "float16"}, {}, "compute_dtype=auto"),
        ({"quant_storage": "float32", "quantization": "int8"}, {}, "quantization=nf4"),
        ({"quant_storage": "float32"}, {"precision": "bf16-mixed"}, "quant_storage=uint8"),
        ({"optimizer": "paged_adamw_8bit"}, {}, "optimizer=adamw_8bit"),
        ({}, {"precision": "bf16-true"}, "precision=bf16-mixed"),
        ({}, {"accelerator": "mps"}, "quantization=none"),
        ({"lora": LoraOptions(rank=0)}, {}, "lora.rank"),
        ({"lora": LoraOptions(dropout=1.0)}, {}, "lora.dropout"),
        ({"lora": LoraOptions(targets=[])}, {}, "lora.targets"),
        ({"dropout": -0.1}, {}, "model.dropout"),
        ({"architecture": LlamaArchitecture(width=60, heads=7)}, {}, "multiple"),
        ({"backbone": "/no/such/place"}, {}, "not a directory"),
        ({"backbone": "meta-llama/Llama-2-7b-hf"}, {}, "hf auth login"),
    ],
    ids=str,
)
def test_bad_options_are_named_before_any_work(options, changes, cure, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment at its import
    model = LlamaQLoraClassifier(**{"backbone": "random", **options})
    for name, value in changes.items():
        setattr(model, name, value)
    with pytest.raises(ConfigError, match=cure) as error:
        model.check(64)
    assert "\n" not in str(error.value)


def test_a_model_of_another_family_or_quantised_already_is_refused(checkpoint_dir, tmp_path):
    settings = json.loads((checkpoint_dir / "config.json").read_text())
    for change, message in (
        ({"model_type": "distilbert"}, "DistilBertClassifier"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "quantised already"),
        ({"sliding_window": 32, "model_type": "mistral"}, "max_tokens=32"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**settings, **change}))
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(ConfigError, match=message):
            LlamaQLoraClassifier(backbone=str(tmp_path)).check(64)


def test_weights_that_are_damaged_or_lack_a_part_are_named(checkpoint_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint_dir / "model.safetensors")
    (tmp_path / "config.json").write_text((checkpoint_dir / "config.json").read_text())
    file = tmp_path / "model.safetensors"
    (name,) = (n for n in weights if n.endswith("layers.1.mlp.up_proj.weight"))
    save_file({n: w for n, w in weights.items() if n != name}, file)
    with pytest.raises(ConfigError, match=name):
        build(backbone=str(tmp_path))
    save_file({**weights, name: weights[name][:7].clone()}, file)
    with pytest.raises(ConfigError, match="shape"):
        build(backbone=str(tmp_path))
    file.write_bytes((checkpoint_dir / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ConfigError, match="cannot be read"):
        build(backbone=str(tmp_path))


def test_targets_that_fit_no_layer_and_a_foreign_tokenizer_are_refused():
    with pytest.raises(ConfigError, match=r"lora\.targets"):
        build(lora=LoraOptions(targets=["no_such_layer"]))
    model = LlamaQLoraClassifier(backbone="random", architecture=LlamaArchitecture(vocab_size=50))
    model.bind(labelling())
    with pytest.raises(ConfigError, match=r"data\.tokenizer"):
        model.configure_model()


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}])
def test_merged_weights_compute_what_the_adapters_do(quantization, kind):
    model = stir(build(quantization=quantization, lora=LoraOptions(rank=4, dropout=0.0, **kind))).train()
    expected = model(packed(texts()))
    model.backbone = merge_adapters(model.backbone, torch.float32)
    assert {type(p).__name__ for p in model.parameters()} == {"Parameter"}
    assert_close(model(packed(texts())), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_other_families_keep_packed_texts_apart(family, tmp_path):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        family, vocab_size=120, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = stir(build(backbone=str(tmp_path)))
    rows = texts()
    alone = torch.cat([model(padded([row])) for row in rows])
    assert_close(model(packed(rows)), alone, rtol=1e-4, atol=1e-5)
    assert_close(model(padded(rows)), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.real_model
def test_the_real_tokenizer_of_llama_2(llama_tokenizer):
    tokenizer = load_tokenizer(str(llama_tokenizer))
    assert (len(tokenizer), tokenizer.pad_token_id) == (32_000, None)
    # ids of the original SentencePiece model, after the bos token
    assert tokenizer("A girl. It's\nNo")["input_ids"] == [1, 319, 7826, 29889, 739, 29915, 29879, 13, 3782]


@pytest.mark.real_model
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_real_small_llama(llama_tiny, quantization):
    tokenizer = load_tokenizer(str(llama_tiny))
    rows = [
        torch.tensor(tokenizer(text)["input_ids"]).numpy().astype("int32")
        for text in ("Once upon a time, there was a girl.", "A dog runs.", "They went home to play in the big garden.")
    ]
    model = LlamaQLoraClassifier(backbone=str(llama_tiny), quantization=quantization)
    model.check(64)
    model.bind(labelling(vocab_size=len(tokenizer)))
    model.configure_model()
    model.eval()
    assert_close(model(packed(rows)), torch.cat([model(padded([row])) for row in rows]), rtol=1e-4, atol=1e-5)
