# SPDX-License-Identifier: Apache-2.0
"""torchvision's own tests of deform_conv2d (test/test_ops.py, TestDeformConv), told anew."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import operator_under_test
import reference
from finite_differences import assert_gradients_match_differences
from geometries import GRID
from kernels import Kernels, by_reference, problem_of
from tolerances import assert_close, assert_gradients_close

OWN = GRID["torchvision's own"]

each_batch = pytest.mark.parametrize("batch", [0, 33])
each_mask = pytest.mark.parametrize("use_mask", [True, False], ids=["mask", "no mask"])
in_mindspore = pytest.mark.usefixtures("device", "mode")


@each_batch
@each_mask
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_forward(cpu_kernels: Kernels, dtype: str, use_mask: bool, batch: int) -> None:
    problem = problem_of(replace(OWN, batch=batch, use_mask=use_mask), dtype)
    (actual,) = cpu_kernels.solve([problem], dtype)
    cpu_kernels.assert_right(actual, by_reference(problem), dtype)


@each_batch
@each_mask
def test_gradcheck(cpu_kernels: Kernels, use_mask: bool, batch: int) -> None:
    geometry = replace(OWN, batch=batch, use_mask=use_mask)
    grad_output = geometry.grad_output()
    assert_gradients_match_differences(
        forward=lambda call: cpu_kernels.answer(call, grad_output, "float64")[0],
        gradients=lambda call: cpu_kernels.answer(call, grad_output, "float64")[1],
        call=geometry.call(),
        grad_output=grad_output,
    )


@in_mindspore
@pytest.mark.parametrize("batch", [0, 3])
def test_inputs_permuted_in_memory(batch: int) -> None:
    problem = problem_of(replace(OWN, batch=batch), "float32")
    expected, expected_gradients = by_reference(problem)
    grad_output = problem.pop("grad_output")
    output, gradients = operator_under_test.gradients(problem, grad_output, "float32", True)
    assert_close(output, expected, "float32", "output")
    assert_gradients_close(gradients, expected_gradients, "float32")


@in_mindspore
def test_too_few_offset_channels_name_the_shape_of_the_offset() -> None:
    call = OWN.call()
    with pytest.raises(ValueError, match="the shape of the offset"):
        operator_under_test.forward({**call, "offset": call["offset"][:, :-1]})


@in_mindspore
def test_too_few_mask_channels_name_the_mask() -> None:
    call = OWN.call()
    with pytest.raises(ValueError, match=r"mask.shape\[1\] is not valid"):
        operator_under_test.forward({**call, "mask": call["mask"][:, :-1]})


@lru_cache(maxsize=1)
def long_image() -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Three images of 1000 x 110 (vision#2598), a grad_output, and the weight gradient."""
    rng = np.random.default_rng(0)
    call = {
        "input": rng.normal(size=(3, 9, 1000, 110)),
        "offset": np.round(rng.random((3, 18, 1000, 110)) * 1024) / 1024,
        "weight": rng.normal(size=(9, 9, 3, 3)),
        "mask": rng.random((3, 9, 1000, 110)),
        "padding": (1, 1),
    }
    grad_output = rng.normal(size=(3, 9, 1000, 110))
    gradient = np.zeros((9, 9 * 9))
    for n in range(3):  # one image at a time, for the memory the reference takes
        image = slice(n, n + 1)
        points = reference.sampling_points(call["offset"][image], (3, 3), 1, 1, 1)
        value = reference.sample(call["input"][image], *points)
        columns = value[0, 0] * call["mask"][n][..., None]  # [K, Ho, Wo, C_in]
        gradient += np.einsum("oyx,kyxc->ock", grad_output[n], columns, optimize=True).reshape(
            gradient.shape
        )
    return call, grad_output, gradient.reshape(9, 9, 3, 3)


def test_the_weight_gradient_of_long_images(cpu_kernels: Kernels) -> None:
    call, grad_output, expected = long_image()
    _, actual = cpu_kernels.answer(call, grad_output, "float32")
    assert_close(actual.weight, expected, "float32", "weight")
