"""The weight files of a frozen base: reading them one tensor at a time, and telling one base from another."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.cache import default_cache_dir
from genre_lightning.errors import CheckpointError, ConfigError, one_line
from genre_lightning.files import read_json, write_json
from genre_lightning.foreign import HOW_TO_GET, model_file, read_object
from genre_lightning.models.metadata import BaseMetadata
from genre_lightning.node import digest_on_node
from genre_lightning.shapes import text

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

_SHA256 = re.compile(r"[0-9a-f]{64}")


def weight_files(name: str, revision: str | None, *, fetch: bool = True) -> list[Path]:
    """Return the safetensors files of a local directory or of a model of the hub.

    Args:
        name: Local directory or model of the hub.
        revision: Commit or tag on the hub.
        fetch: Whether those of the hub that are not in the local cache are fetched; else none are returned.

    Raises:
        ConfigError: There are none, their index is damaged, or they cannot be fetched.
    """
    fetch = fetch or Path(name).is_dir()
    if (whole := model_file(name, "model.safetensors", revision, fetch=fetch)) is not None:
        return [whole]
    if (index := model_file(name, "model.safetensors.index.json", revision, fetch=fetch)) is not None:
        parts = {part: model_file(name, part, revision, fetch=fetch) for part in _parts(index)}
        if missing := [part for part, path in parts.items() if path is None]:
            if not fetch:
                return []
            raise ConfigError(f"{name!r} lacks {missing[0]}, a part of its weights: download the model again")
        return [path for path in parts.values() if path]
    if fetch:
        raise ConfigError(f"{name!r} has no model.safetensors: {HOW_TO_GET.format(name=name)}")
    return []


def _parts(index: Path) -> list[str]:
    """Return the names of the files that an index lists; none of them may lead out of the model."""
    listed = read_object(index).get("weight_map")
    parts = sorted({str(part) for part in listed.values()}) if isinstance(listed, dict) else []
    if not parts or any(Path(part).name != part for part in parts):
        raise ConfigError(f"{index} does not list files beside it: download the model again")
    return parts


@dataclass(frozen=True)
class WeightReport:
    """How stored weights fit the model of a configuration.

    Attributes:
        wanted: Number of weights that the model has.
        missing: Names of those that are not stored.
        misfits: Those that are stored in another shape, as clauses to print.
        unexpected: Stored weights within the model's own parts that it has no place for.
        left_out: Stored weights of parts that the model does without, such as a pooler or a language model's head.
    """

    wanted: int
    missing: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def require(self, name: str) -> None:
        """Refuse weights of another model than the configuration's.

        Raises:
            ConfigError: With the counts and the first name of each kind.
        """
        kinds = {"missing": self.missing, "of another shape": self.misfits, "unexpected": self.unexpected}
        wrong = [f"{len(names):,} {kind} (such as {names[0]})" for kind, names in kinds.items() if names]
        if wrong:
            raise ConfigError(
                f"the weights of {name!r} do not fit its config.json: {self.loaded:,} of {self.wanted:,} match, "
                f"{', '.join(wrong)}: use the files of one model, as save_pretrained writes them"
            )

    @property
    def loaded(self) -> int:
        """Number of the model's weights that are stored in their shape."""
        return self.wanted - len(self.missing) - len(self.misfits)

    def __str__(self) -> str:
        line = f"{self.loaded:,} of {self.wanted:,} pretrained weights fit"
        if not self.left_out:
            return line
        parts = sorted({name.partition(".")[0] for name in self.left_out})
        return f"{line}; {len(self.left_out):,} of parts that are not used are left out ({', '.join(parts[:4])})"


_BUFFERS = ("position_ids", "token_type_ids", "inv_freq")
"""What older versions of transformers stored and newer ones compute."""


