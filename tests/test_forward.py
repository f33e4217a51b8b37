# SPDX-License-Identifier: Apache-2.0
"""MindSpore gives the output without gradients, in every mode, backend and dtype."""

from __future__ import annotations

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
