# SPDX-License-Identifier: Apache-2.0
"""Where torchvision is undefined or poor, and what holds here instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import operator_under_test
import reference
from element_types import held_in
from geometries import Geometry
from ms_deform import set_backend
from operator_under_test import DTYPES
from tolerances import assert_close, assert_gradients_close

pytestmark = pytest.mark.usefixtures("device", "mode")

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
# Not the fixture of this name, which would hold for the tests between these as well.
each_backend = pytest.mark.parametrize("backend", ["aot", "composition"])

# The spoiled sample: one tap of one offset group at one pixel of the second image.
GEOMETRY = Geometry(size=(6, 7), groups=2, offset_groups=3)
OFFSET_GROUP, TAP, PIXEL = 2, 4, (3, 5)
TAPS = GEOMETRY.kernel[0] * GEOMETRY.kernel[1]
MASK_AT = (1, OFFSET_GROUP * TAPS + TAP, *PIXEL)
OFFSET_Y_AT = (1, 2 * MASK_AT[1], *PIXEL)
OFFSET_X_AT = (1, 2 * MASK_AT[1] + 1, *PIXEL)
# Offset group 2 holds channels 4 and 5, which are channels 1 and 2 of the second group.
SECOND_GROUP = slice(GEOMETRY.channels_out // 2, None)
WEIGHT_AT = (SECOND_GROUP, slice(1, 3), *np.unravel_index(TAP, GEOMETRY.kernel))

SPOILED = {
    "y": {OFFSET_Y_AT: 1.0},
    "x": {OFFSET_X_AT: 1.0},
    "y and x": {OFFSET_Y_AT: 1.0, OFFSET_X_AT: -1.0},
}


def calls(dtype: str, sample: str, value: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The call with `value` in one sample's offset, and the same call without this sample."""
    call = held_in(dtype, GEOMETRY.call())
    spoiled = {**call, "offset": call["offset"].copy()}
    for at, sign in SPOILED[sample].items():
        spoiled["offset"][at] = sign * value
    without = {**call, "mask": call["mask"].copy()}
    without["mask"][MASK_AT] = 0
    return spoiled, without


def only(array: np.ndarray, *positions: tuple[Any, ...]) -> np.ndarray:
    chosen = np.zeros(array.shape, bool)
    for at in positions:
        chosen[at] = True
    return chosen


@each_dtype
@pytest.mark.parametrize("sample", SPOILED)
def test_a_nan_offset_spoils_its_pixel_and_nothing_else(sample: str, dtype: str) -> None:
    spoiled, without = calls(dtype, sample, np.nan)
    grad_output = held_in(dtype, {**without, "g": GEOMETRY.grad_output()})["g"]
    output, actual = operator_under_test.gradients(spoiled, grad_output, dtype)
    clean = reference.deform_conv2d_grad(grad_output, **without)

    nan = {
        "output": only(output, (1, SECOND_GROUP, *PIXEL)),
        "input": only(actual.input),
        "offset": only(actual.offset, OFFSET_Y_AT, OFFSET_X_AT),
        "mask": only(actual.mask, MASK_AT),
        "weight": only(actual.weight, WEIGHT_AT),
        "bias": only(actual.bias),
    }
    results = {"output": output, **actual._asdict()}
    expected = {"output": reference.deform_conv2d(**without), **clean._asdict()}
    for name, where in nan.items():
        assert np.array_equal(np.isnan(results[name]), where), name
        assert_close(results[name][~where], expected[name][~where], dtype, name)


@each_backend
@each_dtype
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize("sample", SPOILED)
def test_a_sample_at_infinity_is_zero_and_so_are_its_gradients(
    sample: str, value: float, dtype: str, backend: str
) -> None:
    spoiled, without = calls(dtype, sample, value)
    grad_output = held_in(dtype, {**without, "g": GEOMETRY.grad_output()})["g"]
    with set_backend(backend):
        output, actual = operator_under_test.gradients(spoiled, grad_output, dtype)
    expected = reference.deform_conv2d_grad(grad_output, **without)
    expected.mask[MASK_AT] = 0
    assert_close(output, reference.deform_conv2d(**without), dtype, "output")
    assert_gradients_close(actual, expected, dtype)
    assert actual.offset[OFFSET_Y_AT] == actual.offset[OFFSET_X_AT] == actual.mask[MASK_AT] == 0


@each_backend
@each_dtype
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, 60000.0])
def test_with_every_sample_outside_the_output_is_the_bias(
    value: float, dtype: str, backend: str
) -> None:
    call = held_in(dtype, GEOMETRY.call())
    call["offset"] = np.full_like(call["offset"], value)
    call["input"] = np.full_like(call["input"], np.nan)
    ones = np.ones_like(GEOMETRY.grad_output())
    with set_backend(backend):
        output, actual = operator_under_test.gradients(call, ones, dtype)
    assert np.array_equal(output, np.broadcast_to(call["bias"][:, None, None], output.shape))
    for name in ("input", "offset", "mask", "weight"):
        assert not getattr(actual, name).any(), name


def wide(points: list[tuple[float, float]], image: np.ndarray, count: int) -> dict[str, Any]:
    """Samples of a 1x1 kernel of weight 1 at absolute points, one for each of `count` images."""
    return {
        "input": np.broadcast_to(image, (count, 1, *image.shape)),
        "offset": np.array(points, float).reshape(count, 2, 1, 1),
        "weight": np.ones((1, 1, 1, 1)),
        "mask": np.ones((count, 1, 1, 1)),
        "stride": image.shape,
    }


