"""Exports of small runs, opened by the libraries that they are for."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from made_runs import refused
from ranks import run_on_ranks
from safetensors.torch import load_file, save_file
from scipy.special import expit
from small_run import SMALL
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing import assert_close
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    pipeline,
)
from transformers.utils import logging

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.checkpoint.io import read_checkpoint, update_checkpoint
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.distributed.checkpoint.shards import write_shards
from genre_lightning.evaluation.decisions import read_decision, write_decision
from genre_lightning.files import read_json, write_json
from genre_lightning.models.metadata import CHECKPOINT_KEY


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=300, seed=1)


@pytest.fixture(scope="module", params=["cls", "mean"])
def run(request, sample, tmp_path_factory):
    """A finished run, evaluated by a decision that scales and shifts each genre as that of a large run does."""
    place = tmp_path_factory.mktemp("runs") / request.param
    words = [f"--model.pooling={request.param}", "--trainer.max_epochs=1", "--model.lr=3e-3"]
    # wide enough for z and -z of each genre
    shape = "--model.architecture={layers: 1, width: 64, heads: 2, inner_width: 64}"
    assert main(["fit", f"--data.csv={sample}", f"--run_dir={place}", *SMALL, *words, shape]) == 0
    decision = read_decision(place / "decision.json")
    numbers = np.random.default_rng(4)
    scale, shift = numbers.uniform(0.5, 2, len(decision.genres)), numbers.normal(0, 1, len(decision.genres))
    write_decision(replace(decision, temperature=1.0, platt=(scale, shift)), place / "decision.json")
    assert main(["test", "--run_dir", str(place)]) == 0
    return place


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    target = tmp_path_factory.mktemp("exports") / run.name
    assert main(["export", str(run), str(target)]) == 0
    return target


def calibrated(run, split="test"):
    """Texts, and the probabilities that follow from the run's logits by the formula of Platt scaling."""
    table = pq.read_table(run / "evaluation" / split / "predictions.parquet")
    platt = json.loads((run / "decision.json").read_text())["platt"]
    scale, shift = (np.array(list(platt[name].values())) for name in ("scale", "shift"))
    logits = np.stack(table["logits"].to_numpy()).astype(np.float64)
    return table["text"].to_pylist(), expit(logits * scale + shift)


of_cls = pytest.mark.parametrize("run", ["cls"], indirect=True)
of_mean = pytest.mark.parametrize("run", ["mean"], indirect=True)


