# SPDX-License-Identifier: Apache-2.0
"""How far the operator may be from the exact answer, by dtype and by what is compared."""

from __future__ import annotations

import numpy as np

from reference import Gradients

# Relative to the largest value of the array, or to 1 where all are smaller: a sum of many terms
# may cancel, and its rounding error then belongs to the terms. The half types accumulate in
# float32, so what they may lose is about two roundings to the stored type.
TOLERANCES = {
    ("float64", "output"): 1e-12,
    ("float64", "input"): 1e-12,
    ("float64", "offset"): 1e-12,
    ("float64", "mask"): 1e-12,
    ("float64", "weight"): 1e-12,
    ("float64", "bias"): 1e-12,
    ("float32", "output"): 3e-6,
    ("float32", "input"): 3e-6,
    ("float32", "offset"): 3e-6,
    ("float32", "mask"): 3e-6,
    ("float32", "weight"): 1e-5,
    ("float32", "bias"): 1e-5,
    ("float16", "output"): 1e-3,
    ("float16", "input"): 1e-3,
    ("float16", "offset"): 1e-3,
    ("float16", "mask"): 1e-3,
    ("float16", "weight"): 1e-3,
    ("float16", "bias"): 1e-3,
    ("bfloat16", "output"): 8e-3,
    ("bfloat16", "input"): 8e-3,
    ("bfloat16", "offset"): 8e-3,
    ("bfloat16", "mask"): 8e-3,
    ("bfloat16", "weight"): 8e-3,
    ("bfloat16", "bias"): 8e-3,
}


# A GPU's matrix unit takes samples rounded to the half types: one rounding more in a product.
MATRIX_UNIT = {
    (dtype, what): 2 * TOLERANCES[dtype, what]
    for dtype in ("float16", "bfloat16")
    for what in ("output", "weight")
}


def assert_close(
    actual: np.ndarray,
    expected: np.ndarray,
    dtype: str,
    what: str,
    tolerance: float | None = None,
    matrix_unit: bool = False,
) -> None:
    """Fails on a NaN, and on an infinity, in either array."""
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    error = np.abs(actual - expected).max(initial=0.0) / scale
    table = {**TOLERANCES, **(MATRIX_UNIT if matrix_unit else {})}
    tolerance = tolerance or table[dtype, what]
    assert error <= tolerance, f"{what} in {dtype}: off by {error:.2e}, allowed {tolerance:.0e}"


def assert_gradients_close(
    actual: Gradients,
    expected: Gradients,
    dtype: str,
    tolerance: float | None = None,
    matrix_unit: bool = False,
) -> None:
    """Compares every gradient; one that is None must be None in both."""
    for name in Gradients._fields:
        value, wanted = getattr(actual, name), getattr(expected, name)
        assert (value is None) == (wanted is None), f"{name}: got {value}, expected {wanted}"
        if wanted is not None:
            assert_close(value, wanted, dtype, name, tolerance, matrix_unit)
