# SPDX-License-Identifier: Apache-2.0
"""Random geometries against torchvision itself, output and every gradient."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geometries import Geometry
from kernels import Kernels, problem_of
from random_geometries import geometries

pytest.importorskip("torchvision", reason="needs torch and torchvision: pip install '.[parity]'")

import torch

import torchvision_operator


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> None:
    """Small tensors, and the kernels' threads own the cores."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-9), ("float32", 3e-5)])
@settings(max_examples=150)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_a_random_geometry_agrees_with_torchvision(
    cpu_kernels: Kernels, dtype: str, tolerance: float, geometry: Geometry, seed: int
) -> None:
    problem = problem_of(geometry, dtype, seed)
    (actual,) = cpu_kernels.solve([problem], dtype)
    grad_output = problem.pop("grad_output")
    expected = torchvision_operator.gradients(problem, grad_output, dtype)
    cpu_kernels.assert_right(actual, expected, dtype, tolerance)
