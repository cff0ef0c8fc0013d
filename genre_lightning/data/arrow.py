"""Arrow columns of NumPy arrays and lists, made of their buffers.

`pyarrow.array` imports pandas if it is installed, to look for its types, and so does `to_numpy` of Arrow's columns:
half a second at the start of a training. For the latter there is `numpy.from_dlpack`, which shares the numbers too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def int64s(values: NDArray[np.int64]) -> pa.Int64Array:
    """Return a column of the values, which it shares."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def texts(values: Sequence[str]) -> pa.StringArray:
    """Return a column of texts."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"the texts have {ends[-1]:,} bytes, more than a column of strings holds")
    offsets = pa.py_buffer(ends.astype(np.int32))
    return pa.StringArray.from_buffers(len(encoded), offsets, pa.py_buffer(b"".join(encoded)))


def binaries(values: Sequence[bytes], width: int) -> pa.FixedSizeBinaryArray:
    """Return a column of values of `width` bytes each."""
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(b"".join(values))])
