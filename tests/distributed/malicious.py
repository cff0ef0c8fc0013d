"""An object whose pickle does something when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class Malicious:
    """Makes a file where it is unpickled.

    Args:
        path: Path of the file, the proof that code ran.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return (open, (str(self.path), "w"))
