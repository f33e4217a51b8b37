# SPDX-License-Identifier: Apache-2.0
"""The reference equals torchvision's recorded answers, and its gradients finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import recorded
import reference
from finite_differences import assert_gradients_match_differences
from geometries import GRID, Geometry
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
    assert_close(reference.deform_conv2d(**call), expected, "float64", "output")
