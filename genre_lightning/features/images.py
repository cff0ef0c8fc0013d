"""Images from strangers, read within limits and prepared for a vision model."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genre_lightning.errors import ConfigError

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_MOST_BYTES = 64 << 20
_MOST_PIXELS = 50_000_000
"""A poster of 2,000 x 3,000 has 6 million; a few kilobytes can unpack to billions."""
_LARGEST_SIDE = 4096
LARGEST_INPUT = 2048
"""Height and width that a model may take, in pixels: 32 images are 1.6 GB."""
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class UnreadableImageError(ValueError):
    """An image cannot be used; the text is the reason, the same for all images with it."""


@dataclass(frozen=True)
class Preparation:
    """What becomes of an image: resized, cropped in the centre, and normalised.

    Attributes:
        shortest: Length of the shorter side after resizing, in pixels; 0 resizes to the size of the crop at once,
            whatever the image's proportions.
        height: Of the crop.
        width: Of the crop.
        mean: Of each channel, from 0 to 1.
        std: Of each channel.
        resample: PIL's number of the filter; 3 is bicubic.
    """

    shortest: int
    height: int
    width: int
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD
    resample: int = 3

    @classmethod
    def from_config(cls, values: Mapping[str, Any], image_size: int) -> Preparation:
        """Read a preprocessor_config.json, what it lacks taken as CLIP has it.

        Args:
            values: Its content.
            image_size: Height and width that the model takes.

        Raises:
            ConfigError: A value is impossible.
        """
        try:
            size = values.get("size", {"shortest_edge": image_size})
            size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
            crop = values.get("crop_size", image_size)
            crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop)
            shortest = int(size.get("shortest_edge", 0))
            if not values.get("do_center_crop", True) or not shortest:
                crop, shortest = {"height": image_size, "width": image_size}, 0
            mean, std = (
                tuple(float(part) for part in values.get(name, default))
                for name, default in (("image_mean", _CLIP_MEAN), ("image_std", _CLIP_STD))
            )
            made = cls(shortest, int(crop["height"]), int(crop["width"]), mean, std, int(values.get("resample", 3)))
            if made.height != image_size or made.width != image_size or not 0 <= made.shortest <= _LARGEST_SIDE:
                raise ValueError(f"the model takes {image_size} x {image_size} pixels")
            if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not 0 <= made.resample <= 5:
                raise ValueError("image_mean, image_std or resample")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"preprocessor_config.json is damaged ({error}): download the model again") from None
        return made

    def as_list(self) -> list[Any]:
        """Return all fields, as JSON can hold them."""
        return list(astuple(self))


@contextmanager
def silent_on_large_images() -> Iterator[None]:
    """Hide PIL's warning of large images, which `prepared` refuses; threads that read meanwhile are covered."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def prepared(path: Path, preparation: Preparation) -> NDArray[np.float32]:
    """Return an image as a vision model takes it, float32 (3, height, width).

    Raises:
        UnreadableImageError: It is not an image, damaged, too large, or not a regular file.
    """
    image = _opened(path)
    width, height = image.size
    if preparation.shortest:
        scale = preparation.shortest / min(width, height)
        # at least the crop: rounding down must not leave a border
        wide, high = max(int(width * scale), preparation.shortest), max(int(height * scale), preparation.shortest)
        if max(wide, high) > 16 * _LARGEST_SIDE:
            raise UnreadableImageError("far longer than wide")
        image = image.resize((wide, high), Image.Resampling(preparation.resample))
        left, top = (wide - preparation.width) // 2, (high - preparation.height) // 2
        image = image.crop((left, top, left + preparation.width, top + preparation.height))
    else:
        image = image.resize((preparation.width, preparation.height), Image.Resampling(preparation.resample))
    pixels = np.asarray(image, dtype=np.float32) / 255
    normalised = (pixels - np.array(preparation.mean, np.float32)) / np.array(preparation.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _opened(path: Path) -> Image.Image:
    """Return the image in RGB."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UnreadableImageError("not a regular file")
        if state.st_size > _MOST_BYTES:
            raise UnreadableImageError(f"larger than {_MOST_BYTES >> 20} MiB")
        with Image.open(path, formats=_FORMATS) as image:
            if image.size[0] * image.size[1] > _MOST_PIXELS:
                raise UnreadableImageError(f"more than {_MOST_PIXELS // 10**6} million pixels")
            return image.convert("RGB")
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {_MOST_PIXELS // 10**6} million pixels") from None
    except OSError as error:
        raise UnreadableImageError("not an image" if "identify" in str(error) else _reason(error)) from None
    except Exception:  # decoders raise what the bytes happen to cause
        raise UnreadableImageError("damaged") from None


def _reason(error: OSError) -> str:
    """Return the kind of a failure, without the file's name."""
    return error.strerror.lower() if error.strerror else "damaged"
