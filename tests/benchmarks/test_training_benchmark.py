"""The training benchmark: what it makes of its measurements, and the scripts themselves at small size on a CPU."""

import json
import os
import statistics
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from quality import difference
from quality import table as quality_table
from results import summary, table
from scipy import stats
from sides import FILMS_ONLY, OURS, PEER_FORMS, Job, Meter, make_setup, peer_model
from suites import AIMS, FILMS, SIDES, TURNS, Aims, options_of, turns_of
from torch.testing import assert_close

from genre_lightning.config.parser import parse
from genre_lightning.data.steps import MicroBatch, steps_per_epoch

ROOT = Path(__file__).parents[2]
PADDED, DYNAMIC, GROUPED = PEER_FORMS


def figures(rate, **others):
    return {"tokens_per_second": rate, "films_per_second": rate / 70, "padding": 0.0, "peak_gib": 2.0, **others}


ROUNDS = {
    OURS: [figures(1000.0), figures(3000.0), figures(1200.0)],
    PADDED: [figures(100.0), figures(200.0), figures(150.0)],
    DYNAMIC: [figures(500.0), figures(600.0), figures(600.0)],
    GROUPED: [figures(1000.0), figures(1000.0), figures(1000.0)],
}


def test_ratios_are_those_within_a_round():
    found = summary(ROUNDS)
    assert found["medians"][OURS]["tokens_per_second"] == 1200
    # 10, 15 and 8 times: a round that ran while the machine was fast counts once for both sides
    assert found["ratios"] == {PADDED: 10.0, DYNAMIC: 2.0, GROUPED: 1.2}


@pytest.mark.parametrize("suite", AIMS)
def test_a_table_names_what_is_to_be_reached(suite):
    aims = AIMS[suite]
    result = {
        **summary(ROUNDS), "product_flops_per_second": 4e11, "flops_per_token": 1e8, "share_of_products": 0.3,
        "share_of_peak": None if suite[1] == "cpu" else 0.25,
    }  # fmt: skip
    text = table(result, aims)
    rows = {line[:32].strip(): line[32:].split() for line in text.splitlines()}
    assert rows[OURS][0] == "1,200"
    for side, ratio in ((PADDED, "10.00"), (DYNAMIC, "2.00"), (GROUPED, "1.20")):
        aim = aims.ratios.get(side)
        assert rows[f"Trainer, {side}"][4:] == [ratio] + ([str(aim)] if aim else [])
    assert "would allow 4,000 tokens/s, of which 30% is reached" in text
    assert ("25.0% (aim 30%)" in text) == (suite == ("encoder", "cuda"))
    assert ("aim 10,000 on an H200" in text) == ("2.00 GiB (aim below 10)" in text) == (suite[0] == "llama")
    assert "aim" not in table(result, Aims()).partition("\n")[2]


@pytest.mark.parametrize("suite", TURNS)
def test_turns_end_within_an_epoch_and_time_whole_rounds_of_the_grouped_form(suite):
    films = round(FILMS[suite] * 0.8 * 0.99)  # of the sample, whose bad rows go
    steps = steps_per_epoch(films, 128 if suite[1] == "cuda" else 16)
    turns = TURNS[suite]
    assert set(turns) == set(SIDES)
    assert max(turn.warmup_steps + turn.steps for turn in turns.values()) < steps
    # transformers.trainer_pt_utils.get_length_grouped_indices
    assert turns[GROUPED].steps % min(steps // 4, 50) == 0


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["encoder", "llama"])
def test_what_a_gpu_is_asked_for_can_be_parsed(suite, tmp_path):
    options = Namespace(small=False, device="cuda", precision=None, batch=None, compile=False)
    config, _ = parse("fit", [*options_of(suite, options, tmp_path), f"--run_dir={tmp_path / 'run'}"])
    settings = config.model.init_args
    assert settings.backbone == ("small" if suite == "encoder" else "random")
    shape = {"encoder": (6, 768, 12, 3072), "llama": (32, 4096, 32, 11008)}[suite]
    made = settings.architecture
    assert (made.layers, made.width, made.heads, made.inner_width) == shape
    assert (config.data.max_tokens, config.data.global_batch_size, int(config.trainer.devices)) == (256, 128, 1)
    assert config.trainer.precision == "16-mixed"


