"""Checkpoints of which each rank writes its own shards, by torch.distributed.checkpoint, to be read at any number.

Such a checkpoint is a directory: the shards, `.metadata` with the places of the parts of each tensor, and UNSHARDED
with all that is not a tensor of the model or the optimizer.
"""

from __future__ import annotations

import logging
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor
from typing_extensions import override

from genre_lightning.distributed.checkpoint import manifests
from genre_lightning.distributed.checkpoint.files import (
    UNSHARDED,
    check_space,
    load_safely,
    not_written,
    refused,
    save_flushed,
    tensor_bytes,
)
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.errors import CheckpointError, ConfigError, agreed, one_line
from genre_lightning.files import draft_folder_beside, file_digest

_WEIGHTS, _OPTIMIZER = "weights", "optimizer"

Tensors = dict[str, Tensor]


def write_shards(content: dict[str, Any], path: Path, kept: Sequence[Path] = ()) -> None:
    """Write a checkpoint, each rank its own shards; a collective.

    Args:
        content: Content as Lightning makes it; "state_dict" and "optimizer_states" hold the shards of this rank.
        path: Place of the directory, on a file system that all ranks share.
        kept: Names for the older checkpoints, from the newest to the oldest; the last of them is given up.

    Raises:
        SaveError: On all ranks, if one of them could not write; what was there before is untouched.
    """
    unsharded, tensors = _split(content)
    draft = [""]  # rank 0 makes it, and its name reaches the others
    first = dist.get_rank() == 0
    needed = [0] * dist.get_world_size()
    dist.all_gather_object(needed, sum(map(_local_bytes, tensors.values())))

    def make_room() -> None:
        draft[0] = str(draft_folder_beside(path))
        check_space(Path(draft[0]), sum(needed) + tensor_bytes(unsharded))

    def write() -> None:
        with _quiet():
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(part))

    def finish() -> None:
        save_flushed(unsharded, part / UNSHARDED)
        digests = {name: digest for of_rank in gathered for name, digest in of_rank.items()}
        digests |= {name: file_digest(part / name) for name in (UNSHARDED, ".metadata")}
        manifests.commit(part, path, manifests.describe(part, content, digests), kept)

    try:
        _together(path, make_room if first else None)
        dist.broadcast_object_list(draft)
        part = Path(draft[0])
        _together(path, write)
        gathered: list[dict[str, str]] = [{} for _ in needed]
        mine = {file.name: file_digest(file) for file in part.glob(f"__{dist.get_rank()}_*")}
        dist.all_gather_object(gathered, mine)
        _together(path, finish if first else None)
    finally:
        if first and draft[0]:
            shutil.rmtree(draft[0], ignore_errors=True)


def _together(path: Path, work: Callable[[], None] | None) -> None:
    """Do this rank's work, if it has any, and raise on all ranks what went wrong on one; a collective."""
    failure = ""
    try:
        if work is not None:
            work()
    except (OSError, RuntimeError, ConfigError, CheckpointException) as error:
        failure = one_line(error.failures if isinstance(error, CheckpointException) else error)
    failures = [""] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    for failure in filter(None, failures):
        raise not_written(path, failure)


def read_whole(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint with every tensor put together, on the host; for one process alone.

    Raises:
        CheckpointError: It holds more than tensors and plain values.
    """
    reader = SafeReader(path)
    tensors = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype) for name, stored in stored_tensors(reader).items()
    }
    with _quiet():
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    return _join(load_safely(path / UNSHARDED), tensors)


def read_unsharded(path: Path) -> dict[str, Any]:
    """Return a verified checkpoint's content, with tensors of a shape and no values; a collective on many ranks.

    Raises:
        CheckpointError: On all ranks, if it is missing, damaged, or holds more than tensors and plain values.
    """
    _verify_once(path)
    tensors = {
        name: torch.empty(stored.size, dtype=stored.properties.dtype, device="meta")
        for name, stored in stored_tensors(SafeReader(path)).items()
    }
    return _join(load_safely(path / UNSHARDED), tensors)


def read_shards(path: Path, weights: Tensors, parameters: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """Read what this rank needs of a checkpoint's shards; a collective.

    Args:
        path: Path of a checkpoint that `read_unsharded` has verified.
        weights: The model's tensors by name, filled in place; names that the checkpoint lacks are left alone.
        parameters: Parameters of each optimizer, in its order; empty to leave the optimizers' states out.

    Returns:
        The content, its "optimizer_states" sharded as the parameters are.

    Raises:
        CheckpointError: A shape differs.
    """
    reader = SafeReader(path)
    tensors: Tensors = {}
    for name, stored in stored_tensors(reader).items():
        kind, _, rest = name.partition("/")
        if kind == _WEIGHTS:
            if rest in weights:
                tensors[name] = weights[rest]
            continue
        number, index, _ = rest.split("/", 2)
        if int(number) < len(parameters):
            tensors[name] = _empty_like(parameters[int(number)][int(index)], stored)
    try:
        with _quiet():
            dcp.load(tensors, storage_reader=reader)
    except CheckpointException as error:
        raise CheckpointError(
            f"{path} is of another shape of model ({one_line(error.failures)[:160]}): use its own configuration"
        ) from None
    return _join(load_safely(path / UNSHARDED), tensors)


def _empty_like(parameter: Tensor, stored: TensorStorageMetadata) -> Tensor:
    """Return room for a value of an optimizer's state: moments are sharded as their parameter is, step counts not."""
    dtype = stored.properties.dtype
    if isinstance(parameter, DTensor) and stored.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=dtype)
    # step counts of optimizers that are not fused stay on the host
    return torch.empty(stored.size, dtype=dtype)


