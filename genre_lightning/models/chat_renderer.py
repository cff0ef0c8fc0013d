"""The process that renders a chat format: `chat_format` starts it, and it limits itself before it runs the template."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any


def limit(cpu_seconds: int, memory: int) -> None:
    """Limit this process to further seconds of CPU time and bytes of memory, if the system can."""
    try:
        import resource
    except ImportError:  # Windows has a limit of time alone, kept by the process that waits
        return
    # what a limit of CPU time counts includes the imports before
    until = math.ceil(time.process_time()) + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, until + 1))
    with contextlib.suppress(OSError, ValueError):  # elsewhere than on Linux, what is used now is not known
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def answer(request: dict[str, Any]) -> dict[str, str]:
    """Return the "prompt" that a template makes of a message, or the "error"; this process is limited from then on."""
    from transformers.utils.chat_template_utils import render_jinja_template

    limit(cpu_seconds=request["cpu_seconds"], memory=request["memory"])
    conversation = [{"role": "user", "content": request["message"]}]
    try:
        rendered: Any = render_jinja_template(
            [conversation], chat_template=request["template"], add_generation_prompt=True, **request["names"]
        )
        prompt = rendered[0][0]
        if len(prompt) > request["longest"]:
            return {"error": f"it makes {len(prompt):,} characters of a short message"}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:  # whatever the template does
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {"prompt": prompt}


if __name__ == "__main__":
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is not an answer
    answers.write(f"{json.dumps(answer(json.loads(sys.stdin.buffer.read())))}\n")
