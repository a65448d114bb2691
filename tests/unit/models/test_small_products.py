"""Products of few and many rows by numpy, torch or oneDNN are the products of double precision."""

import numpy as np
import pytest

from trainer.models import linear, small_products
from trainer.models.small_products import product_into

SHAPES = [(1, 64, 65), (3, 64, 65), (2100, 64, 65), (16, 512, 1024)]
"""Rows, inputs and outputs: the last two are multiplied by torch, on some CPUs by oneDNN."""


@pytest.mark.parametrize("is_contiguous", [True, False])
@pytest.mark.parametrize("is_onednn", [True, False])
@pytest.mark.parametrize("is_intel", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_into__gives_the_product(
    shape: tuple[int, int, int],
    is_intel: bool,
    is_onednn: bool,
    is_contiguous: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(small_products, "IS_INTEL", is_intel)
    monkeypatch.setattr(linear, "MKL_LACKS_AVX512", is_onednn)
    rows, inputs, outputs = shape
    draw = np.random.Generator(np.random.PCG64(1))
    left = draw.standard_normal((rows, inputs), dtype=np.float32)
    right = draw.standard_normal((inputs, outputs) if is_contiguous else (outputs, inputs), dtype=np.float32)
    right = right if is_contiguous else right.T
    product = np.empty((rows, outputs), dtype=np.float32)
    multiply = product_into(left, right, product)
    for factor in (1, 2):  # the arrays are read at each call
        left *= factor
        multiply()
        expected = left.astype(np.float64) @ right.astype(np.float64)
        np.testing.assert_allclose(product, expected, rtol=1e-4, atol=2e-4)
