"""Film vectors from posters, by the vision model of CLIP (Radford et al., 2021) or SigLIP (Zhai et al., 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of
from genre_lightning.data.shapes import whole_number
from genre_lightning.data.tables import read_rows
from genre_lightning.errors import ConfigError, DataError, one_line
from genre_lightning.features.images import (
    LARGEST_INPUT,
    Preparation,
    UnreadableImageError,
    prepared,
    silent_on_large_images,
)
from genre_lightning.foreign import check_folder, model_file, read_object
from genre_lightning.models.backbone_config import read_config
from genre_lightning.models.base_weights import StoredWeights, weight_files, weights_digest
from genre_lightning.progress import task_progress

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_CHUNK = 256
"""Images whose vectors are kept at once: what an interruption costs at most."""
_READERS = 4
"""Threads that decode images; decoding runs outside of Python's lock."""


@dataclass(frozen=True)
class VisionBackbone:
    """A vision model and how images are prepared for it.

    Attributes:
        model: In float32, on the device.
        preparation: Size and normalisation of the images.
        digest: SHA-256 of the weights.
    """

    model: nn.Module
    preparation: Preparation
    digest: str

    def vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map images, float32 (images, 3, height, width), to vectors, float32 (images, dimensions)."""
        import torch

        device = next(self.model.parameters()).device
        with torch.inference_mode():
            output = self.model(pixel_values=torch.from_numpy(images).to(device))
            # CLIP projects into the space of the texts, SigLIP pools into it
            found = output.image_embeds if hasattr(output, "image_embeds") else output.pooler_output
        return found.float().cpu().numpy()


def load_backbone(name: str, revision: str | None, device: torch.device) -> VisionBackbone:
    """Load the vision model of a local directory or of a model of the hub, from its safetensors files alone.

    Raises:
        ConfigError: It cannot be found, is neither CLIP nor SigLIP, or its files are damaged.
    """
    import torch

    check_folder(name)
    config: Any = read_config(name, revision)
    model_class, image_size = _vision_class(config.model_type, name), _image_size(config)
    stored = StoredWeights(name, files := weight_files(name, revision))
    try:
        with torch.device("meta"):
            model = model_class._from_config(getattr(config, "vision_config", config), dtype=torch.float32)
    except Exception as error:  # whatever the architecture makes of its numbers
        raise ConfigError(
            f"no model can be built from the config.json of {name!r} ({one_line(error)[:160]}): download it again"
        ) from None
    weights = {}
    for key, tensor in model.state_dict().items():
        path = key if key in stored.shapes else f"vision_model.{key}"
        weights[key] = stored.read(path, tuple(tensor.shape), torch.float32)
    model.load_state_dict(weights, assign=True)
    _fill_position_ids(model)
    file = model_file(name, "preprocessor_config.json", revision)
    preparation = Preparation.from_config(read_object(file) if file else {}, image_size)
    return VisionBackbone(model.eval().to(device), preparation, weights_digest(files))


def _vision_class(model_type: str, name: str) -> Any:
    import transformers

    classes = {
        "clip": "CLIPVisionModelWithProjection",
        "clip_vision_model": "CLIPVisionModelWithProjection",
        "siglip": "SiglipVisionModel",
        "siglip_vision_model": "SiglipVisionModel",
    }
    if model_type not in classes:
        raise ConfigError(
            f"--backbone {name} is a {model_type}, neither CLIP nor SigLIP: name one, such as "
            "openai/clip-vit-base-patch32"
        )
    return getattr(transformers, classes[model_type])


def _fill_position_ids(model: nn.Module) -> None:
    """Give buffers that no checkpoint holds, the numbers of the positions, their values."""
    import torch

    for module in model.modules():
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                module.register_buffer(key, torch.arange(buffer.numel()).reshape(buffer.shape), persistent=False)


def _image_size(config: Any) -> int:
    size = getattr(config, "vision_config", config).image_size
    if not isinstance(size, int) or not 1 <= size <= LARGEST_INPUT:
        raise ConfigError(
            f"the config.json of the backbone has image_size {size!r}: give a model of 1 to {LARGEST_INPUT:,}"
        )
    return size


def find_posters(folder: Path, poster_ids: Mapping[str, int] | None = None) -> tuple[list[tuple[int, Path]], int]:
    """List the images of a folder with the films that they are of, in the order of the films' ids.

    Args:
        folder: Searched at any depth.
        poster_ids: The film's id for each file name, as `poster_path` in a movies file gives them; None if each
            file is named by its film's id.

    Returns:
        Film id and path of each image, and how many images are of no film.

    Raises:
        DataError: The folder cannot be read, or none of its images is of a film.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder of the images")
    found: dict[int, Path] = {}
    strangers = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        number = int(path.stem) if path.stem.isascii() and path.stem.isdecimal() and len(path.stem) < 10 else None
        film = number if poster_ids is None else poster_ids.get(path.name, number)
        if film is None or film in found:
            strangers += 1
            continue
        found[film] = path
    if not found:
        fix = (
            "give the movies file that names them by poster_path with --data.csv"
            if poster_ids is None
            else "check --data.csv"
        )
        raise DataError(f"{folder} holds no image that is named by its film, such as 862.jpg: rename them, or {fix}")
    return sorted(found.items()), strangers


