"""Which precision a machine can train in, and which one to choose."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from genre_lightning.errors import ConfigError, one_line

AUTO = "auto"

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What linear layers compute in, by precision."""


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices natively (AVX-512 BF16 or AMX)."""
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def check_trained_precision(precision: str) -> None:
    """Refuse a precision that would keep the weights in other than 32 bits.

    In half precision AdamW's small updates are rounded away; in double, a step takes twice the time and memory for
    digits that no metric shows.

    Raises:
        ConfigError: With one to use.
    """
    if precision in ("bf16-true", "16-true", "64-true"):
        bits = "64 bits" if precision.startswith("64") else "half precision"
        instead = "32-true" if precision.startswith("64") else precision.replace("true", "mixed")
        raise ConfigError(
            f"trainer.precision is {precision}, which would keep trained weights in {bits}: "
            f"set trainer.precision={instead}"
        )


def resolve_precision(precision: str | int, accelerator: str, *, here: bool = True) -> tuple[str, str]:
    """Return the precision to train in and the reason, as a clause to print.

    Args:
        precision: As configured; "auto" chooses.
        accelerator: "cpu", "cuda" or another of Lightning's names.
        here: Whether it is this machine's; another's is not asked what it can compute.

    Raises:
        ConfigError: The machine cannot compute in that precision.
    """
    wanted = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}.get(
        str(precision), str(precision)
    )
    if wanted == AUTO:
        if accelerator == "cuda":
            return "16-mixed", "fp16 with a loss scaler, on CUDA"
        if accelerator == "cpu" and cpu_has_bf16():
            return "bf16-mixed", "this CPU multiplies bfloat16 natively"
        return "32-true", f"no half precision is fast on this {accelerator}"
    if accelerator == "cpu" and wanted.startswith(("16-", "transformer-engine")):
        raise ConfigError(
            f"trainer.precision is {precision} on a CPU, which has no fp16 matrix units: "
            "set trainer.precision=bf16-mixed or auto"
        )
    if (
        here
        and accelerator == "cuda"
        and wanted.startswith("bf16")
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ConfigError(
            f"trainer.precision is {precision}, but {torch.cuda.get_device_name()} has no bfloat16 units: "
            "set trainer.precision=16-mixed or auto"
        )
    return wanted, "as configured"


def device_named(name: str) -> torch.device:
    """Return a device of this machine.

    Raises:
        ConfigError: It is not there.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = one_line(str(error).splitlines()[0])[:120]
        raise ConfigError(f"device {name!r} is not there ({reason}): name cpu, cuda, cuda:1 or mps") from None
    return device


def accelerator_of(name: str) -> str:
    """Return the accelerator that Lightning's name stands for on this machine.

    Raises:
        ConfigError: One that the machine does not have.
    """
    if name in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
        if name == "gpu":
            raise ConfigError("trainer.accelerator is gpu, but no GPU is visible: set trainer.accelerator=cpu or auto")
        return "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator is cuda, but no CUDA GPU is visible: set trainer.accelerator=cpu or auto"
        )
    if name not in ("cpu", "cuda") and not (name == "mps" and torch.backends.mps.is_available()):
        raise ConfigError(f"trainer.accelerator is {name}, which this machine does not have: set cpu, gpu or auto")
    return name


def inference_precision(precision: str, accelerator: str) -> str:
    """Return the precision to use a model in that was trained in `precision`: 32 bits if the machine lacks it."""
    try:
        return resolve_precision(precision, accelerator)[0]
    except ConfigError:
        return "32-true"


def inference_autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that a trainer of that precision would compute predictions in."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=dtype) if dtype else nullcontext()


def cast_linear_weights(module: nn.Module, precision: str) -> None:
    """Cast the weights of linear layers for good to what autocast would cast them to for each batch.

    Results under autocast stay equal to the bit. A model with such weights is not to be trained.

    Args:
        module: In float32; only layers that are `nn.Linear` itself change.
        precision: Such as "bf16-mixed"; one without autocast, such as "32-true", leaves all weights as they are.
    """
    if dtype := _AUTOCAST.get(precision):
        for layer in module.modules():
            if type(layer) is nn.Linear:
                layer.requires_grad_(requires_grad=False).to(dtype)
