# SPDX-License-Identifier: Apache-2.0
"""300 random geometries against torchvision itself, output and every gradient, in both modes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import operator_under_test
from element_types import held_in
from geometries import Geometry, geometries
from tolerances import assert_close, assert_gradients_close

pytest.importorskip("torchvision", reason="needs torch and torchvision: pip install '.[parity]'")

import torch

import torchvision_operator

pytestmark = pytest.mark.usefixtures("device", "mode")


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> None:
    """Small tensors, and MindSpore's threads own the cores."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 3e-5)])
@settings(max_examples=300)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_a_random_geometry_agrees_with_torchvision(
    dtype: str, tolerance: float, geometry: Geometry, seed: int
) -> None:
    call = held_in(dtype, {**geometry.call(seed), "grad_output": geometry.grad_output(seed)})
    grad_output = call.pop("grad_output")
    expected, expected_gradients = torchvision_operator.gradients(call, grad_output, dtype)
    actual, actual_gradients = operator_under_test.gradients(call, grad_output, dtype)
    assert_close(actual, expected, dtype, "output", tolerance)
    assert_gradients_close(actual_gradients, expected_gradients, dtype, tolerance)