def sorted_out(names: Iterable[str], model: PreTrainedModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return those of the names that a model has no use for within its own parts, and those of other parts."""
    parts = {name for name, _ in model.named_children()}
    prefix = f"{model.base_model_prefix}."
    unexpected: list[str] = []
    left_out: list[str] = []
    for name in sorted(names):
        own = {name.partition(".")[0], name.removeprefix(prefix).partition(".")[0]} & parts
        (unexpected if own and not name.endswith(_BUFFERS) else left_out).append(name)
    return tuple(unexpected), tuple(left_out)


class StoredWeights:
    """The tensors of safetensors files, read one by one.

    Args:
        name: Of the model, for messages.
        files: Of all its tensors.

    Attributes:
        shapes: Of each tensor, by its name.

    Raises:
        ConfigError: A file is damaged.
    """

    def __init__(self, name: str, files: list[Path]) -> None:
        from safetensors import safe_open

        self.name = name
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as handle:
                    for key in handle.keys():  # noqa: SIM118  # it is not a mapping
                        self.files[key] = file
                        self.shapes[key] = tuple(handle.get_slice(key).get_shape())
            except Exception as error:  # safetensors and the file system have theirs
                raise _damaged(file, error) from None

    def key_of(self, path: str) -> str | None:
        """Return the stored name of a parameter, with or without the prefix that language models give their decoder."""
        return next((key for key in (path, f"model.{path}", path.removeprefix("model.")) if key in self.files), None)

    def report(self, model: PreTrainedModel) -> WeightReport:
        """Return how the tensors fit a model whose parameters have the stored names, whatever device it is on."""
        wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        keys = {name: self.key_of(name) for name in wanted}
        misfits = [
            f"{name}: {self.shapes[key]}, not {wanted[name]}"
            for name, key in keys.items()
            if key is not None and self.shapes[key] != wanted[name]
        ]
        # tied weights are stored under any of their names
        known = {self.key_of(name) for name in model.state_dict()}
        unexpected, left_out = sorted_out(self.files.keys() - known, model)
        missing = [name for name, key in keys.items() if key is None]
        return WeightReport(len(wanted), tuple(missing), tuple(misfits), unexpected, left_out)

    def read(self, path: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor by its parameter's name.

        Raises:
            ConfigError: It is not there, or of another shape.
        """
        key = self.key_of(path)
        if key is None:
            raise ConfigError(f"the weights of {self.name!r} lack {path}: name a whole model, not an adapter or a part")
        if self.shapes[key] != tuple(shape):
            raise ConfigError(
                f"{key} of {self.name!r} has shape {self.shapes[key]}, and its config.json says "
                f"{tuple(shape)}: fetch the model again"
            )
        return self.tensor(key, dtype)

    def tensor(self, key: str, dtype: torch.dtype) -> Tensor:
        """Return a tensor by its stored name, in memory of its own.

        Raises:
            ConfigError: The file has been damaged since.
        """
        from safetensors import safe_open

        try:
            # opened again each time: what a mapped file has read counts as memory of the process until it is closed
            with safe_open(self.files[key], framework="pt") as handle:
                return handle.get_tensor(key).to(dtype, copy=True)
        except Exception as error:
            raise _damaged(self.files[key], error) from None


_LFS_POINTER = b"version https://git-lfs"


def _damaged(file: Path, error: Exception) -> ConfigError:
    with contextlib.suppress(OSError), file.open("rb") as content:
        if content.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return ConfigError(f"{file} is a Git LFS pointer, not the weights: fetch them with 'git lfs pull'")
    return ConfigError(f"{file} cannot be read ({one_line(error)[:120]}): download the model again")


def weights_digest(files: list[Path], cache_dir: Path | None = None) -> str:
    """Return the SHA-256 over the names and digests of weight files.

    A file's digest is kept in the cache under its path, size and time of change, so that gigabytes are read once.

    Raises:
        ConfigError: A file cannot be read.
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
        note = (cache_dir or default_cache_dir()) / "weights" / f"{key}.json"
        if (known := _noted(note)) is not None:
            return known
        digest = digest_on_node(target)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error}): fix its permissions, or download it again") from None
    _remember(note, digest)
    return digest


def _noted(note: Path) -> str | None:
    if not note.is_file():
        return None
    try:
        digest = read_json(note, {"sha256": text})["sha256"]
    except CheckpointError:
        return None
    return digest if _SHA256.fullmatch(digest) else None


def _remember(note: Path, digest: str) -> None:
    # without a cache the file is read again the next time
    with contextlib.suppress(OSError, ConfigError):
        write_json(note, {"sha256": digest})


def check_same_base(theirs: BaseMetadata, ours: BaseMetadata) -> None:
    """Refuse a checkpoint whose adapters were trained over other frozen weights.

    Args:
        theirs: The base of the checkpoint.
        ours: Value of the model.

    Raises:
        CheckpointError: Naming what differs.
    """
    for name, cure in (
        ("sha256", "name the base that it was trained on with model.backbone and model.revision"),
        ("random", "use the model.architecture and the seed of its run"),
        ("quantization", "set model.quantization as in its run"),
    ):
        if getattr(theirs, name) != getattr(ours, name):
            raise CheckpointError(
                f"the checkpoint was trained over {_named(theirs, name)}, this model stands on {_named(ours, name)}: "
                + cure
            )


def _named(base: BaseMetadata, name: str) -> str:
    value = getattr(base, name)
    shown = f"{value[:12]}…" if isinstance(value, str) and _SHA256.fullmatch(value) else value
    if isinstance(value, dict):
        shape = value.get("config", {})
        shown = f"{shape.get('num_hidden_layers')} layers of {shape.get('hidden_size')}, seed {value.get('seed')}"
    return f"{base.name} ({name} {shown})"
