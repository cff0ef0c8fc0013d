"""A tokenizer's chat format: a program by whoever made the model, rendered in a process of its own, within limits."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.errors import ConfigError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST_TEMPLATE = 1 << 18
"""Characters; those that are published have at most some ten thousand."""

_LONGEST_PROMPT = 1 << 20
"""Characters."""

_CPU_SECONDS = 5
"""Of the rendering alone, which takes milliseconds."""

_MEMORY = 1 << 30
"""Bytes beyond what the libraries take."""

_WALL_SECONDS = 120
"""For a process that waits instead of computing, and for systems without limits of CPU time."""


def render_chat(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    """Return a user's message in a tokenizer's chat format, up to where the model answers.

    Raises:
        ConfigError: The tokenizer has no such format, or it fails, takes too long or makes too much of the message.
    """
    if not tokenizer.chat_template:
        raise ConfigError("model.chat is true, but the tokenizer has no chat format: leave it out")
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none is the default
        raise _unusable(error) from None
    if not isinstance(template, str) or len(template) > _LONGEST_TEMPLATE:
        raise _unusable(f"it is longer than {_LONGEST_TEMPLATE:,} characters")
    names = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return _render(template, message, json.dumps(names))


@lru_cache(maxsize=8)
def _render(template: str, message: str, names: str) -> str:
    request = {
        "template": template,
        "message": message,
        "names": json.loads(names),
        "longest": _LONGEST_PROMPT,
        "cpu_seconds": _CPU_SECONDS,
        "memory": _MEMORY,
    }
    answer = _answer_of_process(request)
    if "error" in answer:
        raise _unusable(answer["error"])
    return str(answer["prompt"])


def _answer_of_process(request: dict[str, object]) -> dict[str, str]:
    child = Path(__file__).with_name("chat_renderer.py")
    try:
        # -P: the folder of the script is not a place to import from
        done = subprocess.run(
            [sys.executable, "-P", str(child)], input=json.dumps(request).encode(), capture_output=True,
            timeout=_WALL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": "it does not end"}
    if done.returncode < 0:
        return {"error": f"it does not end within {_CPU_SECONDS} s, or takes too much memory"}
    try:
        answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return {"error": last[0] if last else "it gives no answer"}
    return answer


def _unusable(reason: object) -> ConfigError:
    return ConfigError(
        f"the tokenizer's chat format cannot be used ({one_line(reason)[:160]}): set model.chat=false to ask without it"
    )
