"""The memory of a plan against the largest memory of tensors in real training steps of `fit`, on the CPU."""

import json

import pytest
from peaks import measured_peak
from ranks import run_on_ranks

from genre_lightning.__main__ import main
from genre_lightning.planning.probe import CpuSpeed

WITHIN = 0.15
BF16, FP32 = "--trainer.precision=bf16-mixed", "--trainer.precision=32-true"
SMALL = ["--model.backbone=small", "--model.architecture={layers: 3, width: 192, heads: 4, inner_width: 768}"]
LLAMA = [
    "--model.class_path=genre_lightning.models.llama_qlora.LlamaQLoraClassifier",
    "--model.backbone=random",
    "--model.architecture={layers: 3, width: 128, heads: 4, inner_width: 344}",
    "--data.tokenizer=wordpiece",
]
LONG, SHORT = "--data.micro_batch_tokens=4096", "--data.micro_batch_tokens=600"


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch):
    """A plan on a CPU measures the time too, which is not looked at here."""
    monkeypatch.setattr("genre_lightning.planning.plan.measure_cpu", lambda *_, **options: CpuSpeed(1.0, 1.0, 1, 1.0))


def words_of(csv, tmp_path, *more):
    return [
        f"--data.csv={csv}", f"--run_dir={tmp_path / 'run'}", "--trainer.accelerator=cpu", "--data.vocab_size=1000",
        "--data.global_batch_size=32", "--trainer.max_epochs=1", "--trainer.max_steps=3", *more,
    ]  # fmt: skip


def planned(capsys, words, devices=1):
    capsys.readouterr()
    assert main(["plan", *words, f"--devices={devices}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    return facts["memory"][facts["machine"]["strategy"]]["tensors"], facts


def lora_encoder(tmp_path):
    """A DistilBERT of a few layers in a directory, as LoRA adapts pretrained weights only."""
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=1000, dim=192, n_layers=3, n_heads=4, hidden_dim=768, max_position_embeddings=256
    )
    folder = tmp_path / "encoder"
    DistilBertModel(config).save_pretrained(folder)
    return [f"--model.backbone={folder}", "--data.tokenizer=wordpiece", "--model.lora.rank=8"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([*SMALL, FP32, LONG], id="encoder"),
        pytest.param([*SMALL, FP32, SHORT, "--model.dropout=0"], id="encoder-accumulated", marks=pytest.mark.slow),
        pytest.param([*SMALL, BF16, LONG], id="encoder-bf16", marks=pytest.mark.thorough),
        pytest.param(
            [*SMALL, BF16, LONG, "--model.activation_checkpointing=true"],
            id="encoder-checkpointed",
            marks=pytest.mark.slow,
        ),
        pytest.param([*LLAMA, FP32, LONG, "--model.quantization=none"], id="llama"),
        pytest.param([*LLAMA, BF16, LONG], id="llama-nf4-bf16", marks=pytest.mark.slow),
        pytest.param(
            [*LLAMA, FP32, LONG, "--model.quantization=none", "--model.unfreeze=2"],
            id="llama-unfrozen",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [*LLAMA, FP32, LONG, "--model.quantization=none", "--model.unfreeze=0"],
            id="llama-norms",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            [*LLAMA, BF16, LONG, "--model.quantization=none", "--model.unfreeze=2"],
            id="llama-unfrozen-bf16",
            marks=pytest.mark.thorough,
        ),
        pytest.param([*LLAMA, BF16, SHORT, "--model.packing=false"], id="llama-nf4-padded", marks=pytest.mark.thorough),
        pytest.param(
            [*LLAMA, FP32, LONG, "--model.activation_checkpointing=true"],
            id="llama-nf4-checkpointed",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_step_takes_what_was_planned(options, sample_csv, tmp_path, capsys):
    words = words_of(sample_csv, tmp_path, *options)
    size, _ = planned(capsys, words)
    peak = measured_peak(words)
    print(f"planned {size / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB: {size / peak - 1:+.1%}")
    assert size == pytest.approx(peak, rel=WITHIN)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([FP32], id="adapters"),
        pytest.param([BF16], id="adapters-bf16", marks=pytest.mark.thorough),
        pytest.param([FP32, "--model.unfreeze=2"], id="unfrozen"),
        pytest.param([BF16, "--model.unfreeze=2"], id="unfrozen-bf16", marks=pytest.mark.thorough),
        pytest.param(
            [FP32, "--model.unfreeze=1", "--model.activation_checkpointing=true"],
            id="unfrozen-checkpointed",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_adapters_of_an_encoder(options, sample_csv, tmp_path, capsys):
    words = words_of(sample_csv, tmp_path, *lora_encoder(tmp_path), *options, LONG)
    size, _ = planned(capsys, words)
    peak = measured_peak(words)
    print(f"planned {size / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB: {size / peak - 1:+.1%}")
    assert size == pytest.approx(peak, rel=WITHIN)


def _measured_on_rank(rank, words, folder):
    import os

    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    # as torchrun tells them
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": "0",
                   "GROUP_WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # fmt: skip
    rank_zero_only.rank = rank
    (folder / f"peak-{rank}").write_text(str(measured_peak(words)))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([*SMALL, FP32, SHORT, "--trainer.strategy=ddp"], id="ddp-accumulated"),
        pytest.param([*SMALL, FP32, SHORT, "--trainer.strategy=fsdp"], id="fsdp-accumulated"),
        pytest.param([*LLAMA, BF16, LONG, "--trainer.strategy=fsdp"], id="fsdp-nf4"),
    ],
)
def test_the_larger_of_two_ranks_takes_what_was_planned(options, sample_csv, tmp_path, capsys):
    words = words_of(sample_csv, tmp_path, *options)
    size, facts = planned(capsys, words, devices=2)
    assert set(facts["memory"]) == {"ddp", "fsdp"}
    run_on_ranks(_measured_on_rank, 2, words, tmp_path)
    peaks = [int((tmp_path / f"peak-{rank}").read_text()) for rank in (0, 1)]
    print(f"planned {size / 1e6:.1f} MB, measured {max(peaks) / 1e6:.1f} MB: {size / max(peaks) - 1:+.1%}")
    assert size == pytest.approx(max(peaks), rel=WITHIN)


@pytest.mark.real_data
@pytest.mark.real_model
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([FP32], id="full"),
        pytest.param([BF16, "--model.lora.rank=16"], id="lora", marks=pytest.mark.thorough),
    ],
)
def test_a_real_encoder_on_the_real_file(options, movies_csv, encoder_dir, tmp_path, capsys):
    words = words_of(
        movies_csv, tmp_path, f"--model.backbone={encoder_dir}", "--data.micro_batch_tokens=2048", *options
    )
    size, _ = planned(capsys, words)
    peak = measured_peak(words)
    print(f"planned {size / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB: {size / peak - 1:+.1%}")
    assert size == pytest.approx(peak, rel=WITHIN)


@pytest.mark.real_data
@pytest.mark.real_model
def test_a_real_llama_on_the_real_file(movies_csv, llama_tiny, tmp_path, capsys):
    backbone = [LLAMA[0], f"--model.backbone={llama_tiny}", "--model.quantization=none", BF16]
    texts = ["--data.tokenizer=wordpiece", "--data.vocab_size=500", "--data.micro_batch_tokens=2048"]
    words = words_of(movies_csv, tmp_path, *backbone, *texts)
    size, _ = planned(capsys, words)
    peak = measured_peak(words)
    print(f"planned {size / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB: {size / peak - 1:+.1%}")
    assert size == pytest.approx(peak, rel=WITHIN)
