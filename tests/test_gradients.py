# SPDX-License-Identifier: Apache-2.0
"""MindSpore gives each tensor its own gradient, in every mode, backend and dtype.

On a few geometries: test_kernel_answers.py proves what the kernels compute, without MindSpore.
"""

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
from geometries import GRID, Geometry
from kernels import by_reference, problem_of
from operator_under_test import ARRAYS, each_backend_and_dtype, to_array
from random_geometries import geometries
from tolerances import assert_close, assert_gradients_close

pytestmark = pytest.mark.usefixtures("device", "mode", "backend")


def assert_equals_the_reference(geometry: Geometry, seed: int, dtype: str) -> None:
    problem = problem_of(geometry, dtype, seed)
    expected_output, expected = by_reference(problem)
    grad_output = problem.pop("grad_output")
    output, actual = operator_under_test.gradients(problem, grad_output, dtype)
    assert_close(output, expected_output, dtype, "output")
    assert_gradients_close(actual, expected, dtype)


# Each takes other arguments; the first has no two alike.
@pytest.mark.parametrize(
    "name",
    [
        "torchvision's own",
        "more groups than offset groups",
        "no mask",
        "no bias",
        "neither mask nor bias",
        "four-sided padding",
        "empty batch",
    ],
)
def test_output_and_gradients_equal_the_reference(name: str) -> None:
    assert_equals_the_reference(GRID[name], 0, "float32")


@each_backend_and_dtype
def test_every_dtype_keeps_to_itself(dtype: str) -> None:
    assert_equals_the_reference(GRID["torchvision's own"], 0, dtype)


@settings(max_examples=6)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_a_random_geometry_equals_the_reference(geometry: Geometry, seed: int) -> None:
    assert_equals_the_reference(geometry, seed, "float32")


# The kernels of the composition are MindSpore's, so MindSpore is needed to prove them.
@pytest.mark.parametrize("mode, backend", [("pynative", "composition")], indirect=True)
@pytest.mark.parametrize("name", GRID)
def test_the_composition_equals_the_reference(name: str) -> None:
    assert_equals_the_reference(GRID[name], 0, "float32")


@pytest.mark.parametrize("backend", ["aot"], indirect=True)
def test_no_channels_out_is_an_empty_output_and_no_gradient() -> None:
    assert_equals_the_reference(Geometry(channels_out=0), 0, "float32")


class SomeGradients(nn.Cell):
    """The gradients of sum(output) for the arrays at the positions."""

    def __init__(self, operator: nn.Cell, positions: tuple[int, ...]) -> None:
        super().__init__()
        self.operator = operator
        self.grad = ms.grad(operator, positions)

    def construct(self, input, offset, weight, bias, mask):
        return self.grad(input, offset, weight, bias, mask)


# One alone, all but one, all of them.
@pytest.mark.parametrize(
    "wanted", [names for count in (1, 4, 5) for names in combinations(ARRAYS, count)], ids="+".join
)
def test_some_of_the_gradients_can_be_asked_for(wanted: tuple[str, ...]) -> None:
    problem = problem_of(GRID["torchvision's own"], "float32")
    ones = np.ones_like(problem.pop("grad_output"))
    expected = reference.deform_conv2d_grad(ones, **problem)
    operator, _ = operator_under_test.cells_of(problem)
    positions = tuple(ARRAYS.index(name) for name in wanted)
    grads = SomeGradients(operator, positions)(*operator_under_test.tensors(problem, "float32"))
    grads = grads if isinstance(grads, tuple) else (grads,)
    assert len(grads) == len(wanted)
    for name, grad in zip(wanted, grads):
        assert_close(to_array(grad), getattr(expected, name), "float32", name)
