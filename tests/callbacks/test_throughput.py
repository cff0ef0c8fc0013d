"""The metrics of speed: rates from a clock and lengths that the test knows, FLOPs from PyTorch's own counter."""

import csv
import re

import pytest
import torch
from small_run import SMALL
from torch.utils.flop_counter import FlopCounterMode
from transformers import DistilBertConfig, DistilBertModel, LlamaConfig, LlamaModel

from genre_lightning.__main__ import main
from genre_lightning.hardware import dense_peak
from genre_lightning.models.flops import training_cost
from genre_lightning.training.callbacks import throughput


@pytest.mark.parametrize(
    ("device", "precision", "tera"),
    [
        ("NVIDIA H200", "fp16", 989.5),  # 1,979 is the peak with sparsity
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "fp16", 835.5),
        ("NVIDIA A100-SXM4-80GB", "fp32", 156),
        ("NVIDIA A100 80GB PCIe", "fp16", 312),
        ("NVIDIA A10G", "fp16", 70),
        ("NVIDIA A10", "fp16", 125),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 4090", "fp16", 165.2),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),
        ("Tesla V100-SXM2-16GB", "fp32", 15.7),
        ("Tesla V100-PCIE-32GB", "fp16", 112),
        ("NVIDIA RTX A4000", "fp16", None),
        ("AMD Instinct MI300X", "bf16", None),
    ],
)
def test_the_dense_peak_of_a_device(device, precision, tera):
    assert dense_peak(device, precision) == (None if tera is None else pytest.approx(tera * 1e12))


def counted(model, tokens):
    """FLOPs of a forward and backward pass over one text, as PyTorch counts the matmuls that it runs."""
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(tokens)[None] % 50).last_hidden_state.sum().backward()
    return counter.get_total_flops()


def test_flops_of_an_encoder_that_trains_are_those_that_pytorch_counts():
    config = DistilBertConfig(vocab_size=50, dim=32, n_layers=3, n_heads=4, hidden_dim=64, attn_implementation="eager")
    model = DistilBertModel(config)
    cost = training_cost(model, config, causal=False)
    for tokens in (7, 20):
        assert cost.flops(tokens, tokens**2) == counted(model, tokens)


def test_flops_of_frozen_weights_under_trained_ones():
    shape = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(
        **shape, num_key_value_heads=2, intermediate_size=64, use_cache=False, attn_implementation="eager"
    )
    model = LlamaModel(config)
    model.requires_grad_(False)
    model.embed_tokens.requires_grad_(True)  # the gradient passes all layers, and no weight of theirs has one
    cost = training_cost(model, config, causal=False)
    assert cost.flops(12, 144) == counted(model, 12)
    assert training_cost(model, config, causal=True).per_token_squared == cost.per_token_squared / 2


def test_rates_padding_and_utilisation_over_the_steps_since_the_last_row(sample_csv, tmp_path, monkeypatch, capsys):
    """A clock that every reading moves on by a second: a row reads it once, and so does the first batch."""
    now = 0.0

    def clock():
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(throughput.time, "perf_counter", clock)
    monkeypatch.setattr("genre_lightning.training.callbacks.progress._SECONDS_BETWEEN_LINES", 0.0)
    on_train_start = throughput.Throughput.on_train_start
    costs = []

    def with_a_peak(self, trainer, pl_module):
        on_train_start(self, trainer, pl_module)
        assert self._peak is None  # nobody knows a CPU's
        self._peak = 1e9
        costs.append(pl_module.training_cost())

    monkeypatch.setattr(throughput.Throughput, "on_train_start", with_a_peak)
    seen = []
    original = throughput.GenreClassifier.training_step

    def watched(self, batch, batch_idx):
        lengths = batch["attention_mask"].sum(dim=1)
        seen.append((self.trainer.global_step, lengths, batch["attention_mask"].numel()))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(throughput.GenreClassifier, "training_step", watched)
    run = tmp_path / "run"
    words = ["fit", f"--data.csv={sample_csv}", f"--run_dir={run}", *SMALL]
    words += ["--trainer.max_epochs=1", "--trainer.log_every_n_steps=3", "--checkpoint.every_steps=8"]
    words.append("--model.packing=false")  # which leaves padding to be counted
    monkeypatch.setattr("genre_lightning.training.fit.evaluate_run", lambda *_, **__: {})
    monkeypatch.setattr("genre_lightning.training.fit.finish", lambda *_: None)
    assert main(words) == 0
    with (run / "curves.csv").open(newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file) if row["throughput/films_per_second"]}
    assert list(rows) == [2, 5, 8, 11, 14]
    for step, row in rows.items():
        first = {8: 8}.get(step, step - 2)  # step 7 ended with a checkpoint: the clock starts behind it
        batches = [(lengths, slots) for at, lengths, slots in seen if first <= at <= step]
        lengths = torch.cat([lengths for lengths, _ in batches]).double()
        slots = sum(slots for _, slots in batches)
        assert float(row["throughput/tokens_per_second"]) == lengths.sum()
        assert float(row["throughput/films_per_second"]) == len(lengths)
        assert float(row["throughput/padding"]) == pytest.approx(1 - float(lengths.sum()) / slots)
        flops = costs[0].flops(float(lengths.sum()), float(lengths.square().sum()))
        assert float(row["throughput/mfu"]) == pytest.approx(flops / 1e9)
        assert 0.05 < float(row["memory/host_peak_gib"]) < 100
    assert re.search(r"steps/s  [\d,]+ tokens/s", capsys.readouterr().err)


def test_lengths_of_packed_texts_are_those_of_padded_ones():
    import numpy as np

    from genre_lightning.data.collate import Padding, pack_rows, pad_rows
    from genre_lightning.models.step_sums import text_lengths

    rows = [np.arange(n, dtype=np.int32) for n in (3, 9, 1)]
    packed = {name: torch.from_numpy(value) for name, value in pack_rows(rows).items()}
    _, mask = pad_rows(rows, Padding(0))
    assert (
        text_lengths(packed).tolist() == text_lengths({"attention_mask": torch.from_numpy(mask)}).tolist() == [3, 9, 1]
    )
