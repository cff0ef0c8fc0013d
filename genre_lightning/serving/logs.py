"""The log of the service: one JSON object per line on the error stream, without texts and tokens."""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from genre_lightning.escapes import json_line


def log(event: str, **fields: Any) -> None:
    """Write a line."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json_line({"time": now, "event": event, **fields}), file=sys.stderr, flush=True)


def failure(error: BaseException) -> dict[str, Any]:
    """Describe an error without its message, which may hold a text."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]}
