"""Whole runs of QLoRA and zero-shot as their user starts them, and what is exported from them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from made_runs import without_page
from power_cuts import power_cut
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score
from torch.testing import assert_close
from transformers import AutoModel, AutoTokenizer, BitsAndBytesConfig

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample

OPTIONS = [
    "--data.max_tokens=48",
    "--data.global_batch_size=16",
    "--data.micro_batch_tokens=512",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--checkpoint.every_steps=2",
]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """The page takes much of a small run's time, and is for other tests to look at."""
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        yield patch


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=130, seed=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A language model on disk with its tokenizer, made from random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder = tmp_path_factory.mktemp("base")
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *letters, "▁y", "▁n"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    LlamaTokenizer(vocab=vocabulary, merges=[("▁", "y"), ("▁", "n")], add_bos_token=True).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(pieces), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def fit(sample, run_dir, *words, kind="llama_qlora.LlamaQLoraClassifier"):
    model = f"--model=genre_lightning.models.{kind}"
    return main(["fit", f"--data.csv={sample}", f"--run_dir={run_dir}", model, *OPTIONS, *words])


def qlora(sample, base, run_dir, quantization, *more):
    lora = "--model.lora={rank: 4, dropout: 0.05}"
    return fit(
        sample,
        run_dir,
        f"--model.backbone={base}",
        f"--model.quantization={quantization}",
        lora,
        "--model.lr=1e-2",
        *more,
    )


@pytest.fixture(scope="module", params=["nf4", "none"])
def run(request, sample, base, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / request.param
    assert qlora(sample, base, place, request.param) == 0
    return place


def test_a_run_cut_off_and_started_again_is_the_unbroken_one_to_the_bit(sample, base, run, tmp_path):
    with power_cut(9):
        qlora(sample, base, tmp_path / "run", run.name)
    assert qlora(sample, base, tmp_path / "run", run.name) == 0
    logits = [logits_of(place, "test") for place in (run, tmp_path / "run")]
    assert torch.equal(*logits)
    states = [state(place) for place in (run, tmp_path / "run")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def state(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def logits_of(run_dir, split):
    column = pq.read_table(run_dir / "evaluation" / split / "predictions.parquet")["logits"]
    return torch.tensor(np.stack(column.to_numpy()))


def test_the_checkpoint_holds_what_was_trained(run):
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert all("lora_" in name or name.startswith("head.") for name in content["state_dict"])
    assert (run / "checkpoints" / "best.ckpt").stat().st_size < 300_000
    facts = content["genre_lightning"]["base"]
    assert len(facts["sha256"]) == 64
    assert facts["quantization"] == run.name


def calibrated_logits_of(run_dir):
    """The log-odds of the calibrated probabilities of the run's test films."""
    decision = json.loads((run_dir / "decision.json").read_text())
    logits = logits_of(run_dir, "test") / decision["temperature"]
    if platt := decision["platt"]:
        scale, shift = (torch.tensor(list(platt[name].values())) for name in ("scale", "shift"))
        logits = logits * scale + shift
    return logits


@torch.no_grad()
def logits_by_peft(run_dir, folder, backbone, head):
    """The logits of the run's test films, by plain transformers, peft and safetensors."""
    texts = pq.read_table(run_dir / "evaluation" / "test" / "predictions.parquet")["text"].to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=48)["input_ids"]])
        last = backbone.eval()(input_ids=ids).last_hidden_state[0, -1].float()
        rows.append(head["weight"] @ last + head["bias"])
    return torch.stack(rows)


def test_the_exported_adapter_opens_in_plain_peft(run, base, tmp_path):
    from peft import PeftModel

    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "head.safetensors", "tokenizer.json"}
    assert not any(name.endswith((".bin", ".pt", ".ckpt")) for name in names)
    quantised = {}
    if run.name == "nf4":
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        quantised = {"quantization_config": settings}
    plain = AutoModel.from_pretrained(base, dtype=torch.float32, **quantised)
    for module in plain.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # bitsandbytes would round to bf16 in evaluation mode
    opened = PeftModel.from_pretrained(plain, tmp_path / "out")
    assert opened.peft_config["default"].base_model_name_or_path == str(base)
    got = logits_by_peft(run, tmp_path / "out", opened, load_file(tmp_path / "out" / "head.safetensors"))
    assert_close(got, calibrated_logits_of(run), rtol=1e-4, atol=1e-4)
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    assert len(decision["genres"]) == got.shape[1]
    assert decision["fitted_on"] == "validation"
    assert ModelCard.load(tmp_path / "out" / "README.md").data.library_name == "peft"


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_the_merged_model_equals_the_adapter(run, tmp_path, dtype, tolerance):
    assert main(["export", str(run), str(tmp_path / "out"), "--merge", "--dtype", dtype]) == 0
    merged = AutoModel.from_pretrained(tmp_path / "out" / "0_Transformer", dtype=torch.float32)
    config = json.loads((tmp_path / "out" / "0_Transformer" / "config.json").read_text())
    assert config["dtype"] == dtype
    assert "quantization_config" not in config
    dense = load_file(tmp_path / "out" / "2_Dense" / "model.safetensors")
    head = {name.removeprefix("linear."): value for name, value in dense.items()}
    got = logits_by_peft(run, tmp_path / "out" / "0_Transformer", merged, head)
    expected = calibrated_logits_of(run)
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_lasttoken"] is True
    assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_a_random_base_is_exported_with_its_adapter(sample, base, tmp_path):
    from peft import PeftModel

    words = ["--model.random_weights=true", "--trainer.max_epochs=1"]
    assert qlora(sample, base, tmp_path / "run", "none", *words) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    plain = AutoModel.from_pretrained(tmp_path / "out" / "base", dtype=torch.float32)
    opened = PeftModel.from_pretrained(plain, tmp_path / "out")
    head = load_file(tmp_path / "out" / "head.safetensors")
    got = logits_by_peft(tmp_path / "run", tmp_path / "out", opened, head)
    assert_close(got, calibrated_logits_of(tmp_path / "run"), rtol=1e-4, atol=1e-4)


