"""Columns from buffers are those of pyarrow's own conversion."""

import numpy as np
import pyarrow as pa
import pytest

from genre_lightning.data.arrow import binaries, int64s, texts


@pytest.mark.parametrize("values", [[], ["a"], ["", "é", "日本", "a b"]])
def test_texts_are_pyarrows(values):
    assert texts(values).equals(pa.array(values, pa.string()))
    texts(values).validate(full=True)


@pytest.mark.parametrize("values", [[], [b"ab"], [b"ab", b"\x00\xff"]])
def test_binaries_are_pyarrows(values):
    assert binaries(values, 2).equals(pa.array(values, pa.binary(2)))
    binaries(values, 2).validate(full=True)


def test_int64s_are_pyarrows():
    values = np.arange(10)
    for part in (values, values[:0], values[2:5], values[::3]):
        assert int64s(part).equals(pa.array(part))
        int64s(part).validate(full=True)
