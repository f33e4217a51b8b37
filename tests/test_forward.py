# SPDX-License-Identifier: Apache-2.0
"""The output equals the reference over the grid and random geometries, in every mode and dtype."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import operator_under_test
import reference
from element_types import held_in
from geometries import GRID, Geometry, geometries
from operator_under_test import DTYPES
from tolerances import assert_close

pytestmark = pytest.mark.usefixtures("device", "mode", "backend")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GRID)
def test_the_output_equals_the_reference(name: str, dtype: str) -> None:
    call = held_in(dtype, GRID[name].call())
    actual = operator_under_test.forward(call, dtype)
    assert_close(actual, reference.deform_conv2d(**call), dtype, "output")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=40)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_the_output_of_a_random_geometry_equals_the_reference(
    dtype: str, geometry: Geometry, seed: int
) -> None:
    call = held_in(dtype, geometry.call(seed))
    actual = operator_under_test.forward(call, dtype)
    assert_close(actual, reference.deform_conv2d(**call), dtype, "output")


def test_no_mask_is_a_mask_of_ones() -> None:
    call = GRID["no mask"].call()
    taps = call["offset"].shape[1] // 2
    ones = np.ones((len(call["input"]), taps, *call["offset"].shape[2:]))
    without = operator_under_test.forward(call)
    assert_close(operator_under_test.forward({**call, "mask": ones}), without, "float64", "output")


@pytest.mark.parametrize("padding", [(2, 1), (0, 3, 2, 1)])
def test_zero_offsets_without_mask_are_a_plain_convolution(padding: tuple[int, ...]) -> None:
    geometry = Geometry(padding=padding, stride=(2, 1), dilation=(1, 2), use_mask=False)
    call = geometry.call()
    call["offset"] = np.zeros_like(call["offset"])
    top, bottom, left, right = padding if len(padding) == 4 else np.repeat(padding, 2)
    image = np.pad(call["input"], ((0, 0), (0, 0), (top, bottom), (left, right)))
    out_h, out_w = geometry.output_size
    expected = call["bias"][:, None, None] + sum(
        np.einsum(
            "nchw,oc->nohw",
            image[:, :, i : i + 2 * out_h - 1 : 2, 2 * j : 2 * j + out_w],
            call["weight"][:, :, i, j],
        )
        for i in range(geometry.kernel[0])
        for j in range(geometry.kernel[1])
    )
    assert_close(operator_under_test.forward(call), expected, "float64", "output")
