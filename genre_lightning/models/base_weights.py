"""The weight files of a frozen base: reading them one tensor at a time, and telling one base from another."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.errors import CheckpointError, ConfigError, one_line
from genre_lightning.files import file_digest, parse_json
from genre_lightning.models.backbones import HOW_TO_GET

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SHA256 = re.compile(r"[0-9a-f]{64}")


def weight_files(name: str, revision: str | None) -> list[Path]:
    """The safetensors files of a local directory, or of a model of the hub, which are fetched where they are missing.

    Raises:
        ConfigError: there are none, or they cannot be fetched.
    """
    from transformers.utils import cached_file
    from transformers.utils.hub import get_checkpoint_shard_files

    missing: dict[str, Any] = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    try:
        if (whole := cached_file(name, "model.safetensors", **missing)) is not None:
            return [Path(whole)]
        if (index := cached_file(name, "model.safetensors.index.json", **missing)) is not None:
            shards, _ = get_checkpoint_shard_files(name, index, revision=revision)
            return sorted(Path(shard) for shard in shards)
    except OSError as error:
        raise ConfigError(
            f"the weights of {name!r} cannot be fetched ({one_line(error)[:160]}): {HOW_TO_GET.format(name=name)}"
        ) from error
    raise ConfigError(f"{name!r} has no model.safetensors: {HOW_TO_GET.format(name=name)}")


class StoredWeights:
    """The tensors of safetensors files, read one by one.

    Args:
        name: of the model, for messages.
        files: of all its tensors.

    Raises:
        ConfigError: a file is damaged.
    """

    def __init__(self, name: str, files: list[Path]) -> None:
        from safetensors import SafetensorError, safe_open

        self.name = name
        self.files: dict[str, Path] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as handle:
                    self.files.update(dict.fromkeys(handle.keys(), file))
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{file} cannot be read ({one_line(error)[:120]}): fetch the model again") from error

    def read(self, path: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor by its parameter's name, with or without the prefix that language models give their decoder.

        Raises:
            ConfigError: it is not there, or of another shape.
        """
        from safetensors import safe_open

        known = [key for key in (path, f"model.{path}", path.removeprefix("model.")) if key in self.files]
        if not known:
            raise ConfigError(f"the weights of {self.name!r} lack {path}: name a whole model, not an adapter or a part")
        # opened anew each time: what a mapped file has read counts as memory of the process until it is closed
        with safe_open(self.files[known[0]], framework="pt") as handle:
            tensor = handle.get_tensor(known[0]).to(dtype, copy=True)
        if tensor.shape != tuple(shape):
            raise ConfigError(
                f"{known[0]} of {self.name!r} has shape {tuple(tensor.shape)}, and its config.json says "
                f"{tuple(shape)}: fetch the model again"
            )
        return tensor


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
            digest := parse_json(note.read_text(encoding="utf-8")).get("sha256", "")
        ):
            return digest
        digest = file_digest(target)
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
