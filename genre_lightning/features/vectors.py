"""The file of film vectors that `data.join` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genre_lightning.files import replacing


def write_vectors(path: Path, ids: NDArray[np.integer], vectors: NDArray[np.float32], **columns: NDArray[Any]) -> None:
    """Write a Parquet file of films, whole or not at all.

    Args:
        path: The file.
        ids: int (films,), the column id.
        vectors: float32 (films, dimensions), the column vector, which comes last.
        columns: (films,) each, between them.
    """
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    with replacing(path) as temporary:
        pq.write_table(pa.table({"id": pa.array(ids, pa.int64()), **columns, "vector": lists}), temporary)