def _verify_once(path: Path) -> None:
    """Have rank 0 alone read all bytes, and every rank know what came of it."""
    if not (dist.is_available() and dist.is_initialized()):
        verify_checkpoint(path)
        return
    complaint = [""]
    if dist.get_rank() == 0:
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            complaint = [str(error)]
    dist.broadcast_object_list(complaint)
    if complaint[0]:
        raise agreed(CheckpointError(complaint[0]))


def _split(content: Mapping[str, Any]) -> tuple[dict[str, Any], Tensors]:
    """Take the tensors of model and optimizers out of a checkpoint's content, under flat names."""
    tensors = {f"{_WEIGHTS}/{name}": value for name, value in content["state_dict"].items()}
    states = []
    for number, optimizer in enumerate(content.get("optimizer_states", [])):
        plain: dict[int, dict[str, Any]] = {}
        for index, values in optimizer["state"].items():
            plain[index] = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
            for name in values.keys() - plain[index].keys():
                tensors[f"{_OPTIMIZER}/{number}/{index}/{name}"] = values[name]
        states.append({**optimizer, "state": plain})
    return {**content, "state_dict": {}, "optimizer_states": states}, tensors


def _join(unsharded: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Put the tensors back where `_split` found them."""
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == _WEIGHTS:
            unsharded["state_dict"][rest] = value
        else:
            number, index, key = rest.split("/", 2)
            unsharded["optimizer_states"][int(number)]["state"][int(index)][key] = value
    return unsharded


def _local_bytes(value: Tensor) -> int:
    return tensor_bytes(value.to_local() if isinstance(value, DTensor) else value)


def stored_tensors(reader: SafeReader) -> dict[str, TensorStorageMetadata]:
    """Return a checkpoint's metadata of its tensors, by flat name."""
    return reader.read_metadata().state_dict_metadata  # type: ignore[return-value]  # SafeReader sees to that


class SafeReader(dcp.FileSystemReader):
    """torch's reader without what could run code: its metadata is a pickle, and entries of bytes would be others."""

    @override
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        place = Path(self.path) / ".metadata"
        try:
            with place.open("rb") as file:
                metadata = _MetadataUnpickler(file).load()
            if not isinstance(metadata, Metadata):
                raise pickle.UnpicklingError(f"a {type(metadata).__name__}")
            if others := [n for n, v in metadata.state_dict_metadata.items() if type(v) is not TensorStorageMetadata]:
                raise pickle.UnpicklingError(f"{others[0]} is not a tensor")
            for stored in metadata.storage_data.values():
                if Path(stored.relative_path).name != stored.relative_path:
                    raise pickle.UnpicklingError(f"a shard lies elsewhere, at {stored.relative_path}")
        except Exception as error:  # a pickle that is none raises whatever its bytes happen to ask for
            raise refused(place, error) from None
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    """Makes the classes that torch's metadata is made of, and nothing else."""

    _PLAIN = frozenset(
        {
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch._utils", "_get_layout"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "Metadata"),
            ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
            ("torch.distributed.checkpoint.metadata", "StorageMeta"),
            ("torch.distributed.checkpoint.metadata", "TensorProperties"),
            ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
            ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
            ("pathlib", "PosixPath"),
            ("pathlib._local", "PosixPath"),
        }
    )

    @override
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._PLAIN:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch notes about a checkpoint that one process reads alone, as is meant here."""
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.distributed is (disabled|unavailable).*")
        warnings.filterwarnings("ignore", message=".*TypedStorage is deprecated.*")
        try:
            yield
        finally:
            logger.setLevel(level)
