"""A run as an ONNX model, compared with torch in what it gives and how long it takes."""

from __future__ import annotations

import importlib.util
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genre_lightning.errors import CheckpointError, ConfigError, one_line
from genre_lightning.export.source import PlainTagger

FILE = "model.onnx"
TOLERANCE = 1e-4
"""Largest difference of a logit from torch's, both in float32."""

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_LARGEST_FILE = 1 << 30
"""Bytes of weights from which they lie beside the model: one file of ONNX holds less than 2 GiB."""
_REPEATS = 15


@dataclass(frozen=True)
class OnnxCheck:
    """How an ONNX model stands beside torch.

    Attributes:
        difference: Largest absolute difference of a logit.
        tokens: Number of tokens of the text that was timed.
        threads: Number of threads that both ran on.
        onnx_ms: Median milliseconds of that text.
        torch_ms: Median milliseconds of the same text in torch.
    """

    difference: float
    tokens: int
    threads: int
    onnx_ms: float
    torch_ms: float


def check_onnx_installed() -> None:
    """Raise an error if the optional libraries are missing.

    Raises:
        ConfigError: A library is missing; the message names the fix.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"--onnx needs {', '.join(missing)}: run 'pip install {' '.join(missing)}', or leave --onnx out"
        )


def write_onnx(tagger: PlainTagger, folder: Path, batches: list[dict[str, Tensor]]) -> OnnxCheck:
    """Write a model for any number of texts of any length, and compare it with torch.

    Args:
        tagger: Model in float32; its outputs are calibrated logits.
        folder: Folder that holds model.onnx.
        batches: Batches of different shapes to compare on; the first, of one text, is timed. Their tensors come in
            the order of the tagger's arguments, and have the names of the model's inputs.

    Raises:
        CheckpointError: Onnxruntime cannot run it, or its logits differ.
    """
    tagger = tagger.float().eval()
    folder.mkdir(parents=True, exist_ok=True)
    large = sum(p.numel() * p.element_size() for p in tagger.parameters()) > _LARGEST_FILE
    try:
        _export(tagger, batches[-1]).save(str(folder / FILE), external_data=large)
        return _compare(tagger, folder / FILE, batches)
    except (OSError, CheckpointError):
        raise
    except Exception as error:  # exporter and runtime raise kinds of their own
        raise CheckpointError(f"no ONNX model came of it ({one_line(error)[:200]}): leave --onnx out") from error


def _export(tagger: PlainTagger, batch: dict[str, Tensor]) -> torch.onnx.ONNXProgram:
    texts, tokens = torch.export.Dim("texts", min=1), torch.export.Dim("tokens", min=1)
    shape = {0: texts, 1: tokens}
    names, tensors = list(batch), list(batch.values())
    values = tuple(
        # numbers of names have an axis of any length, unless there is one name at most
        {0: texts, 1: torch.export.Dim(f"names_{place}", min=1)} if not t.is_floating_point() and t.shape[1] > 1
        else {0: texts}
        for place, t in enumerate(tensors[2:])
    )  # fmt: skip
    exporter = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = exporter.level
    with warnings.catch_warnings():
        # one axis has two names, and the exporter's own use of torch's pytree
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)  # torchvision, which nothing here needs, is not installed
        try:
            program = torch.onnx.export(
                tagger,
                tuple(tensors),
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes={"input_ids": shape, "attention_mask": shape} | ({"values": values} if values else {}),
                verbose=False,
            )
        finally:
            exporter.setLevel(level)
    assert program is not None
    return program


def _compare(tagger: PlainTagger, file: Path, batches: list[dict[str, Tensor]]) -> OnnxCheck:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def by_onnx(batch: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {name: values.numpy() for name, values in batch.items()})[0])

    with torch.inference_mode():
        found = max(float((by_onnx(batch) - tagger(*batch.values())).abs().max()) for batch in batches)
        if not found <= TOLERANCE:
            raise CheckpointError(f"the ONNX model's logits differ from torch's by {found:.1e}: leave --onnx out")
        one = batches[0]
        onnx_ms, torch_ms = _milliseconds(lambda: by_onnx(one)), _milliseconds(lambda: tagger(*one.values()))
    return OnnxCheck(found, one["input_ids"].shape[1], torch.get_num_threads(), onnx_ms, torch_ms)


def _milliseconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(3 + _REPEATS):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[3:])  # the first ones warm up