def test_export_refuses_what_it_cannot_do(run, tmp_path, capfd):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["export", str(run), str(tmp_path / "full")]) == 2
    assert "not empty" in capfd.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "new")]) == 2
    assert "is not a run directory" in capfd.readouterr().err
    for words, answer in (
        (["--form", "transformers"], "no bias"),
        (["--onnx"], "onnx"),
        (["--form", "adapter", "--merge"], "exclude"),
        (["--dtype", "float16"], "--dtype"),
    ):
        assert main(["export", str(run), str(tmp_path / "new"), *words]) == 2
        assert answer in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_another_base_at_the_same_place_is_refused(run, base, tmp_path, capfd):
    file = base / "model.safetensors"
    before, weights = file.read_bytes(), load_file(file)
    try:
        save_file(
            {**weights, "model.norm.weight": 1.01 * weights["model.norm.weight"]}, file, metadata={"format": "pt"}
        )
        for words in (["test", "--run_dir", str(run)], ["export", str(run), str(tmp_path / "out")]):
            assert main(words) == 2
            assert "sha256" in capfd.readouterr().err
        assert not (tmp_path / "out").exists()
    finally:
        file.write_bytes(before)


@pytest.mark.slow
def test_8_bit_moments_and_checkpointing_resume_to_the_bit(sample, base, tmp_path):
    words = [
        "--model.optimizer=adamw_8bit",
        "--model.activation_checkpointing=true",
        "--model.lora={rank: 64}",
        "--trainer.max_epochs=1",
    ]
    assert qlora(sample, base, tmp_path / "whole", "nf4", *words) == 0
    content = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    # bitsandbytes keeps them in a dictionary of its own
    moments = [s["__bnb_optimizer_quant_state__"]["state1"] for s in content["optimizer_states"][0]["state"].values()]
    assert torch.uint8 in {moment.dtype for moment in moments}
    with power_cut(5):
        qlora(sample, base, tmp_path / "run", "nf4", *words)
    assert qlora(sample, base, tmp_path / "run", "nf4", *words) == 0
    states = [state(tmp_path / name) for name in ("whole", "run")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_zero_shot_leaves_a_run_directory_without_training(sample, base, tmp_path, capfd, quick):
    quick.undo()
    place, words = tmp_path / "run", [f"--model.backbone={base}", "--model.batch_tokens=16384"]
    kind = "zero_shot.ZeroShotLlama"
    assert fit(sample, place, *words, kind=kind) == 0
    for split in ("validation", "test"):
        metrics = json.loads((place / "evaluation" / split / "metrics.json").read_text())
        assert set(metrics["policies"]) == {"fixed_0.5", "global", "per_genre"}
    decision = json.loads((place / "decision.json").read_text())
    assert decision["fitted_on"] == "validation"
    assert (place / "report.html").is_file()
    assert torch.load(place / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"] == {}
    before = logits_of(place, "test")
    # the raw decision at 0.5 is the sign of the log-odds
    labels = np.stack(pq.read_table(place / "evaluation" / "test" / "predictions.parquet")["labels"].to_numpy())
    raw = f1_score(labels, before.numpy() >= 0, average="micro", zero_division=0)
    assert metrics["raw"]["fixed_0.5"]["f1_micro"] == pytest.approx(raw)
    capfd.readouterr()
    assert fit(sample, place, *words, kind=kind) == 0
    assert "all is done" in capfd.readouterr().err
    assert main(["test", "--run_dir", str(place)]) == 0
    assert torch.equal(logits_of(place, "test"), before)
    assert (
        main(["predict", "--run_dir", str(place), "--data.csv", str(sample), "--out", str(tmp_path / "all.parquet")])
        == 0
    )
    assert main(["export", str(place), str(tmp_path / "out")]) == 2
    assert "trains nothing" in capfd.readouterr().err
