"""What NVIDIA's GPUs can do at most: dense matrix products a second, as their data sheets have it."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp16", "bf16", "fp32"]

# By the device's name as CUDA has it: 10^12 operations a second of the tensor cores in fp16 or bf16 with sums in fp32,
# then of fp32 products, which go through TF32 where there is one (torch.set_float32_matmul_precision("high")). Data
# sheets of Ampere and later head their columns with figures "with sparsity", which are twice these.
_TERA: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250, 1125),  # HGX B200 data sheet: 4.5 and 2.25 PFLOPS with sparsity
    ("H200 NVL", 835.5, 417.5),  # H200 data sheet: 1,671 and 835 with sparsity
    ("H200", 989.5, 494.5),  # 1,979 and 989 with sparsity
    ("GH200", 989.5, 494.5),
    ("H100 NVL", 835.5, 417.5),  # H100 data sheet
    ("H100 PCIe", 756, 378),
    ("H100", 989.5, 494.5),  # SXM5: "NVIDIA H100 80GB HBM3"
    ("A100", 312, 156),  # SXM4 and PCIe alike
    ("A40", 149.7, 74.8),
    ("A30", 165, 82),
    ("A10G", 70, 35),
    ("A10", 125, 62.5),
    ("L40S", 362, 183),
    ("L40", 181, 90.5),
    ("L4", 121, 60),
    ("RTX 6000 Ada Generation", 364.2, 182.1),
    ("RTX A6000", 154.8, 77.4),
    ("RTX 4090", 165.2, 82.6),  # Ada white paper, appendix A, sums in fp32
    ("RTX 3090", 71.2, 35.6),  # GA102 white paper, sums in fp32
    ("V100S", 130, 16.4),  # no TF32 and no bf16 before Ampere
    ("V100-PCIE", 112, 14),
    ("V100", 125, 15.7),
    ("T4", 65, 8.1),
)

_WITHOUT_BF16 = ("V100", "V100S", "V100-PCIE", "T4")


def dense_peak(device: str, precision: Precision) -> float | None:
    """The device's dense peak in FLOPs a second; None where it is not known.

    Args:
        device: `torch.cuda.get_device_name()`, such as "NVIDIA H100 80GB HBM3".
        precision: of the matrix products.
    """
    words = f" {device.replace('-', ' ')} "
    known = [row for row in _TERA if f" {row[0].replace('-', ' ')} " in words]
    if not known:
        return None
    name, half, single = max(known, key=lambda row: len(row[0]))
    if precision == "bf16" and name in _WITHOUT_BF16:
        return None
    return 1e12 * (single if precision == "fp32" else half)
