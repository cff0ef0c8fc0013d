"""Whole trainers on a pretended GPU: no step waits for it, and nothing is on the wrong device."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "tools" / "gpu" / "fake"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="the pretended GPU is built by g++"),
    # it stands in for private parts of torch
    pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the pretended GPU is of torch 2.13"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="the pretended GPU takes the place of a real one"),
]

ENCODER = ["--suite=encoder", "--small", "--steps=12"]
LLAMA = ["--suite=llama", "--model.quantization=none", "--steps=12"]
OFFLOAD = (
    "--trainer.strategy={class_path: genre_lightning.distributed.sharded.ShardedStrategy, "
    "init_args: {cpu_offload: true}}"
)
# arguments, and collectives on the GPU in a step besides those of weights and gradients: the sums of the step, and
# under FSDP the norm of the gradient
STEPS = {
    "encoder": (ENCODER, 0),
    "encoder, LoRA": ([*ENCODER, "--model.lora.rank=8"], 0),
    "encoder, padded": ([*ENCODER, "--model.packing=false"], 0),
    "encoder, bf16-mixed": ([*ENCODER, "--trainer.precision=bf16-mixed"], 0),
    "encoder, 32-true": ([*ENCODER, "--trainer.precision=32-true"], 0),
    "encoder, checkpointing": ([*ENCODER, "--model.activation_checkpointing=true"], 0),
    "encoder, DDP": ([*ENCODER, "--strategy=ddp"], 1),
    "encoder, FSDP": ([*ENCODER, "--strategy=fsdp"], 2),
    "encoder, FSDP on 64 ranks": ([*ENCODER, "--strategy=fsdp", "--world=64"], 2),
    "Llama, 3 micro-batches": ([*LLAMA, "--data.micro_batch_tokens=4096"], 0),
    "Llama, DDP": ([*LLAMA, "--strategy=ddp"], 1),
    "Llama, FSDP": ([*LLAMA, "--strategy=fsdp"], 2),
    "Llama, FSDP on 64 ranks": ([*LLAMA, "--strategy=fsdp", "--world=64"], 2),
}
# waits of a batch: its rows of weight 0 are left out, and what `predict` gives goes to the host
EVALUATIONS = {
    "encoder, validate": ([*ENCODER, "--task=validate"], 3),
    "encoder, predict": ([*ENCODER, "--task=predict"], 4),
    "Llama, predict": ([*LLAMA, "--task=predict"], 4),
}


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """Does a run on the pretended GPU; imports are done once for all."""
    environment = {
        **os.environ,
        "FAKE_CUDA_FOLDER": str(tmp_path_factory.mktemp("fake_cuda")),
        "PYTHONPATH": str(FOLDER.parents[2]),
    }
    command = [sys.executable, str(FOLDER / "fake_gpu.py"), "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def run(*arguments):
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
            lines = []
            for line in process.stdout:
                if found := re.fullmatch(r"status (-?\d+)\n", line):
                    assert found[1] == "0", "".join(lines)[-4000:]
                    return "".join(lines)
                lines.append(line)
            raise AssertionError("".join(lines)[-4000:])

        yield run
        process.stdin.close()


@pytest.mark.parametrize("case", STEPS)
def test_no_step_waits_for_the_gpu(gpu, case):
    arguments, collectives = STEPS[case]
    # new weights are drawn on the host: else it fails too
    said = gpu(*arguments, "--waits=0", f"--collectives={collectives}")
    assert "most waits of a step that is not logged: 0" in said


def test_offloaded_shards_step_on_the_host(gpu):
    # each copy of a shard counts as a wait here, if no memory is really pinned
    said = gpu(*ENCODER, "--strategy=fsdp", OFFLOAD, "--waits=80", "--collectives=1")
    assert ".item()" not in said.partition("step 3:")[2].partition("step 10:")[0]


@pytest.mark.parametrize("case", EVALUATIONS)
def test_evaluations_wait_for_what_they_give_back(gpu, case):
    arguments, waits = EVALUATIONS[case]
    assert "most waits of a batch" in gpu(*arguments, f"--waits={waits}")
