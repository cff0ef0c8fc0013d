"""What makes a run and its metrics: version, commit, date, host and device."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning import __version__
from genre_lightning.shapes import Shape, count, maybe_number, maybe_text, number, text

if TYPE_CHECKING:
    import torch

_PACKAGE = Path(__file__).parent


def _maybe_number_or_text(value: Any) -> bool:
    """Check for a number, a text, or null."""
    return maybe_number(value) or text(value)


MADE_BY: Shape = {
    "version": text, "git_commit?": text, "date": text, "host": text, "device": text, "*": maybe_text,
}  # fmt: skip
"""Of what `made_by` returns."""
TRAINING: Shape = {
    "version?": text, "git_commit?": text, "date?": text, "host?": text, "device?": text,
    "parent_run?": text, "parent_checkpoint_sha256?": text, "chosen?": text, "overridden?": text,
    "learning_rate?": number, "head_learning_rate?": number, "best_epoch?": count, "best_step?": count,
    "*": _maybe_number_or_text,
}  # fmt: skip
"""Of what a training has settled and what made it, in run_state.json and metrics.json."""


def made_by(device: str) -> dict[str, str | None]:
    """Name what makes metrics here and now: version, git_commit, date (UTC), host and device.

    Args:
        device: Device that computes them, as `device_name` names it.
    """
    return {
        "version": __version__,
        "git_commit": git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "device": device,
    }


def device_name(device: torch.device | None = None) -> str:
    """Name a device and its model, such as "cuda: NVIDIA H100"; None is the CPU."""
    if device is not None and device.type == "cuda":
        import torch

        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type if device else 'cpu'}: {_cpu_name()}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """Return the commit of the checkout that this package is part of, or else of the working directory's.

    Returns:
        40 or 64 hex digits; None outside of checkouts. Of the package's own checkout, "-dirty" follows them if tracked
        files have changed.
    """
    # to look for changes, git runs programs (fsmonitor, filters) that the configuration of the checkout names
    return own_commit() or _git(Path.cwd(), "rev-parse", "--verify", "--quiet", "HEAD")


def own_commit() -> str | None:
    """Return the commit of the checkout that this package is part of; None if it was installed from a wheel."""
    # a package that was installed below some repository is not part of it
    if _git(_PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(_PACKAGE, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
