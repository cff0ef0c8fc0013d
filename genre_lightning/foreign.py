"""The small files of a model from elsewhere, read as plain values and within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genre_lightning.errors import ConfigError, one_line
from genre_lightning.node import once_on_node

HOW_TO_GET = (
    "name a local directory that holds config.json, model.safetensors and the tokenizer's files, or, on a machine "
    "with network, run 'hf download {name}' once (log in first with 'hf auth login' if the model asks for its "
    "licence to be accepted)"
)

_LARGEST_FILE = 16 << 20
"""Bytes of a configuration; the largest that are published have some hundred kilobytes."""


def model_file(name: str, file: str, revision: str | None, *, fetch: bool = True) -> Path | None:
    """Return the path of a file of a local directory or of a model of the hub; None if the model lacks it.

    The hub is asked by one rank of each node: a thousand at once would meet its rate limit.

    Args:
        name: Local directory or model of the hub.
        file: Name of the file in it.
        revision: Commit or tag on the hub.
        fetch: Whether a file of the hub that is not in the local cache is fetched.

    Raises:
        ConfigError: It cannot be fetched.
    """
    from transformers.utils import cached_file

    def find() -> str:
        # a local directory is not asked for more than regular files: a pipe or a device would block, or never end
        found = cached_file(
            name, file, revision=revision, local_files_only=not fetch, _raise_exceptions_for_missing_entries=False
        )
        return found or ""

    asks = fetch and not Path(name).is_dir()
    try:
        found = once_on_node(f"hub {name} {revision} {file}", find) if asks else find()
    except Exception as error:  # a dozen kinds, by what is missing
        if not fetch:
            return None
        raise ConfigError(
            f"{file} of {name!r} cannot be fetched ({one_line(error)[:160]}): {HOW_TO_GET.format(name=name)}"
        ) from None
    return Path(found) if found else None


def read_object(path: Path, most_bytes: int = _LARGEST_FILE) -> dict[str, Any]:
    """Return the JSON object that a file of at most n bytes holds.

    Raises:
        ConfigError: The file is unreadable, larger than any configuration, or holds something else.
    """
    try:
        if (size := path.stat().st_size) > most_bytes:
            raise ValueError(f"{size:,} bytes are too many")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({one_line(error)[:120]}): download the model again") from None
    return content


def check_folder(name: str, *, weights: bool = True) -> None:
    """Check a backbone in a local directory without reading it; nothing is known of one of the hub.

    Args:
        name: Model of the hub or local directory.
        weights: Whether the weights are needed too.

    Raises:
        ConfigError: A path without a directory, or a directory without a model.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model.backbone {name} has no config.json: {HOW_TO_GET.format(name='NAME')}")
        if weights and (path / "adapter_config.json").exists():
            raise ConfigError(
                f"model.backbone {name} holds an adapter, adapter_config.json, which would be left out: merge it into "
                "the model with peft's merge_and_unload and save that, or remove the file"
            )
        if weights and not any(path.glob("*.safetensors")):
            raise ConfigError(
                f"model.backbone {name} has no .safetensors weights (other formats can run code and are not read): "
                "save the model again with save_pretrained"
            )
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"model.backbone {name} is not a directory: {HOW_TO_GET.format(name='NAME')}")
