"""Backbones from elsewhere: weights that do not fit, files that are damaged, numbers that cannot be."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_llama import labelling as llama_labelling
from small_llama import save_causal
from test_distilbert import SMALL, batch_of, labelling
from transformers import (
    AlbertConfig,
    AlbertModel,
    BartConfig,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    LongformerConfig,
    LongformerForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
    XLNetConfig,
    XLNetLMHeadModel,
)
from word_pieces import word_pieces

from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.models.backbones import positions_of
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.lora import LoraOptions
from genre_lightning.models.restore import restore_alone
from genre_lightning.models.zero_shot import ZeroShotLlama

LONG = {**SMALL, "max_position_embeddings": 42}
XLNET = {"vocab_size": 60, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}
MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
DISTIL = {"vocab_size": 60, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40}
GPT2 = {"vocab_size": 60, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40, "bos_token_id": 0}


@pytest.fixture
def folder(tmp_path):
    """A BERT of two layers."""
    torch.manual_seed(0)
    BertModel(BertConfig(**{**SMALL, "num_hidden_layers": 2})).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_causal(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def decoder(llama, tmp_path):
    return shutil.copytree(llama, tmp_path / "llama")


def encoder(place, **options):
    return DistilBertClassifier(backbone=str(place), **options)


def qlora(place, **options):
    return LlamaQLoraClassifier(backbone=str(place), quantization="none", **options)


def asked(place):
    return ZeroShotLlama(backbone=str(place), quantization="none")


def built(model, **facts):
    model.bind(labelling() if isinstance(model, DistilBertClassifier) else llama_labelling(**facts))
    model.configure_model()
    return model


def change_config(place, **values):
    content = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**content, **values}))


def change_weights(place, change):
    file = place / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def refused(model, *words, tokens=24):
    """The model is refused by its check and, without one, when it is built; each time in one line with the words."""
    with pytest.raises(ConfigError) as checked:
        model.check(tokens)
    with pytest.raises(ConfigError) as when_built:
        built(model)
    for error in (checked, when_built):
        assert "\n" not in str(error.value)
        for word in words:
            assert word in str(error.value)


def renamed(weights):
    return {f"other.{name}": value.clone() for name, value in weights.items()}


# Weights that are another model's


def test_names_that_do_not_match(folder):
    change_weights(folder, renamed)
    wanted = len([name for name in load_file(folder / "model.safetensors") if "pooler" not in name])
    refused(encoder(folder), f"0 of {wanted} match", f"{wanted} missing (such as embeddings.")


def test_names_that_do_not_match_in_a_decoder(decoder):
    change_weights(decoder, renamed)
    refused(qlora(decoder), "0 of 20 match", "20 missing")
    with pytest.raises(ConfigError, match="0 of 21 match"):
        asked(decoder).check(24)


def test_more_layers_in_the_configuration_than_in_the_weights(folder, decoder):
    change_config(folder, num_hidden_layers=4)
    refused(encoder(folder), "37 of 69 match", "32 missing (such as encoder.layer.2")
    refused(encoder(folder, lora=LoraOptions(rank=2)), "32 missing")
    change_config(decoder, num_hidden_layers=3)
    refused(qlora(decoder), "20 of 29 match", "9 missing (such as layers.2.")


def test_fewer_layers_in_the_configuration_than_in_the_weights(folder, decoder):
    change_config(folder, num_hidden_layers=1)
    refused(encoder(folder), "16 unexpected (such as encoder.layer.1.")
    change_config(decoder, num_hidden_layers=1)
    refused(qlora(decoder), "9 unexpected (such as model.layers.1.")
    with pytest.raises(ConfigError, match=r"9 unexpected \(such as model\.layers\.1\."):
        asked(decoder).check(24)


def test_wrong_shapes(folder, decoder):
    change_config(folder, vocab_size=61)
    refused(encoder(folder), "1 of another shape (such as embeddings.word_embeddings.weight: (60, 16), not (61, 16))")
    change_config(decoder, intermediate_size=80)
    refused(qlora(decoder), "6 of another shape (such as layers.0.mlp", "(96, 64), not (80, 64)")


def test_weights_of_another_architecture(folder):
    change_config(folder, model_type="distilbert", n_layers=2, dim=16, n_heads=2, hidden_dim=32)
    refused(encoder(folder), "missing", "use the files of one model")


def split(place, *, lose=False):
    """Cuts the weights in two files with an index."""
    weights = load_file(place / "model.safetensors")
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: weights[name] for name in members}, place / file, metadata={"format": "pt"})
    listed = {name: file for file, members in parts.items() for name in members}
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    (place / "model.safetensors").unlink()
    if lose:
        (place / "model-2.safetensors").unlink()
    return place


def test_sharded_weights(folder, decoder):
    whole = built(encoder(folder)).backbone.state_dict()
    for name, value in built(encoder(split(folder))).backbone.state_dict().items():
        assert value.equal(whole[name])
    model = encoder(folder)
    model.check(24)
    assert str(model.weight_report) == (
        "37 of 37 pretrained weights fit; 2 of parts that are not used are left out (pooler)"
    )
    change_config(folder, num_hidden_layers=4)
    refused(encoder(folder), "32 missing")
    built(qlora(split(decoder)), vocab_size=100)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{}", "does not list files beside it"),
        ('{"weight_map": []}', "does not list files beside it"),
        ('{"weight_map": {"a": "../model-1.safetensors"}}', "does not list files beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "does not list files beside it"),
        ('{"weight_map": {"a": "model-9.safetensors"}}', "lacks model-9.safetensors"),
        ("[" * 100_000, "cannot be read"),
    ],
    ids=range(6),
)
def test_damaged_index(folder, decoder, index, words):
    for place, model in ((folder, encoder), (decoder, qlora)):
        (split(place) / "model.safetensors.index.json").write_text(index)
        refused(model(place), words)


def test_lost_shard(folder):
    refused(encoder(split(folder, lose=True)), "lacks model-2.safetensors")


@pytest.mark.parametrize("damage", ["cut", "empty", "junk", "header"])
def test_damaged_safetensors(folder, decoder, damage):
    for place, model in ((folder, encoder), (decoder, qlora)):
        file = place / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(
            {"cut": content[:-50], "empty": b"", "junk": b"PK\3\4" * 99, "header": b"\xff" * 8 + content[8:]}[damage]
        )
        refused(model(place), "model.safetensors cannot be read", "download the model again")


def test_a_git_lfs_pointer_is_named(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(encoder(folder), "model.safetensors is a Git LFS pointer", "git lfs pull")


# Weights that are as they are published


@pytest.mark.parametrize(
    ("model", "left_out"),
    [
        (lambda: BertForMaskedLM(BertConfig(**SMALL)), "cls"),
        (lambda: BertForSequenceClassification(BertConfig(**SMALL)), "bert, classifier"),
        (lambda: DistilBertForMaskedLM(DistilBertConfig(**DISTIL)), "vocab_layer_norm"),
        (lambda: RobertaForMaskedLM(RobertaConfig(**SMALL)), "lm_head"),
        (lambda: ElectraForPreTraining(ElectraConfig(**SMALL, embedding_size=8)), "discriminator_predictions"),
        (lambda: ModernBertForMaskedLM(ModernBertConfig(**SMALL, **MODERN)), "decoder, head"),
        (lambda: AlbertModel(AlbertConfig(**SMALL, embedding_size=8)), "pooler"),
        (lambda: GPT2LMHeadModel(GPT2Config(**GPT2)), None),
        (lambda: XLNetLMHeadModel(XLNetConfig(**XLNET)), "lm_loss"),
        (lambda: LongformerForMaskedLM(LongformerConfig(**LONG, attention_window=4)), "lm_head"),
        (lambda: MPNetForMaskedLM(MPNetConfig(**SMALL)), "lm_head"),
    ],
)
def test_heads_and_poolers_are_left_out(tmp_path, model, left_out):
    stored = model()
    stored.save_pretrained(tmp_path)
    classifier = encoder(tmp_path)
    classifier.check(24)
    report = classifier.weight_report
    assert report.loaded == report.wanted
    assert (f"({left_out}" in str(report)) if left_out else not report.left_out
    backbone = built(classifier).backbone
    theirs = getattr(stored, stored.base_model_prefix, stored).state_dict()
    for name, value in backbone.state_dict().items():
        assert value.equal(theirs[name]), name


def test_buffers_that_older_versions_stored(folder, decoder):
    change_weights(folder, lambda weights: {**weights, "embeddings.position_ids": torch.arange(40)})
    encoder(folder).check(24)
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    change_weights(decoder, lambda weights: {**weights, **inverse})
    qlora(decoder).check(24)


def test_weights_are_not_the_files_memory(folder):
    model = built(encoder(folder))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    (folder / "model.safetensors").write_bytes(b"\0" * (folder / "model.safetensors").stat().st_size)
    for name, value in model.backbone.state_dict().items():
        assert value.equal(before[name])


# Configurations


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": 0}, "hidden_size 0"),
        ({"hidden_size": -16}, "hidden_size -16"),
        ({"num_hidden_layers": -1}, "num_hidden_layers -1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000"),
        ({"vocab_size": 10**12}, "vocab_size 1000000000000"),
        ({"num_attention_heads": 3}, "do not divide"),
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"hidden_size": 16.5}, "config.json"),
        ({"num_hidden_layers": None}, "config.json"),
        ({"layer_norm_eps": float("nan")}, "not finite"),
        ({"initializer_range": float("inf")}, "not finite"),
        ({"hidden_dropout_prob": 7}, "no model can be built"),
        ({"hidden_act": "os.system"}, "no model can be built"),
        ({"max_position_embeddings": -1}, "no model can be built"),
        ({"model_type": "no_such"}, "model_type 'no_such'"),
        ({"model_type": 5}, "model_type 5"),
        ({"model_type": None, "auto_map": {"AutoModel": "x.Model"}}, "a model's own code is never run"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised already"),
    ],
    ids=str,
)
def test_impossible_configuration(folder, values, words):
    change_config(folder, **values)
    refused(encoder(folder), words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": 0}, "hidden_size 0"),
        ({"num_hidden_layers": -2}, "num_hidden_layers -2"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"num_attention_heads": 5, "head_dim": None}, "not a multiple"),
        ({"rms_norm_eps": float("nan")}, "not finite"),
    ],
    ids=str,
)
def test_impossible_configuration_of_a_decoder(decoder, values, words):
    change_config(decoder, **values)
    refused(qlora(decoder), words)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000])
def test_damaged_configuration(folder, content):
    (folder / "config.json").write_bytes(content)
    refused(encoder(folder), "config.json cannot be read", "download the model again")


def test_huge_configuration(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 30)
    refused(encoder(folder), "1,073,741,824 bytes are too many")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: T5Model(T5Config(vocab_size=60, d_model=16, num_layers=1, num_heads=2, d_ff=32, d_kv=8)), "decoder"),
        (lambda: BartModel(BartConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1)), "decoder"),
        (
            lambda: ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32)),
            "is not a text encoder",
        ),
    ],
    ids=["t5", "bart", "vit"],
)
def test_other_than_encoders(tmp_path, model, words):
    model().save_pretrained(tmp_path)
    refused(encoder(tmp_path), words)


@pytest.mark.parametrize(
    ("model", "positions"),
    [
        (lambda: RobertaForMaskedLM(RobertaConfig(**SMALL)), 38),
        (lambda: MPNetForMaskedLM(MPNetConfig(**SMALL)), 38),
        (lambda: LongformerForMaskedLM(LongformerConfig(**LONG, attention_window=4)), 40),
        (lambda: BertModel(BertConfig(**SMALL)), 40),
        (lambda: XLNetLMHeadModel(XLNetConfig(**XLNET)), None),
    ],
    ids=["roberta", "mpnet", "longformer", "bert", "xlnet"],
)
def test_positions(tmp_path, model, positions):
    model().save_pretrained(tmp_path)
    classifier = encoder(tmp_path)
    classifier.check(positions or 10_000)
    if positions is None:
        return
    with pytest.raises(ConfigError, match=rf"set data\.max_tokens={positions}$"):
        classifier.check(positions + 1)
    model = built(classifier).eval()
    assert positions_of(model.backbone) == positions
    assert model(batch_of([positions])).isfinite().all()  # and the last position is there


# What no text reaches


@pytest.mark.parametrize(
    ("model", "unused"),
    [
        (lambda: LongformerForMaskedLM(LongformerConfig(**LONG, attention_window=4)), "query_global"),
        (lambda: XLNetLMHeadModel(XLNetConfig(**XLNET)), "mask_emb"),
    ],
    ids=["longformer", "xlnet"],
)
def test_weights_that_no_text_reaches_do_not_train(tmp_path, capfd, model, unused):
    model().save_pretrained(tmp_path)
    classifier = built(encoder(tmp_path))
    assert unused in capfd.readouterr().err
    classifier.train()(batch_of([5, 9])).sum().backward()
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    # DDP waits for each of them
    assert not [name for name, p in trained.items() if p.grad is None]
    assert not [name for name in trained if unused in name]
    assert any(unused in name for name in classifier.trained_names())  # a checkpoint stays whole


def test_looking_for_them_changes_nothing(folder, monkeypatch):
    heads = []
    for found in (True, False):
        if not found:
            monkeypatch.setattr("genre_lightning.models.distilbert.unreached_weights", lambda *arguments: {})
        torch.manual_seed(1)
        model = built(encoder(folder))
        assert model.backbone.training
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        heads.append((model.head[1].weight, torch.rand(3)))
    assert heads[0][0].equal(heads[1][0])
    assert heads[0][1].equal(heads[1][1])


# Code in a folder


def test_nothing_in_a_folder_is_run(folder, decoder, tmp_path, monkeypatch):
    """Code beside the weights, pickles, adapters, kernels and links: none of it is imported, opened or fetched."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code = f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Model: pass\n"
    (tmp_path / "stranger.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    choosing = {
        "auto_map": dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "stranger.Model"),
        "custom_pipelines": {"text-classification": {"impl": "stranger.Model"}},
        "attn_implementation": "stranger/kernel",
        "_attn_implementation": "stranger/kernel",
        "experts_implementation": "stranger/kernel",
        "fusion_config": {"patch_embeddings": True},
        "distributed_config": {"tp_size": 2},
        "use_kernels": True,
        "transformers_weights": "pytorch_model.bin",
        "architectures": ["stranger.Model"],
        "dtype": "hub",
        "torch_dtype": "os.system",
    }  # fmt: skip
    for place, model in ((folder, encoder), (decoder, qlora)):
        for name in ("stranger.py", "modeling_stranger.py", "configuration_stranger.py", "custom_generate/generate.py"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(code)
        (place / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
        (place / "generation_config.json").write_text('{"custom_generate": "stranger"}')
        (place / "link").symlink_to(tmp_path)
        change_config(place, **choosing)
        classifier = model(place)
        classifier.check(24)
        config = built(classifier, vocab_size=100).backbone_config.to_dict()
        config.pop("architectures")  # a note, which nothing here reads
        assert "stranger" not in json.dumps(config, default=str)
        assert all(p.dtype == torch.float32 for p in classifier.parameters())
    assert not (tmp_path / "it ran").exists()


def test_adapters_beside_the_weights(folder, decoder, tmp_path):
    """peft imports the module that an adapter's configuration names, and an adapter may name another base."""
    settings = {
        "peft_type": "LORA",
        "megatron_config": {"a": 1},
        "megatron_core": "stranger",
        "target_modules": ["query"],
    }
    for place, model in ((folder, encoder), (decoder, qlora)):
        (place / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "x"}))
        refused(model(place), "adapter_config.json", "merge")
        model(place, lora=LoraOptions(rank=2)).options.check_options()


