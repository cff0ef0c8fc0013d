"""`plan` as a user meets it: what it says, what it refuses, and that nothing is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from specs import data_spec

from genre_lightning.__main__ import main
from genre_lightning.config.parser import parse
from genre_lightning.data.steps import epoch_order, partition
from genre_lightning.hardware import known_gpus
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.planning import probe
from genre_lightning.planning.memory import largest_micro_batch, memory
from genre_lightning.planning.setting import BatchShape, Setting
from genre_lightning.planning.shape import ModelShape, Weight

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def plan(capsys, *words, status=0):
    capsys.readouterr()
    assert main(["plan", *map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def small(csv, tmp_path, *more):
    return [f"--data.csv={csv}", "--model.backbone=small", f"--run_dir={tmp_path / 'run'}", *more]


def test_a_plan_in_words(sample_csv, tmp_path, capsys):
    words = small(sample_csv, tmp_path, "--devices=8", "--gpu=h100-80gb", "--utilisation=0.3")
    assert main(["plan", *words]) == 0
    said = capsys.readouterr().out
    for part in (
        "8 x h100-80gb, strategy ddp, precision 16-mixed", "films an epoch", "| optimizer state", "ddp (configured)",
        "assumed", "fits: ", "largest data.micro_batch_tokens that fits: ",
        "at 0.3 of 8 x 989.5 TFLOP/s", "none quantised",
    ):  # fmt: skip
        assert part in said
    assert "conflict" not in said
    assert all(len(line) <= 100 for line in said.splitlines())
    assert not (tmp_path / "run").exists()


def test_without_a_gpu_there_is_memory_and_no_verdict(sample_csv, tmp_path, capsys):
    facts = plan(capsys, *small(sample_csv, tmp_path))
    assert facts["time"] is None
    assert list(facts["memory"]) == ["single"]
    assert "fits" not in facts["memory"]["single"]
    assert facts["machine"]["precision"] == "16-mixed"  # as a GPU would choose


def test_on_a_cpu_the_time_is_measured(sample_csv, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(probe, "_SECONDS", 0.05)
    words = small(sample_csv, tmp_path, "--trainer.accelerator=cpu", "--trainer.max_epochs=4", "--trainer.max_steps=9")
    facts = plan(capsys, *words)
    time, steps = facts["time"], facts["steps"]
    expected = steps["tokens_an_epoch"] / time["tokens_per_second"]
    expected += steps["steps_an_epoch"] * time["optimizer_seconds"]
    assert time["seconds_an_epoch"] == pytest.approx(expected)
    assert time["seconds"] == pytest.approx(9 * time["seconds_a_step"])
    assert time["seconds_a_step"] > time["optimizer_seconds"] > 0
    assert main(["plan", *words]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("time"))
    assert "an epoch" in line
    assert "in all" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_the_probe_trains_the_runs_own_micro_batches(layout, monkeypatch):
    monkeypatch.setattr(probe, "_SECONDS", 0.01)
    model = DistilBertClassifier(backbone="small", packing=layout == "packed")
    genres = ("Drama", "War")
    model.bind(data_spec(genres, vocab_size=50, max_tokens=16))
    seen = []
    step = model.model_step
    monkeypatch.setattr(model, "model_step", lambda batch: seen.append(batch) or step(batch))
    lengths = np.random.default_rng(0).integers(3, 17, 60).astype(np.int32)
    random = torch.random.get_rng_state()
    speed = probe.measure_cpu(
        model, lengths, global_batch_size=12, micro_batches=2, seed=4, layout=layout, precision="32-true"
    )
    assert torch.equal(torch.random.get_rng_state(), random)
    first = partition(lengths[epoch_order(60, 4, 0)[:12]], 2, layout)
    assert len(seen[0]["weights"]) == -(-len(first[0]) // 4)  # warms up
    assert len(seen[1]["weights"]) == len(first[1])
    assert ("attention_mask" in seen[0]) == (layout == "padded")
    assert all(weight.grad is not None for weight in model.parameters())
    assert speed.tokens_per_second > 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "name the GPU with --gpu"),
        (("--trainer.accelerator=cpu", "--devices=2"), "one device"),
        (("--config", CONFIGS / "llama2_lora.yaml", "--trainer.accelerator=cpu"), "encoders"),
        (("--config", CONFIGS / "llama2_zero_shot.yaml"), "nothing is trained"),
    ],
)
def test_without_a_time_one_line_says_why(words, why, sample_csv, tmp_path, capsys):
    ours = [word for word in small(sample_csv, tmp_path) if not (words and words[0] == "--config" and "small" in word)]
    facts = plan(capsys, *words, *ours)
    assert facts["time"] is None
    assert facts["no_time"].startswith("not estimated: ")
    assert why in facts["no_time"]


def test_the_largest_micro_batch_fits_and_a_larger_one_does_not():
    weight = Weight(1000, 4000, 0, 10, True, False, True, 0, False)
    shape = ModelShape((weight,), 2, 64, 4, 4, 16, 256, 100, False, 0.1, 1, (), 2, True, False)
    setting = Setting("single", 1, "cuda", True)
    available = 2_000_000_000
    most = largest_micro_batch(shape, setting, available=available, longest=256, packed=False)
    batches = [BatchShape.full(tokens, 256, packed=False, encoder=True) for tokens in (most, most + 64)]
    taken = [memory(shape, setting, batch).total for batch in batches]
    assert taken[0] <= available < taken[1]
    assert largest_micro_batch(shape, setting, available=1000, longest=256, packed=False) is None


def test_time_is_that_of_matmuls_kernels_and_communication(sample_csv, tmp_path, capsys):
    facts = plan(capsys, *small(sample_csv, tmp_path, "--devices=2", "--nodes=2", "--gpu=h200", "--utilisation=0.5"))
    time, steps = facts["time"], facts["steps"]
    # matmuls of two layers of width 128 and inner width 512, trained: 6 FLOPs a weight
    weights = 2 * (4 * 128 * 128 + 2 * 128 * 512)
    assert time["flops_an_epoch"] > 6 * weights * steps["tokens_an_epoch"]
    step = time["step"]
    matmuls = time["flops_an_epoch"] / (4 * 989.5e12 * 0.5)
    assert step["matmuls"] * steps["steps_an_epoch"] == pytest.approx(matmuls)
    assert step["kernels"] == pytest.approx(steps["micro_batches"] * 2 * 4e-3)
    assert time["seconds_an_epoch"] == pytest.approx(step["seconds"] * steps["steps_an_epoch"])
    assert time["seconds_an_epoch"] > matmuls
    assert time["seconds"] == pytest.approx(time["seconds_an_epoch"] * steps["epochs"])
    assert facts["machine"]["ranks"] == 4
    assert step["limit"] == "kernels"
    assert any("kernel launches" in note and note.endswith("or use fewer devices") for note in facts["notes"])
    alone = plan(capsys, *small(sample_csv, tmp_path, "--devices=1", "--gpu=h200"))
    assert any("kernel launches" in note and "fewer devices" not in note for note in alone["notes"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--trainer.devices=abc"], "trainer.devices is abc"),
        (["--trainer.devices=1,1"], "trainer.devices is 1,1"),
        (["--trainer.devices=0"], "trainer.devices is 0"),
        (["--trainer.num_nodes=0"], "trainer.num_nodes is 0"),
        (["--trainer.num_nodes=-1"], "trainer.num_nodes is -1"),
        (["--labels=x.csv"], "--labels corrects a trained run"),
        (["--feedback=x.db"], "--feedback corrects a trained run"),
        (["--require_no_worse"], "--require_no_worse compares"),
        (["--data.unlabelled=main"], "data.unlabelled gives films"),
        (["--continue.replay=7"], "continue.replay"),
        (["--self_training.precision=9"], "self_training.precision is 9"),
    ],
)
def test_what_fit_refuses_is_a_conflict(sample_csv, tmp_path, capsys, words, named):
    facts = plan(capsys, *small(sample_csv, tmp_path, *words), status=2)
    assert any(named in conflict for conflict in facts["conflicts"]), facts["conflicts"]


def test_listed_devices_are_counted(sample_csv, tmp_path, capsys):
    for devices in ("0,1", "[0,1]", "2"):
        facts = plan(capsys, *small(sample_csv, tmp_path, f"--trainer.devices={devices}", "--gpu=a100-80gb"))
        assert facts["machine"]["ranks"] == 2


def test_all_conflicts_are_listed_together(sample_csv, tmp_path, capsys):
    wrong = [
        "--model.class_path=genre_lightning.models.llama_qlora.LlamaQLoraClassifier",
        "--model.backbone=random", "--data.tokenizer=wordpiece", "--model.quantization=int8", "--model.lora.rank=0",
        "--model.optimizer=adamw_8bit", "--trainer.strategy=fsdp", "--data.max_tokens=2",
        "--trainer.log_every_n_steps=0", "--checkpoint.monitor=val/beauty", f"--data.csv={tmp_path / 'none.csv'}",
        f"--run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    facts = plan(capsys, *wrong, status=2)
    listed = "\n".join(facts["conflicts"])
    for part in ("log_every_n_steps", "val/beauty", "adamw_8bit cannot", "lora.rank is 0", "max_tokens is 2"):
        assert part in listed
    assert len(facts["conflicts"]) >= 5
    assert main(["plan", *wrong]) == 2
    said = capsys.readouterr().out
    assert f"{len(facts['conflicts'])} conflicts, each with its fix:" in said


@pytest.mark.parametrize("relative", [False, True])
def test_a_missing_file_is_a_conflict_and_the_memory_is_reported_all_the_same(tmp_path, capsys, relative, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = plan(capsys, *small("none.csv" if relative else tmp_path / "none.csv", tmp_path), status=2)
    [_] = [conflict for conflict in facts["conflicts"] if "none.csv" in conflict]
    assert facts["data"] is None
    assert facts["memory"]["single"]["total"] > 0


def test_a_run_with_other_settings_is_a_conflict(sample_csv, tmp_path, capsys):
    facts = plan(capsys, *small(sample_csv, tmp_path))
    assert facts["conflicts"] == []
    run = tmp_path / "run"
    run.mkdir()
    config, parser = parse("fit", small(sample_csv, tmp_path))
    (run / "config.yaml").write_text(parser.dump(config, skip_none=False))
    facts = plan(capsys, *small(sample_csv, tmp_path, "--data.global_batch_size=64"), status=2)
    assert "global_batch_size" in facts["conflicts"][0]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--gpu=h1000"], "--gpu h1000 is not known: give one of"),
        (["--utilisation=40"], "--utilisation: 40 is not allowed"),
        (["--devices=0"], "--devices: 0 is not allowed"),
        (["--gpu=h100", "--trainer.accelerator=cpu"], "leave one of them out"),
    ],
)
def test_bad_use_is_one_line(words, part, sample_csv, tmp_path, capsys):
    assert main(["plan", *small(sample_csv, tmp_path), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err


def test_what_shards_cannot_do_is_reported_beside_ddp(sample_csv, tmp_path, capsys):
    words = ["--config", CONFIGS / "llama2_qlora.yaml", "--model.optimizer=paged_adamw_8bit", "--devices=2"]
    facts = plan(capsys, *words, f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}")
    assert list(facts["memory"]) == ["ddp"]
    assert any("fsdp" in note for note in facts["notes"])


def test_bfloat16_on_a_gpu_without(sample_csv, tmp_path, capsys):
    words = small(sample_csv, tmp_path, "--gpu=v100-32gb", "--trainer.precision=bf16-mixed")
    assert "v100-32gb has no bfloat16" in plan(capsys, *words, status=2)["conflicts"][0]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("llama2_*.yaml")), ids=lambda path: path.stem)
def test_the_llamas_are_planned_without_a_file_of_theirs(path, sample_csv, tmp_path, capsys):
    facts = plan(capsys, "--config", path, f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}", "--gpu=h100")
    assert facts["conflicts"] == []
    assert "characters" in facts["lengths"]["estimated"] or "no tokenizer" in facts["lengths"]["estimated"]
    assert any("estimated from characters" in note for note in facts["notes"])
    column = next(iter(facts["memory"].values()))
    expected = {"7b": 6.6e9, "13b": 12.8e9, "70b": 68.7e9}
    size = "13b" if "13b" in path.stem else "70b" if "70b" in path.stem else "7b"
    assert facts["parameters"]["total"] == pytest.approx(expected[size], rel=0.03)
    assert column["fits"]
    # NF4 keeps 4.13 bits a weight
    if facts["parameters"]["quantised"]:
        assert column["parts"]["weights"] < 0.65 * facts["parameters"]["total"]


def test_offloaded_shards_are_the_hosts(sample_csv, tmp_path, capsys):
    overlay = CONFIGS / "strategy" / "fsdp_offload.yaml"
    words = ["--config", CONFIGS / "llama2_qlora.yaml", "--config", overlay, "--devices=2", "--gpu=h100"]
    facts = plan(capsys, *words, f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}")
    offloaded, sharded = facts["memory"]["fsdp offloaded"], facts["memory"]["fsdp"]
    assert offloaded["host"] > 1.5e9 > sharded["host"] == 0
    assert offloaded["total"] < sharded["total"]


def test_every_gpu_has_a_name_of_its_own():
    gpus = known_gpus()
    assert len(gpus) > 20
    assert gpus["a100-40gb"].memory == 40e9
