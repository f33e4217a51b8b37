# SPDX-License-Identifier: Apache-2.0
"""Every gradient equals the reference and finite differences, in every mode and dtype."""

from __future__ import annotations

from itertools import combinations

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import nn

import operator_under_test
import reference
from element_types import held_in
from finite_differences import assert_gradients_match_differences
from geometries import GRID, Geometry, geometries
from operator_under_test import ARRAYS, DTYPES, to_array
from tolerances import assert_close, assert_gradients_close

pytestmark = pytest.mark.usefixtures("device", "mode", "backend")


def assert_equals_the_reference(geometry: Geometry, seed: int, dtype: str) -> None:
    call = held_in(dtype, {**geometry.call(seed), "grad_output": geometry.grad_output(seed)})
    grad_output = call.pop("grad_output")
    output, actual = operator_under_test.gradients(call, grad_output, dtype)
    assert_close(output, reference.deform_conv2d(**call), dtype, "output")
    assert_gradients_close(actual, reference.deform_conv2d_grad(grad_output, **call), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GRID)
def test_gradients_equal_the_reference(name: str, dtype: str) -> None:
    assert_equals_the_reference(GRID[name], 0, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=30)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_gradients_of_a_random_geometry_equal_the_reference(
    dtype: str, geometry: Geometry, seed: int
) -> None:
    assert_equals_the_reference(geometry, seed, dtype)


@pytest.mark.parametrize(
    "name",
    ["torchvision's own", "more groups than offset groups", "no mask", "four-sided padding"],
)
def test_gradients_equal_finite_differences(name: str) -> None:
    grad_output = GRID[name].grad_output()
    assert_gradients_match_differences(
        forward=operator_under_test.forward,
        gradients=lambda call: operator_under_test.gradients(call, grad_output)[1],
        call=GRID[name].call(),
        grad_output=grad_output,
    )


class SomeGradients(nn.Cell):
    """The gradients of sum(output) for the arrays at the positions."""

    def __init__(self, operator: nn.Cell, positions: tuple[int, ...]) -> None:
        super().__init__()
        self.operator = operator
        self.grad = ms.grad(operator, positions)

    def construct(self, input, offset, weight, bias, mask):
        return self.grad(input, offset, weight, bias, mask)


@pytest.mark.parametrize(
    "wanted",
    [names for count in range(1, 6) for names in combinations(ARRAYS, count)],
    ids="+".join,
)
def test_any_subset_of_the_gradients_can_be_asked_for(wanted: tuple[str, ...]) -> None:
    geometry = GRID["torchvision's own"]
    call = geometry.call()
    ones = np.ones_like(geometry.grad_output())
    expected = reference.deform_conv2d_grad(ones, **call)
    operator, _ = operator_under_test.cells_of(call)
    positions = tuple(ARRAYS.index(name) for name in wanted)
    grads = SomeGradients(operator, positions)(*operator_under_test.tensors(call, "float64"))
    grads = grads if isinstance(grads, tuple) else (grads,)
    assert len(grads) == len(wanted)
    for name, grad in zip(wanted, grads):
        assert_close(to_array(grad), getattr(expected, name), "float64", name)
