"""Which precision is chosen, and which is refused, on machines that are made up here."""

import pytest
import torch

from genre_lightning.distributed import precision
from genre_lightning.distributed.precision import accelerator_of, cpu_has_bf16, resolve_precision
from genre_lightning.errors import ConfigError


@pytest.mark.parametrize(
    ("accelerator", "bf16", "chosen"),
    [("cpu", True, "bf16-mixed"), ("cpu", False, "32-true"), ("cuda", True, "16-mixed"), ("mps", True, "32-true")],
)
def test_auto(monkeypatch, accelerator, bf16, chosen):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: bf16)
    found, reason = resolve_precision("auto", accelerator)
    assert found == chosen
    assert reason


@pytest.mark.parametrize(
    ("given", "meant"),
    [(32, "32-true"), ("32", "32-true"), ("bf16", "bf16-mixed"), (64, "64-true"), ("32-true", "32-true")],
)
def test_short_names(given, meant):
    assert resolve_precision(given, "cpu") == (meant, "as configured")


def test_16_is_mixed_on_a_gpu():
    assert resolve_precision(16, "cuda")[0] == resolve_precision("16-mixed", "cuda")[0] == "16-mixed"


@pytest.mark.parametrize("given", [16, "16", "16-mixed", "16-true", "transformer-engine"])
def test_fp16_is_refused_on_a_cpu(given):
    with pytest.raises(ConfigError, match=r"no fp16 matrix units: set trainer\.precision=bf16-mixed"):
        resolve_precision(given, "cpu")


@pytest.mark.parametrize("given", ["bf16", "bf16-mixed", "bf16-true"])
def test_bf16_is_refused_on_a_gpu_without_it(monkeypatch, given):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    with pytest.raises(ConfigError, match="Old GPU has no bfloat16 units"):
        resolve_precision(given, "cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolve_precision(given, "cuda")[0].startswith("bf16")


def test_bf16_of_a_cpu(monkeypatch):
    for names, has in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda names=names: names)
        assert cpu_has_bf16() is has


@pytest.mark.parametrize(
    ("name", "cuda", "mps", "found"),
    [
        ("auto", False, False, "cpu"),
        ("auto", True, False, "cuda"),
        ("auto", False, True, "mps"),
        ("gpu", True, True, "cuda"),
        ("gpu", False, True, "mps"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, False, "cuda"),
    ],
)
def test_accelerators(monkeypatch, name, cuda, mps, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert accelerator_of(name) == found


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"trainer\.accelerator is {name}, .*cpu or auto"):
        accelerator_of(name)
