"""A model is quantised as it is built: at no time does it stand in memory in full precision."""

import json
import subprocess
import sys

import pytest

BUILD = """
import json, re, sys, torch
import bitsandbytes, peft
from pathlib import Path
import transformers.models.llama.modeling_llama
import numpy as np
from genre_lightning.types import DataSpec
from genre_lightning.models.decoder import LlamaArchitecture
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.quantization import memory_of

def megabytes(field):
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status).group(1)) / 1000

settings, backbone = json.loads(sys.argv[1]), sys.argv[2]
model = LlamaQLoraClassifier(backbone=backbone, architecture=LlamaArchitecture(**settings))
model.runs_on("cpu", "bf16-mixed")
model.bind(DataSpec(tuple("ab"), np.ones(2, np.int64), 2, settings["vocab_size"], 0, 64))
before = megabytes("VmRSS")
model.configure_model()
print(json.dumps({"built": megabytes("VmHWM") - before, "weights": sum(memory_of(model).values()) / 1e6}))
"""


def build(layers, width, inner_width, backbone="random"):
    """Megabytes of the whole process above what it had before it built the model; and of the model."""
    shape = {"layers": layers, "width": width, "heads": 16, "inner_width": inner_width, "vocab_size": 32_000}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, json.dumps(shape), str(backbone)],
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    weights = layers * (4 * width**2 + 3 * width * inner_width) + 32_000 * width
    return json.loads(done.stdout.splitlines()[-1]), weights


@pytest.mark.slow
def test_a_billion_weights_peak_far_below_their_half_precision_size():
    measured, weights = build(20, 2048, 5504)
    assert weights > 1.0e9
    half = 2 * weights / 1e6
    print(f"peak {measured['built']:.0f} MB, weights {measured['weights']:.0f} MB, in fp16 {half:.0f} MB")
    assert measured["built"] < 0.5 * half


@pytest.mark.slow
def test_a_stored_model_is_quantised_as_it_is_read(tmp_path):
    import torch
    from transformers import AutoModel, LlamaConfig

    from genre_lightning.models.quantization import WeightFormat, random_decoder

    config = LlamaConfig(
        vocab_size=32_000, hidden_size=2048, intermediate_size=5504, num_hidden_layers=8, num_attention_heads=16
    )
    plain = random_decoder(AutoModel, config, WeightFormat("none", torch.float16), 0, torch.device("cpu"))
    plain.config._attn_implementation = "sdpa"
    plain.save_pretrained(tmp_path, max_shard_size="200MB")
    del plain
    measured, weights = build(8, 2048, 5504, tmp_path)
    half = 2 * weights / 1e6
    print(f"peak {measured['built']:.0f} MB, weights {measured['weights']:.0f} MB, in fp16 {half:.0f} MB")
    # what one shard maps of its file is counted until it is closed
    assert measured["built"] < 0.8 * half
