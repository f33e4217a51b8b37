# SPDX-License-Identifier: Apache-2.0
"""MindSpore gives the output without gradients, in every mode, backend and dtype."""

from __future__ import annotations

import numpy as np
import pytest

import operator_under_test
import reference
from element_types import held_in
from geometries import GRID
from operator_under_test import each_backend_and_dtype
from tolerances import assert_close

pytestmark = pytest.mark.usefixtures("device", "mode", "backend")


@each_backend_and_dtype
@pytest.mark.parametrize("name", ["torchvision's own", "neither mask nor bias"])
def test_the_output_equals_the_reference(name: str, dtype: str) -> None:
    call = held_in(dtype, GRID[name].call())
    actual = operator_under_test.forward(call, dtype)
    assert_close(actual, reference.deform_conv2d(**call), dtype, "output")


@pytest.mark.parametrize("backend", ["aot"], indirect=True)
def test_halves_below_the_normal_ones_count() -> None:
    smallest = 2.0**-24
    call = {
        "input": np.array([smallest, -1023 * smallest]).reshape(1, 1, 1, 2),
        "offset": np.zeros((1, 2, 1, 2)),
        "weight": np.array([1.0, 1024.0]).reshape(2, 1, 1, 1),
    }
    output = operator_under_test.forward(call, "float16")
    expected = [smallest, -1023 * smallest, 1024 * smallest, -1023 * 1024 * smallest]
    assert output.ravel().tolist() == expected