def test_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(encoder(folder), "no .safetensors weights")


def test_pipes_and_devices_are_not_opened(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(encoder(folder), "no model.safetensors")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    refused(encoder(folder), "no config.json")


# Checkpoints


def checkpoint_of(model):
    content = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    return content


def restored(monkeypatch, content, known):
    monkeypatch.setattr("genre_lightning.distributed.sharded.open_checkpoint", lambda path: content)
    model = DistilBertClassifier(backbone="elsewhere")
    restore_alone(model, Path("best.ckpt"), tokenizer=known)
    return model


def test_a_checkpoint_is_restored_from_its_own_configuration(folder, monkeypatch):
    trained = built(encoder(folder))
    model = restored(monkeypatch, checkpoint_of(trained), word_pieces())
    for name, value in model.backbone.state_dict().items():
        assert value.equal(trained.backbone.state_dict()[name])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": 0}, "hidden_size 0"),
        ({"hidden_size": 1 << 20, "intermediate_size": 1 << 22}, "of another shape of model than it says"),
        ({"num_hidden_layers": 3}, "of another shape of model than it says"),
        ({"model_type": "no_such"}, "model_type 'no_such'"),
        ({"hidden_act": "os.system"}, "no model can be built"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised already"),
    ],
    ids=str,
)
def test_a_checkpoint_with_another_configuration(folder, monkeypatch, values, words):
    content = checkpoint_of(built(encoder(folder)))
    content["genre_lightning"]["backbone_config"] |= values
    with pytest.raises(CheckpointError) as error:
        restored(monkeypatch, content, word_pieces())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_chooses_kernels(folder, monkeypatch):
    content = checkpoint_of(built(encoder(folder)))
    content["genre_lightning"]["backbone_config"] |= {"attn_implementation": "stranger/kernel", "use_kernels": True}
    assert "stranger" not in str(restored(monkeypatch, content, word_pieces()).backbone_config)