def test_a_training_that_ends_before_its_timed_steps_has_no_metrics():
    meter = Meter(Job(OURS, [], warmup_steps=1, steps=2, seed=0, threads=None), torch.device("cpu"))
    assert [meter.step(), meter.step()] == [False, False]
    with pytest.raises(SystemExit, match="ended after 2 steps"):
        meter.figures()
    meter.batch(torch.tensor([3, 5]), 32)
    assert meter.step()
    assert meter.figures()["tokens"] == 8
    assert meter.figures()["padding"] == 0.75


def test_the_difference_of_two_sides_is_welchs():
    ours, theirs = [0.48, 0.50, 0.49], [0.47, 0.495]
    gap, low, high = difference(ours, theirs)
    error = (statistics.variance(ours) / 3 + statistics.variance(theirs) / 2) ** 0.5
    assert gap / error == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).statistic)
    assert low < gap < high
    assert gap - low == pytest.approx(high - gap)
    text = quality_table({OURS: ours, GROUPED: theirs, DYNAMIC: [0.5]}, 518)
    assert f"{statistics.mean(ours):7.4f}" in text
    assert f"{gap:+.4f} [{low:+.4f}, {high:+.4f}] from Trainer, {GROUPED}" in text
    assert f"from Trainer, {DYNAMIC}" not in text  # one seed has no noise to compare with


def test_both_sides_have_one_loss_and_its_gradient(tmp_path):
    options = Namespace(small=True, device="cpu", precision="32-true", batch=None, compile=False)
    words = [*options_of("encoder", options, tmp_path), "--model.dropout=0"]
    setup, _ = make_setup(Job(OURS, words, 0, 0, seed=0, threads=None), str(tmp_path))
    setup.data.layout = "padded"
    batch = setup.data.dataset("train")[MicroBatch(np.arange(6), 6)]
    peer = peer_model(setup, Meter(Job(DYNAMIC, [], 1, 1, 0, None), torch.device("cpu")))
    theirs = peer(batch["input_ids"], batch["attention_mask"], batch["labels"])["loss"]
    ours = setup.model.model_step(batch).loss_sum / batch["step_films"]
    assert_close(ours, theirs)
    (weight,) = torch.autograd.grad(ours, setup.model.head[1].weight)
    assert_close(weight, torch.autograd.grad(theirs, peer.head[1].weight)[0])


def run(script, *words):
    environment = {name: value for name, value in os.environ.items() if name not in ("MOVIES_CSV", "ENCODER_DIR")}
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, words)], env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.thorough
def test_bench_at_small_size(tmp_path):
    out = run(
        "benchmarks/training/bench.py", "--small", "--rounds", 1, "--suite", "encoder", "llama", "--out", tmp_path
    )
    last = json.loads(out.splitlines()[-1])
    assert set(last) == {"encoder", "llama"}
    for suite, found in last.items():
        assert set(found["medians"]) == set(SIDES)
        assert all(row["tokens_per_second"] > 0 for row in found["medians"].values())
        # films are the same; only this framework's have hardly any padding
        assert found["medians"][OURS]["padding"] < found["medians"][DYNAMIC]["padding"]
        kept = json.loads((tmp_path / f"training_{suite}_cpu.json").read_text())
        assert kept["ratios"] == found["ratios"]
        assert (tmp_path / f"training_{suite}_cpu.png").stat().st_size > 5000
        assert "Trainer, group_by_length" in (tmp_path / f"training_{suite}_cpu.md").read_text()


@pytest.mark.thorough
def test_quality_at_small_size(tmp_path):
    words = ("--small", "--films", 200, "--seeds", 2, "--sides", OURS, GROUPED)
    out = run("benchmarks/training/quality.py", *words, "--out", tmp_path)
    kept = json.loads((tmp_path / "training_quality_cpu.json").read_text())
    assert set(kept["map_macro"]) == {OURS, GROUPED}
    assert all(set(values) == {"0", "1"} for values in kept["map_macro"].values())
    assert all(0 < value < 1 for values in kept["map_macro"].values() for value in values.values())
    assert out.count("  seed ") == 4
    words = ("--small", "--films", 200, "--seeds", 3, "--sides", OURS)
    assert run("benchmarks/training/quality.py", *words, "--out", tmp_path).count("  seed ") == 1


@pytest.mark.thorough
def test_synchronisation_at_small_size():
    out = run("benchmarks/synchronisation.py", "--small", "--steps", 3, "--rounds", 1)
    assert all(name in out for name in ("alone", "ddp", "fsdp"))


def test_films_alone_are_not_a_side():
    assert FILMS_ONLY not in SIDES
    assert set(turns_of("encoder", Namespace(small=True))) == set(SIDES)