def poster_files(movies: Path) -> dict[str, int]:
    """Return the film's id for the file name of each poster in a movies file's columns id and poster_path.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    found = {}
    for row in read_rows(movies, ("id", "poster_path"), optional=()):
        film, poster = whole_number(row.get("id")), str(row.get("poster_path") or "").strip()
        if film is not None and poster:
            found[PurePosixPath(poster).name] = film
    return found


@dataclass(frozen=True)
class PosterVectors:
    """Vectors of posters.

    Attributes:
        ids: int64 (films,).
        vectors: float32 (films, dimensions).
        unreadable: How many images could not be read, by the reason.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    unreadable: Counter[str]


def poster_vectors(
    posters: Sequence[tuple[int, Path]], backbone: VisionBackbone, cache: Path, *, batch_size: int = 32
) -> PosterVectors:
    """Compute the vectors of posters; those that an interrupted start has computed are taken from the cache.

    Args:
        posters: Film id and path of each.
        backbone: Of the vectors.
        cache: Folder of the vectors computed so far.
        batch_size: Images that go through the model at once.

    Raises:
        DataError: None of the images can be read, or the cache cannot be written.
    """
    ids: list[int] = []
    parts: list[NDArray[np.float32]] = []
    unreadable: Counter[str] = Counter()
    with task_progress("posters", len(posters)) as count, silent_on_large_images():
        for start in range(0, len(posters), _CHUNK):
            chunk = posters[start : start + _CHUNK]
            build = partial(_build_chunk, chunk=chunk, backbone=backbone, batch_size=batch_size)
            folder, noted = build_once(cache, _key(chunk, backbone), build)
            if noted["ids"]:
                ids += noted["ids"]
                parts.append(np.load(folder / "vectors.npy", allow_pickle=False))
            unreadable.update(noted["unreadable"])
            count(len(chunk))
    if not ids:
        reason, number = unreadable.most_common(1)[0]
        raise DataError(f"none of the {len(posters):,} images can be read ({reason}: {number:,}): check the files")
    return PosterVectors(np.array(ids, np.int64), np.concatenate(parts), unreadable)


def _build_chunk(
    folder: Path, chunk: Sequence[tuple[int, Path]], backbone: VisionBackbone, batch_size: int
) -> dict[str, Any]:
    """Write the vectors of a few hundred images; return the films that have one, and why others have none."""
    kept, reasons, vectors = [], [], []
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(chunk), batch_size):
            group = chunk[start : start + batch_size]
            read = list(readers.map(lambda poster: _read(poster[1], backbone.preparation), group))
            images = [image for image in read if not isinstance(image, str)]
            kept += [film for (film, _), image in zip(group, read, strict=True) if not isinstance(image, str)]
            reasons += [image for image in read if isinstance(image, str)]
            if images:
                vectors.append(backbone.vectors(np.stack(images)))
    np.save(folder / "vectors.npy", np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32))
    return {"ids": kept, "unreadable": reasons}


def _key(chunk: Sequence[tuple[int, Path]], backbone: VisionBackbone) -> str:
    """Name the vectors of a chunk by the weights, the preparation, and each file's path, size and time."""
    files = []
    for film, path in chunk:
        try:
            state = path.stat()
            files.append([film, str(path.absolute()), state.st_size, state.st_mtime_ns])
        except OSError:
            files.append([film, str(path.absolute()), 0, 0])
    return key_of({"weights": backbone.digest, "preparation": backbone.preparation.as_list(), "files": files})


def _read(path: Path, preparation: Preparation) -> NDArray[np.float32] | str:
    """Return an image, ready for the model, or the reason why it cannot be read."""
    try:
        return prepared(path, preparation)
    except UnreadableImageError as error:
        return str(error)
