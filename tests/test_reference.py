# SPDX-License-Identifier: Apache-2.0
"""The reference equals torchvision's recorded answers, and its gradients finite differences."""

from __future__ import annotations

import pytest

import recorded
import reference
from finite_differences import assert_gradients_match_differences
from geometries import GRID
from tolerances import assert_close, assert_gradients_close


@pytest.mark.parametrize("case", recorded.CASES)
def test_the_reference_equals_torchvision(case: str) -> None:
    call, grad_output, output, gradients = recorded.CASES[case]
    assert_close(reference.deform_conv2d(**call), output, "float64", "output")
    actual = reference.deform_conv2d_grad(grad_output, **call)
    assert_gradients_close(actual, gradients, "float64")


@pytest.mark.parametrize("name", GRID)
def test_gradients_of_the_reference_equal_finite_differences(name: str) -> None:
    grad_output = GRID[name].grad_output()
    assert_gradients_match_differences(
        forward=lambda call: reference.deform_conv2d(**call),
        gradients=lambda call: reference.deform_conv2d_grad(grad_output, **call),
        call=GRID[name].call(),
        grad_output=grad_output,
    )