HEIGHT, WIDTH = 4, 5
# A point, and the pixels inside the image that it touches; the rest hold NaN or infinity.
AT_THE_EDGE = {
    "above": ((-0.5, 2.5), [(0, 2), (0, 3)]),
    "below": ((3.5, 2.5), [(3, 2), (3, 3)]),
    "left": ((1.5, -0.5), [(1, 0), (2, 0)]),
    "right": ((1.5, 4.5), [(1, 4), (2, 4)]),
    "above left": ((-0.5, -0.5), [(0, 0)]),
    "above right": ((-0.5, 4.5), [(0, 4)]),
    "below left": ((3.5, -0.5), [(3, 0)]),
    "below right": ((3.5, 4.5), [(3, 4)]),
    "outside above": ((-1.5, 2.5), []),
    "outside on the right": ((2.5, 5.0), []),
}


@each_dtype
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_corner_outside_the_image_never_leaks(poison: float, dtype: str) -> None:
    points = [point for point, _ in AT_THE_EDGE.values()]
    images = np.full((len(points), 1, HEIGHT, WIDTH), poison)
    expected = []
    for image, (_, touched) in zip(images[:, 0], AT_THE_EDGE.values()):
        for at in touched:
            image[at] = 2.0
        expected.append(2.0 * (0.25 if len(touched) == 1 else len(touched) / 4))
    call = {**wide(points, images[0, 0], len(points)), "input": images}
    output, actual = operator_under_test.gradients(call, np.ones((len(points), 1, 1, 1)), dtype)
    assert output.reshape(-1).tolist() == expected
    assert actual.mask.reshape(-1).tolist() == expected
    assert np.isfinite(actual.offset).all()
    assert actual.weight.item() == sum(expected)
    assert actual.input.sum((1, 2, 3)).tolist() == [e / 2.0 for e in expected]


@each_dtype
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_sample_exactly_on_minus_one_is_zero_over_any_image(poison: float, dtype: str) -> None:
    points = [(-1, 2), (2, -1), (-1, -1)]
    call = wide(points, np.full((HEIGHT, WIDTH), poison), len(points))
    output, actual = operator_under_test.gradients(call, np.ones((len(points), 1, 1, 1)), dtype)
    assert not output.any()
    assert not actual.input.any()
    assert not actual.mask.any()
    assert not actual.weight.any()


@each_dtype
def test_nan_in_an_image_stays_in_its_image_and_group(dtype: str) -> None:
    call = held_in(dtype, GEOMETRY.call())
    clean = reference.deform_conv2d(**call)
    call["input"] = call["input"].copy()
    call["input"][0, :3] = np.nan  # the first group of the first image
    output = operator_under_test.forward(call, dtype)
    spoiled = only(output, (0, slice(None, GEOMETRY.channels_out // 2)))
    assert np.isnan(output[spoiled]).any()
    assert_close(output[~spoiled], clean[~spoiled], dtype, "output")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_sample_a_wide_image_at_half_pixels(dtype: str) -> None:
    """float16 alone steps by whole pixels above 1024, bfloat16 above 256."""
    width = 2500
    image = np.stack([np.arange(width) % 5, np.arange(width) % 3]).astype(float)
    call = {
        "input": image[None, None],
        "offset": np.stack([np.zeros_like(image), np.full_like(image, 0.5)])[None],
        "weight": np.ones((1, 1, 1, 1)),
    }
    right = np.pad(image, ((0, 0), (0, 1)))[:, 1:]
    output, actual = operator_under_test.gradients(call, np.ones((1, 1, 2, width)), dtype)
    assert np.array_equal(output[0, 0], (image + right) / 2)
    assert np.array_equal(actual.offset[0, 1], right - image)


@each_dtype
def test_a_batch_of_a_prime_above_32_is_computed_like_any_other(dtype: str) -> None:
    geometry = Geometry(batch=37, channels_in=2, channels_out=3, size=(3, 4))
    call = held_in(dtype, {**geometry.call(), "grad_output": geometry.grad_output()})
    grad_output = call.pop("grad_output")
    output, actual = operator_under_test.gradients(call, grad_output, dtype)
    assert_close(output, reference.deform_conv2d(**call), dtype, "output")
    assert_gradients_close(actual, reference.deform_conv2d_grad(grad_output, **call), dtype)


@pytest.mark.parametrize("padding", [(0, 3, 2, 1), (2, 0, 0, 0), (1, 1, 3, 3)])
def test_four_sided_padding_is_an_image_with_zeros_around(padding: tuple[int, ...]) -> None:
    geometry = Geometry(padding=padding)
    call = geometry.call()
    top, bottom, left, right = padding
    around = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = {**call, "input": np.pad(call["input"], around), "padding": (0, 0)}
    output, actual = operator_under_test.gradients(call, geometry.grad_output())
    expected = reference.deform_conv2d_grad(geometry.grad_output(), **padded)
    inner = expected.input[:, :, top : top + geometry.size[0], left : left + geometry.size[1]]
    assert_close(output, reference.deform_conv2d(**padded), "float64", "output")
    assert_gradients_close(actual, expected._replace(input=inner), "float64")


def test_no_channels_out_is_an_empty_output_and_no_gradient() -> None:
    geometry = Geometry(channels_out=0)
    output, actual = operator_under_test.gradients(geometry.call(), geometry.grad_output())
    assert output.shape == (2, 0, *geometry.output_size)
    assert actual.weight.shape == (0, geometry.channels_in, *geometry.kernel)
    for name in ("input", "offset", "mask"):
        assert not getattr(actual, name).any(), name


@each_dtype
def test_an_empty_batch_has_zero_weight_and_bias_gradients(dtype: str) -> None:
    geometry = Geometry(batch=0)
    _, actual = operator_under_test.gradients(geometry.call(), geometry.grad_output(), dtype)
    assert not actual.weight.any()
    assert not actual.bias.any()
