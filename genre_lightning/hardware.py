"""What a machine has: CPUs of a process; FLOPs a second and memory of NVIDIA's GPUs, by their data sheets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from genre_lightning.errors import ConfigError

Precision = Literal["fp16", "bf16", "fp32"]

# By the device's name as CUDA has it: 10^12 operations a second of the tensor cores in fp16 or bf16 with sums in fp32,
# then of fp32 matmuls, which go through TF32 if there is one (torch.set_float32_matmul_precision("high")). Data
# sheets of Ampere and later head their columns with numbers "with sparsity", which are twice these. Then the sizes that
# it comes in, in GB.
_TERA: tuple[tuple[str, float, float, tuple[int, ...]], ...] = (
    ("B200", 2250, 1125, (180,)),  # HGX B200 data sheet: 4.5 and 2.25 PFLOPS with sparsity
    ("H200 NVL", 835.5, 417.5, (141,)),  # H200 data sheet: 1,671 and 835 with sparsity
    ("H200", 989.5, 494.5, (141,)),  # 1,979 and 989 with sparsity
    ("GH200", 989.5, 494.5, (96, 144)),
    ("H100 NVL", 835.5, 417.5, (94,)),  # H100 data sheet
    ("H100 PCIe", 756, 378, (80,)),
    ("H100", 989.5, 494.5, (80,)),  # SXM5: "NVIDIA H100 80GB HBM3"
    ("A100", 312, 156, (40, 80)),  # SXM4 and PCIe alike
    ("A40", 149.7, 74.8, (48,)),
    ("A30", 165, 82, (24,)),
    ("A10G", 70, 35, (24,)),
    ("A10", 125, 62.5, (24,)),
    ("L40S", 362, 183, (48,)),
    ("L40", 181, 90.5, (48,)),
    ("L4", 121, 60, (24,)),
    ("RTX 6000 Ada Generation", 364.2, 182.1, (48,)),
    ("RTX A6000", 154.8, 77.4, (48,)),
    ("RTX 4090", 165.2, 82.6, (24,)),  # Ada white paper, appendix A, sums in fp32
    ("RTX 3090", 71.2, 35.6, (24,)),  # GA102 white paper, sums in fp32
    ("V100S", 130, 16.4, (32,)),  # no TF32 and no bf16 before Ampere
    ("V100-PCIE", 112, 14, (16, 32)),
    ("V100", 125, 15.7, (16, 32)),
    ("T4", 65, 8.1, (16,)),
)

_WITHOUT_BF16 = ("V100", "V100S", "V100-PCIE", "T4")


def usable_cpus() -> int:
    """Return how many CPUs this process may use; all of the machine, if the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def dense_peak(device: str, precision: Precision) -> float | None:
    """Return the device's dense peak in FLOPs a second; None if it is not known.

    Args:
        device: `torch.cuda.get_device_name()`, such as "NVIDIA H100 80GB HBM3".
        precision: Precision of the matmuls.
    """
    words = f" {device.replace('-', ' ')} "
    known = [row for row in _TERA if f" {row[0].replace('-', ' ')} " in words]
    if not known:
        return None
    name, half, single, _ = max(known, key=lambda row: len(row[0]))
    if precision == "bf16" and name in _WITHOUT_BF16:
        return None
    return 1e12 * (single if precision == "fp32" else half)


@dataclass(frozen=True)
class Gpu:
    """A GPU by the name of a plan.

    Attributes:
        name: Name of the GPU, such as "h100-80gb".
        device: Its name in the table of peaks.
        memory: Bytes; the data sheet's gigabytes of 10^9, of which CUDA shows about as many or a few percent more.
    """

    name: str
    device: str
    memory: int


def known_gpus() -> dict[str, Gpu]:
    """Return all GPUs of the table, each in each of its sizes, by name."""
    found = {}
    for device, _, _, sizes in _TERA:
        for size in sizes:
            name = f"{device.lower().replace(' generation', '').replace(' ', '-')}-{size}gb"
            found[name] = Gpu(name, device, size * 10**9)
    return found


def gpu_named(name: str) -> Gpu:
    """Return the GPU of a name, with or without its size if it comes in one only.

    Raises:
        ConfigError: Unknown, with the names that are known.
    """
    gpus = known_gpus()
    wanted = name.lower()
    alike = [gpu for full, gpu in gpus.items() if full == wanted or full.rpartition("-")[0] == wanted]
    if len(alike) != 1:
        raise ConfigError(f"--gpu {name} is not known: give one of {', '.join(gpus)}")
    return alike[0]
