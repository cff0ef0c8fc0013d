"""How float32 matmuls are computed: in TF32 where they are the whole model's on a GPU."""

import pytest

from genre_lightning.training.setup import _float32_matmul_precision


@pytest.mark.parametrize(
    ("accelerator", "precision", "matmuls"),
    [("cuda", "16-mixed", "highest"), ("cuda", "bf16-mixed", "highest"), ("cuda", "32-true", "high"),
     ("cpu", "bf16-mixed", "highest"), ("cpu", "32-true", "highest")],
)  # fmt: skip
def test_head_and_pooling_keep_their_digits_in_half_precision(accelerator, precision, matmuls):
    assert _float32_matmul_precision(accelerator, precision) == matmuls
