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
from element_types import held_in
from finite_differences import assert_gradients_match_differences
from geometries import GRID
from reference import Gradients
from tolerances import assert_close

pytestmark = pytest.mark.usefixtures("device", "mode")

OWN = GRID["torchvision's own"]

each_layout = pytest.mark.parametrize(
    "permuted", [False, True], ids=["contiguous inputs", "permuted inputs"]
)
each_batch = pytest.mark.parametrize("batch", [0, 33])
each_mask = pytest.mark.parametrize("use_mask", [True, False], ids=["mask", "no mask"])


@each_layout
@each_batch
@each_mask
@pytest.mark.parametrize(
    "dtype, tolerance", [("float64", 1e-5), ("float32", 1e-5), ("float16", 2e-3)]
)
def test_forward(dtype: str, tolerance: float, use_mask: bool, batch: int, permuted: bool) -> None:
    call = held_in(dtype, replace(OWN, batch=batch, use_mask=use_mask).call())
    actual = operator_under_test.forward(call, dtype, permuted)
    assert_close(actual, reference.deform_conv2d(**call), dtype, "output", tolerance)


@each_layout
@each_batch
@each_mask
def test_gradcheck(use_mask: bool, batch: int, permuted: bool) -> None:
    geometry = replace(OWN, batch=batch, use_mask=use_mask)
    grad_output = geometry.grad_output()

    def gradients(call: dict[str, Any]) -> Gradients:
        return operator_under_test.gradients(call, grad_output, permuted=permuted)[1]

    assert_gradients_match_differences(
        forward=lambda call: operator_under_test.forward(call, permuted=permuted),
        gradients=gradients,
        call=geometry.call(),
        grad_output=grad_output,
    )


def test_too_few_offset_channels_name_the_shape_of_the_offset() -> None:
    call = OWN.call()
    with pytest.raises(ValueError, match="the shape of the offset"):
        operator_under_test.forward({**call, "offset": call["offset"][:, :-1]})


def test_too_few_mask_channels_name_the_mask() -> None:
    call = OWN.call()
    with pytest.raises(ValueError, match=r"mask.shape\[1\] is not valid"):
        operator_under_test.forward({**call, "mask": call["mask"][:, :-1]})


@lru_cache(maxsize=1)
def long_image() -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Eight images of 1000 x 110 (vision#2598), a grad_output, and the weight gradient."""
    rng = np.random.default_rng(0)
    call = {
        "input": rng.normal(size=(8, 9, 1000, 110)),
        "offset": np.round(rng.random((8, 18, 1000, 110)) * 1024) / 1024,
        "weight": rng.normal(size=(9, 9, 3, 3)),
        "mask": rng.random((8, 9, 1000, 110)),
        "padding": (1, 1),
    }
    grad_output = rng.normal(size=(8, 9, 1000, 110))
    gradient = np.zeros((9, 9 * 9))
    for n in range(8):  # one image at a time, for the memory the reference takes
        image = slice(n, n + 1)
        points = reference.sampling_points(call["offset"][image], (3, 3), 1, 1, 1)
        value = reference.sample(call["input"][image], *points)
        columns = value[0, 0] * call["mask"][n][..., None]  # [K, Ho, Wo, C_in]
        gradient += np.einsum("oyx,kyxc->ock", grad_output[n], columns, optimize=True).reshape(
            gradient.shape
        )
    return call, grad_output, gradient.reshape(9, 9, 3, 3)


def test_the_weight_gradient_of_long_images() -> None:
    call, grad_output, expected = long_image()
    _, actual = operator_under_test.gradients(call, grad_output, "float32")
    assert_close(actual.weight, expected, "float32", "weight")
