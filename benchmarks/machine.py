"""What a benchmark was measured on, in words."""

import os
import platform
import sys
from pathlib import Path
from typing import Any


def processor() -> str:
    """Return the processor's model; with its family if the name of the model does not distinguish them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.processor() or platform.machine())
    if any(letter.isdigit() for letter in name) or "cpu family" not in facts:
        return name
    return f"{name} (family {facts['cpu family']}, model {facts['model']})"


def machine(device: str) -> dict[str, Any]:
    """Return the machine of a measurement.

    Args:
        device: "cpu" or "cuda".
    """
    import torch
    import transformers

    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