def test_a_checkpoint_with_a_larger_tokenizer(folder, monkeypatch):
    known = word_pieces()
    known.add_tokens(["detective", "spaceship"])
    with pytest.raises(CheckpointError, match="the run's tokenizer has 61 tokens and its model was trained with 60"):
        restored(monkeypatch, checkpoint_of(built(encoder(folder))), known)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"genres": "Action"}, "genres is not a list"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"max_tokens": None}, "max_tokens is None"),
        ({"pos_weight": [1.0]}, "pos_weight has 1 values for"),
        ({"backbone": {"revision": "main"}}, "backbone.name is missing"),
    ],
    ids=str,
)
def test_a_checkpoint_with_damaged_metadata(folder, monkeypatch, values, words):
    content = checkpoint_of(built(encoder(folder)))
    content["genre_lightning"] |= values
    with pytest.raises(CheckpointError, match=r"is damaged .*use another checkpoint") as error:
        restored(monkeypatch, content, word_pieces())
    assert words in str(error.value)


def test_metadata_that_is_not_known_is_passed_over(folder, monkeypatch):
    content = checkpoint_of(built(encoder(folder)))
    content["genre_lightning"] |= {"of_a_later_version": 1}
    del content["genre_lightning"]["films"], content["genre_lightning"]["positives"]  # early versions have neither
    assert restored(monkeypatch, content, word_pieces()).spec.films == 0
