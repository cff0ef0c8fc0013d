"""Which commit of which code a run is made with."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).parent


def git_commit() -> str | None:
    """The commit of the checkout that this package is part of, or else of the working directory's.

    Returns:
        40 hex digits, with "-dirty" behind them where tracked files have changed; None outside of checkouts.
    """
    # a package that was installed below some repository is no part of it
    ours = _git(_PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is not None
    return _git(_PACKAGE if ours else Path.cwd(), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
