"""Which weights a frozen base has: adapters are worth nothing over others."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError, ConfigError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def weight_files(name: str, revision: str | None) -> list[Path]:
    """The safetensors files of a local directory, or of the hub's copy on this machine; empty where there is none."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):
            return []
    return sorted(folder.glob("*.safetensors"))


def weights_digest(files: list[Path], cache_dir: Path | None = None) -> str:
    """SHA-256 over the names and digests of weight files.

    A file's digest is kept in the cache under its path, size and time of change, so that gigabytes are read once.

    Raises:
        ConfigError: a file cannot be read.
    """
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {_file_digest(file, cache_dir)}\n".encode())
    return whole.hexdigest()


def _file_digest(file: Path, cache_dir: Path | None) -> str:
    target = file.resolve()
    # the hub's client names large files by their SHA-256, and checks it when it fetches them
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    try:
        state = target.stat()
        key = hashlib.sha256(f"{target}|{state.st_size}|{state.st_mtime_ns}".encode()).hexdigest()
        note = (cache_dir or _default_cache()) / "weights" / f"{key}.json"
        if note.is_file() and _SHA256.fullmatch(
            digest := json.loads(note.read_text(encoding="utf-8")).get("sha256", "")
        ):
            return digest
        with target.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): mend its permissions, or fetch the model again") from None
    _remember(note, digest)
    return digest


def _remember(note: Path, digest: str) -> None:
    draft = note.with_name(f".{note.name}.{os.getpid()}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"sha256": digest}), encoding="utf-8")
        draft.replace(note)
    except OSError:
        draft.unlink(missing_ok=True)  # without a cache the file is read again the next time


def _default_cache() -> Path:
    root = os.environ.get("GENRE_LIGHTNING_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "genre_lightning"


def check_same_base(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuses a checkpoint whose adapters were trained over other frozen weights.

    Args:
        theirs: the base of the checkpoint, as `LlamaQLoraClassifier.base_facts` gives it.
        ours: that of the model.

    Raises:
        CheckpointError: naming what differs.
    """
    for name, cure in (
        ("sha256", "name the base that it was trained on with model.backbone and model.revision"),
        ("random", "use the model.architecture and the seed of its run"),
        ("quantization", "set model.quantization as in its run"),
    ):
        if theirs.get(name) != ours.get(name):
            raise CheckpointError(
                f"the checkpoint was trained over {_named(theirs, name)}, this model stands on {_named(ours, name)}: "
                + cure
            )


def _named(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    shown = f"{value[:12]}…" if isinstance(value, str) and _SHA256.fullmatch(value) else value
    if isinstance(value, dict):
        shape = value.get("config", {})
        shown = f"{shape.get('num_hidden_layers')} layers of {shape.get('hidden_size')}, seed {value.get('seed')}"
    return f"{facts.get('name')} ({name} {shown})"