@of_cls
def test_pipeline_and_auto_model_give_our_probabilities(run, exported):
    texts, expected = calibrated(run)
    genres = json.loads((run / "decision.json").read_text())["genres"]
    tagger = pipeline("text-classification", model=str(exported), top_k=None, device="cpu")
    for text, row in zip(texts[:8], expected, strict=False):
        found = {answer["label"]: answer["score"] for answer in tagger([text], truncation=True)[0]}
        assert [found[genre] for genre in genres] == pytest.approx(row, abs=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.model_max_length == 48
    with torch.no_grad():
        logits = model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits
    assert np.abs(expit(logits.double().numpy()) - expected).max() < 1e-5
    assert model.config.problem_type == "multi_label_classification"


@of_mean
def test_mean_pooling_becomes_a_sentence_transformers_folder(run, exported, tmp_path, capfd):
    texts, expected = calibrated(run)
    modules = json.loads((exported / "modules.json").read_text())
    assert [module["type"].rsplit(".", 1)[1] for module in modules] == ["Transformer", "Pooling", "Dense"]
    encoder, tokenizer = (kind.from_pretrained(exported / modules[0]["path"]) for kind in (AutoModel, AutoTokenizer))
    inputs = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**inputs).last_hidden_state.double()
    settings = json.loads((exported / modules[1]["path"] / "config.json").read_text())
    assert [name for name, on in settings.items() if on is True] == ["pooling_mode_mean_tokens"]
    mask = inputs["attention_mask"][..., None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    dense = load_file(exported / modules[2]["path"] / "model.safetensors")
    logits = pooled @ dense["linear.weight"].double().T + dense["linear.bias"].double()
    assert np.abs(expit(logits.numpy()) - expected).max() < 1e-5
    # plain transformers would invent a head for an encoder that it finds
    with pytest.raises(ValueError, match="model_type"):
        AutoModelForSequenceClassification.from_pretrained(exported)
    capfd.readouterr()
    refused(capfd, ["export", run, tmp_path / "out", "--form", "transformers"], "mean pooling", "sentence-transformers")
    assert list(tmp_path.iterdir()) == []


@of_mean
def test_no_progress_bar_of_transformers_is_shown(run, tmp_path, capfd):
    bars = logging.is_progress_bar_enabled()
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    assert "%|" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled() == bars


@of_mean
def test_sentence_transformers_opens_its_folder(run, exported):
    library = pytest.importorskip("sentence_transformers")
    texts, expected = calibrated(run)
    assert_close(library.SentenceTransformer(str(exported), device="cpu").encode(texts), expected.astype(np.float32),
                 atol=1e-5, rtol=0)  # fmt: skip


def test_onnxruntime_gives_our_logits_at_any_shape(run, tmp_path, capfd):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    import onnxruntime

    assert main(["export", str(run), str(tmp_path / "out"), "--onnx"]) == 0
    assert "by torch" in capfd.readouterr().err
    texts, expected = calibrated(run)
    folder = tmp_path / "out" / ("0_Transformer" if run.name == "mean" else "")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    for rows in ([0], [1, 2, 3], range(len(texts))):
        inputs = tokenizer([texts[row] for row in rows], truncation=True, padding=True, return_tensors="np")
        logits = session.run(None, dict(inputs))[0]
        assert np.abs(expit(logits.astype(np.float64)) - expected[list(rows)]).max() < 1e-5


def test_onnx_without_its_libraries_is_refused(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("genre_lightning.export.onnx_model._NEEDED", ("no_such_library",))
    refused(capfd, ["export", run, tmp_path / "out", "--onnx"], "no_such_library", "pip install")
    assert list(tmp_path.iterdir()) == []


def test_the_exported_decision_holds_for_the_exported_probabilities(run, exported):
    ours, theirs = (json.loads((place / "decision.json").read_text()) for place in (run, exported))
    assert theirs["thresholds"] == ours["thresholds"]
    assert theirs["platt"] is None
    assert theirs["temperature"] == 1
    assert theirs["folded_into_the_head"]["platt"] == ours["platt"]
    _, expected = calibrated(run)
    decided = read_decision(exported / "decision.json").decide(expected)
    kept = pq.read_table(run / "evaluation" / "test" / "predictions.parquet")["genres"].to_pylist()
    genres = np.array(ours["genres"])
    assert [list(genres[row]) for row in decided] == kept


def test_the_card_says_what_the_run_knows(run, exported):
    card = ModelCard.load(exported / "README.md")
    assert card.data.license == "unknown"
    assert card.data.library_name == {"cls": "transformers", "mean": "sentence-transformers"}[run.name]
    metrics = read_json(run / "evaluation" / "test" / "metrics.json")
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found["mAP"] == pytest.approx(metrics["threshold_free"]["map_macro"], abs=1e-4)
    low, high = metrics["intervals"]["policies"]["global"]["f1_micro"]
    assert f"{metrics['policies']['global']['f1_micro']:.3f} [{low:.3f}, {high:.3f}]" in card.text
    audit = read_json(run / "data_audit.json")
    for number in (audit["rows"], audit["kept"], audit["splits"]["train"]["films"]):
        assert f"{number:,}" in card.text
    for genre in audit["splits"]["test"]["genres"]:
        assert f"\n| {genre} |" in card.text
    assert str(run) not in card.text
    code = card.text.split("```python")[1].split("```")[0]
    compile(code, "card", "exec")


@of_cls
def test_the_cards_code_runs(run, exported, capsys, monkeypatch):
    monkeypatch.chdir(exported.parent)
    code = (exported / "README.md").read_text().split("```python")[1].split("```")[0]
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.startswith("[")


def save_as_shards(rank, checkpoint):
    content = read_checkpoint(checkpoint)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    content["state_dict"] = {
        name: distribute_tensor(value, mesh, [Shard(0)]) if value.ndim else value
        for name, value in content["state_dict"].items()
    }
    content["optimizer_states"] = []
    write_shards(content, checkpoint.with_name("sharded.ckpt"))


@pytest.mark.slow
@of_cls
def test_a_sharded_checkpoint_is_put_together(run, exported, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(run, place)
    best = place / "checkpoints" / "best.ckpt"
    run_on_ranks(save_as_shards, 2, best)
    for file in (best, best.with_name("best.ckpt.manifest.json")):
        file.unlink()
    best.with_name("sharded.ckpt").rename(best)
    best.with_name("sharded.ckpt.manifest.json").rename(best.with_name("best.ckpt.manifest.json"))
    assert best.is_dir()
    rebind(place)
    assert main(["export", str(place), str(tmp_path / "out")]) == 0
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", exported))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def rebind(place):
    """Binds the decision to the checkpoint as it is now."""
    sha256 = str(verify_checkpoint(place / "checkpoints" / "best.ckpt").sha256)
    write_decision(read_decision(place / "decision.json").with_checkpoint(sha256), place / "decision.json")


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@of_cls
def test_what_is_not_a_finished_run_is_refused(copy, tmp_path, capfd):
    out = tmp_path / "out"
    refused(capfd, ["export", tmp_path, out], "is not a run directory")
    state = read_json(copy / "run_state.json")
    for status in ("training", "evaluating"):
        write_json(copy / "run_state.json", {**state, "status": status})
        refused(capfd, ["export", copy, out], "not finished")
    write_json(copy / "run_state.json", state)
    (copy / "decision.json").rename(copy / "decision.away")
    refused(capfd, ["export", copy, out], "decision.json is missing")
    (copy / "decision.away").rename(copy / "decision.json")
    (copy / "checkpoints" / "best.ckpt").unlink()
    refused(capfd, ["export", copy, out], "no checkpoint")
    out.mkdir()
    (out / "file").touch()
    refused(capfd, ["export", copy, out], "not empty")


@of_cls
def test_a_decision_or_checkpoint_of_another_model_is_refused(copy, tmp_path, capfd):
    best = copy / "checkpoints" / "best.ckpt"
    update_checkpoint(best, lambda content: content[CHECKPOINT_KEY].update(epoch_sums=[0.0, 1.0]))
    refused(capfd, ["export", copy, tmp_path / "out"], "belongs to the checkpoint")
    rebind(copy)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["model"]["init_args"]["lora"] = {"rank": 2}
    settings["model"]["init_args"]["backbone"] = str(tmp_path)
    (copy / "config.yaml").write_text(yaml.safe_dump(settings))
    refused(capfd, ["export", copy, tmp_path / "out"])
    best.write_bytes(best.read_bytes()[:-10])
    refused(capfd, ["export", copy, tmp_path / "out"], "best.ckpt")
    assert not (tmp_path / "out").exists()


@of_cls
def test_no_room_leaves_nothing(copy, tmp_path, capfd, monkeypatch):
    place = tmp_path / "exports"
    place.mkdir()
    usage = shutil.disk_usage(place)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    refused(capfd, ["export", copy, place / "out"], "17.0 MB", "name another directory")
    assert list(place.iterdir()) == []


@of_cls
def test_a_write_that_fails_leaves_nothing(copy, tmp_path, capfd, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    place = tmp_path / "exports"
    place.mkdir()
    monkeypatch.setattr("genre_lightning.export.run.write_text", full)
    # the lines that it says before are not of the refusal
    assert main(["export", str(copy), str(place / "out")]) == 1
    assert "No space left" in capfd.readouterr().err.splitlines()[-1]
    assert list(place.iterdir()) == []


@of_cls
def test_options_that_do_not_fit_the_run_are_refused(copy, tmp_path, capfd):
    out = tmp_path / "out"
    refused(capfd, ["export", copy, out, "--merge"], "not a LoRA run")
    refused(capfd, ["export", copy, out, "--form", "adapter"], "not a LoRA run")
    refused(capfd, ["export", copy, out, "--dtype", "float16"], "--dtype")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small BERT on disk."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=600, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_encoder_with_lora_is_an_adapter_or_merged(sample, base, tmp_path, capfd):
    from peft import PeftModel

    place = tmp_path / "run"
    words = [f"--model.backbone={base}", "--model.lora={rank: 4}", "--model.pooling=cls", "--data.tokenizer=wordpiece"]
    options = [*SMALL, *words, "--trainer.max_epochs=1", "--decision.calibration=temperature"]
    assert main(["fit", f"--data.csv={sample}", f"--run_dir={place}", *options]) == 0
    table = pq.read_table(place / "evaluation" / "test" / "predictions.parquet")
    expected = np.stack(table["probabilities"].to_numpy())
    assert main(["export", str(place), str(tmp_path / "adapter")]) == 0
    assert main(["export", str(place), str(tmp_path / "merged"), "--merge"]) == 0
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    opened = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "adapter").eval()
    head = load_file(tmp_path / "adapter" / "head.safetensors")
    for folder in ("adapter", "merged"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / folder)
        inputs = tokenizer(table["text"].to_pylist(), truncation=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            if folder == "merged":
                logits = merged(**inputs).logits
            else:
                logits = opened(**inputs).last_hidden_state[:, 0] @ head["weight"].T + head["bias"]
        assert np.abs(expit(logits.double().numpy()) - expected).max() < 1e-5
    file = base / "model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 0.01}, file, metadata={"format": "pt"})
    assert main(["export", str(place), str(tmp_path / "other")]) == 2
    assert "sha256" in capfd.readouterr().err
    assert not (tmp_path / "other").exists()
