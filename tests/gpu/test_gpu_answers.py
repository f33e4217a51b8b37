# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels give the right answers on a GPU: the reference's, and torchvision's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aot_caller import AotCaller
from element_types import ELEMENT_BYTES
from geometries import CUDA_BLOCKS, GRID, Geometry
from kernels import Kernels, by_reference, problem_of
from reference import sampling_points

GEOMETRIES = {**GRID, **CUDA_BLOCKS}
CROWDED = Geometry(batch=1, channels_in=64, channels_out=8, size=(40, 40))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_is_right_forward_and_backward(
    kernels: Kernels, caller: AotCaller, name: str, dtype: str, deterministic: bool
) -> None:
    problem = problem_of(GEOMETRIES[name], dtype)
    (answer,) = caller.solve([problem], dtype, deterministic)
    kernels.assert_right(answer, by_reference(problem), dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 3e-5)])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_torchvision_on_the_gpu_agrees(
    kernels: Kernels, name: str, dtype: str, tolerance: float
) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision with CUDA")
    import torchvision_operator

    problem = problem_of(GEOMETRIES[name], dtype)
    (answer,) = kernels.solve([problem], dtype)
    grad_output = problem.pop("grad_output")
    expected = torchvision_operator.gradients(problem, grad_output, dtype, "cuda")
    kernels.assert_right(answer, expected, dtype, tolerance)


def to_the_first_pixels(problem: dict[str, Any]) -> np.ndarray:
    """Offsets that lead every tap to the same few pixels, whose gradients are then long sums."""
    offset = problem["offset"]
    kernel = problem["weight"].shape[2:]
    constants = [problem[name] for name in ("stride", "padding", "dilation")]
    y, x = sampling_points(np.zeros_like(offset), kernel, *constants)
    wanted = np.round(np.abs(offset) % 2 * 4).reshape(*y.shape[:3], 2, *y.shape[3:]) / 4
    return (wanted - np.stack((y, x), axis=3)).reshape(offset.shape)


@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
def test_deterministic_gradients_have_the_same_bits_every_time(caller, dtype: str) -> None:
    problem = problem_of(CROWDED, dtype)
    problem["offset"] = to_the_first_pixels(problem)
    grad_output = problem.pop("grad_output")
    first, *others = (
        caller.gradients(problem, grad_output, dtype, deterministic=True) for _ in range(5)
    )
    for other in others:
        for one, another in zip(first, other):
            np.testing.assert_array_equal(one, another)
