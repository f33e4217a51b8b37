# SPDX-License-Identifier: Apache-2.0
"""Where torchvision is undefined or poor, and what holds here instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import operator_under_test
import reference
from element_types import ELEMENT_BYTES, held_in
from geometries import Geometry
from kernels import Kernels, by_reference, problem_of
from tolerances import assert_close, assert_gradients_close

each_dtype = pytest.mark.parametrize("dtype", ELEMENT_BYTES)

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
def test_a_nan_offset_spoils_its_pixel_and_nothing_else(
    kernels: Kernels, sample: str, dtype: str
) -> None:
    spoiled, without = calls(dtype, sample, np.nan)
    grad_output = held_in(dtype, {**without, "g": GEOMETRY.grad_output()})["g"]
    output, actual = kernels.answer(spoiled, grad_output, dtype)
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
        actual_rest, expected_rest = results[name][~where], expected[name][~where]
        assert_close(actual_rest, expected_rest, dtype, name, matrix_unit=kernels.matrix_unit)


@each_dtype
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize("sample", SPOILED)
def test_a_sample_at_infinity_is_zero_and_so_are_its_gradients(
    kernels: Kernels, sample: str, value: float, dtype: str
) -> None:
    spoiled, without = calls(dtype, sample, value)
    grad_output = held_in(dtype, {**without, "g": GEOMETRY.grad_output()})["g"]
    output, actual = kernels.answer(spoiled, grad_output, dtype)
    expected = by_reference({**without, "grad_output": grad_output})
    expected[1].mask[MASK_AT] = 0
    kernels.assert_right((output, actual), expected, dtype)
    assert actual.offset[OFFSET_Y_AT] == actual.offset[OFFSET_X_AT] == actual.mask[MASK_AT] == 0


@each_dtype
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30, 60000.0])
def test_with_every_sample_outside_the_output_is_the_bias(
    kernels: Kernels, value: float, dtype: str
) -> None:
    call = held_in(dtype, GEOMETRY.call())
    call["offset"] = np.full_like(call["offset"], value)
    call["input"] = np.full_like(call["input"], np.nan)
    ones = np.ones_like(GEOMETRY.grad_output())
    output, actual = kernels.answer(call, ones, dtype)
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
def test_a_corner_outside_the_image_never_leaks(
    kernels: Kernels, poison: float, dtype: str
) -> None:
    points = [point for point, _ in AT_THE_EDGE.values()]
    images = np.full((len(points), 1, HEIGHT, WIDTH), poison)
    expected = []
    for image, (_, touched) in zip(images[:, 0], AT_THE_EDGE.values()):
        for at in touched:
            image[at] = 2.0
        expected.append(2.0 * (0.25 if len(touched) == 1 else len(touched) / 4))
    call = {**wide(points, images[0, 0], len(points)), "input": images}
    output, actual = kernels.answer(call, np.ones((len(points), 1, 1, 1)), dtype)
    assert output.reshape(-1).tolist() == expected
    assert actual.mask.reshape(-1).tolist() == expected
    assert np.isfinite(actual.offset).all()
    assert actual.weight.item() == sum(expected)
    assert actual.input.sum((1, 2, 3)).tolist() == [e / 2.0 for e in expected]


@each_dtype
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_sample_exactly_on_minus_one_is_zero_over_any_image(
    kernels: Kernels, poison: float, dtype: str
) -> None:
    points = [(-1, 2), (2, -1), (-1, -1)]
    call = wide(points, np.full((HEIGHT, WIDTH), poison), len(points))
    output, actual = kernels.answer(call, np.ones((len(points), 1, 1, 1)), dtype)
    assert not output.any()
    assert not actual.input.any()
    assert not actual.mask.any()
    assert not actual.weight.any()


@each_dtype
def test_nan_in_an_image_stays_in_its_image_and_group(kernels: Kernels, dtype: str) -> None:
    call = held_in(dtype, GEOMETRY.call())
    clean = reference.deform_conv2d(**call)
    call["input"] = call["input"].copy()
    call["input"][0, :3] = np.nan  # the first group of the first image
    output, _ = kernels.answer(call, GEOMETRY.grad_output(), dtype)
    spoiled = only(output, (0, slice(None, GEOMETRY.channels_out // 2)))
    assert np.isnan(output[spoiled]).any()
    assert_close(
        output[~spoiled], clean[~spoiled], dtype, "output", matrix_unit=kernels.matrix_unit
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_sample_a_wide_image_at_half_pixels(kernels: Kernels, dtype: str) -> None:
    """float16 alone steps by whole pixels above 1024, bfloat16 above 256."""
    width = 2500
    image = np.stack([np.arange(width) % 5, np.arange(width) % 3]).astype(float)
    call = {
        "input": image[None, None],
        "offset": np.stack([np.zeros_like(image), np.full_like(image, 0.5)])[None],
        "weight": np.ones((1, 1, 1, 1)),
    }
    right = np.pad(image, ((0, 0), (0, 1)))[:, 1:]
    output, actual = kernels.answer(call, np.ones((1, 1, 2, width)), dtype)
    assert np.array_equal(output[0, 0], (image + right) / 2)
    assert np.array_equal(actual.offset[0, 1], right - image)


@each_dtype
def test_a_batch_of_a_prime_above_32_is_computed_like_any_other(
    kernels: Kernels, dtype: str
) -> None:
    problem = problem_of(Geometry(batch=37, channels_in=2, channels_out=3, size=(3, 4)), dtype)
    (actual,) = kernels.solve([problem], dtype)
    kernels.assert_right(actual, by_reference(problem), dtype)


@pytest.mark.parametrize("padding", [(0, 3, 2, 1), (2, 0, 0, 0), (1, 1, 3, 3)])
def test_four_sided_padding_is_an_image_with_zeros_around(
    kernels: Kernels, padding: tuple[int, ...]
) -> None:
    geometry = Geometry(padding=padding)
    call = geometry.call()
    top, bottom, left, right = padding
    around = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = {**call, "input": np.pad(call["input"], around), "padding": (0, 0)}
    actual = kernels.answer(call, geometry.grad_output(), "float64")
    output, expected = by_reference({**padded, "grad_output": geometry.grad_output()})
    inner = expected.input[:, :, top : top + geometry.size[0], left : left + geometry.size[1]]
    kernels.assert_right(actual, (output, expected._replace(input=inner)), "float64")


def test_no_channels_out_is_an_empty_output_and_no_gradient(kernels: Kernels) -> None:
    geometry = Geometry(channels_out=0)
    output, actual = kernels.answer(geometry.call(), geometry.grad_output(), "float64")
    assert output.shape == (2, 0, *geometry.output_size)
    assert actual.weight.shape == (0, geometry.channels_in, *geometry.kernel)
    for name in ("input", "offset", "mask"):
        assert not getattr(actual, name).any(), name


@each_dtype
def test_an_empty_batch_has_zero_weight_and_bias_gradients(kernels: Kernels, dtype: str) -> None:
    geometry = Geometry(batch=0)
    _, actual = kernels.answer(geometry.call(), geometry.grad_output(), dtype)
    assert not actual.weight.any()
    assert not actual.bias.any()


@pytest.mark.usefixtures("mode", "backend")
@pytest.mark.parametrize("backend", ["composition"], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.inf, 1e30])
def test_an_infinite_offset_samples_nothing_in_the_composition_either(
    value: float, dtype: str
) -> None:
    spoiled, without = calls(dtype, "y and x", value)
    grad_output = held_in(dtype, {**without, "g": GEOMETRY.grad_output()})["g"]
    output, actual = operator_under_test.gradients(spoiled, grad_output, dtype)
    expected_output, expected = by_reference({**without, "grad_output": grad_output})
    expected.mask[MASK_AT] = 0
    assert_close(output, expected_output, dtype, "output")
    assert_gradients_close(actual, expected, dtype)
    assert actual.offset[OFFSET_Y_AT] == actual.offset[OFFSET_X_AT] == actual.mask[MASK_AT] == 0
