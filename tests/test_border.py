# SPDX-License-Identifier: Apache-2.0
"""What one sample is worth, and its slopes, at and around every pixel and border.

The image is [4, 7]; a 1x1 kernel of weight 1 samples it at one point (y, x) of each batch entry.
"""

from __future__ import annotations

import numpy as np
import pytest

from element_types import ELEMENT_BYTES
from kernels import Answer, Kernels
from tolerances import assert_close

pytestmark = pytest.mark.parametrize("dtype", ELEMENT_BYTES)

HEIGHT, WIDTH = 4, 7
# Multiples of 1/4 that every dtype holds, all different, with no plane through them.
IMAGE = (np.arange(HEIGHT * WIDTH) ** 2 % 29 / 4 + 1).reshape(HEIGHT, WIDTH)

EXACT = {
    "pixel by pixel": [(y, x) for y in range(HEIGHT) for x in range(WIDTH)],
    "on y = -1": [(-1, x) for x in (-1, 0, 0.25, 3, WIDTH - 1, WIDTH - 0.5, WIDTH)],
    "on x = -1": [(y, -1) for y in (-1, 0, 0.25, 2, HEIGHT - 1, HEIGHT - 0.5, HEIGHT)],
    "on y = H": [(HEIGHT, x) for x in (-1, 0, 0.25, 3, WIDTH - 1, WIDTH)],
    "on x = W": [(y, WIDTH) for y in (-1, 0, 0.25, 2, HEIGHT - 1, HEIGHT)],
    "within a pixel outside": [(-0.5, 2.25), (1.25, -0.75), (-0.25, -0.5), (-0.5, WIDTH - 0.5)],
    "within a pixel beyond": [(HEIGHT - 0.5, 1.5), (1.5, WIDTH - 0.25), (3.25, 6.75)],
    "farther outside": [(-1.25, 2), (2, -1.5), (-2, -2), (HEIGHT + 0.25, 2), (2, WIDTH + 1)],
    "between pixels": [(0.5, 0.25), (1.75, 3), (2, 4.5), (2.25, 5.75)],
}


def value(y: float, x: float) -> float:
    """Every pixel times max(0, 1 - |distance|): equations (3) and (4) of arXiv:1703.06211."""
    return sum(
        max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column)) * IMAGE[row, column]
        for row in range(HEIGHT)
        for column in range(WIDTH)
    )


def slope(y: float, x: float, along_y: bool) -> float:
    """value is linear to the next whole number, so its slope to the right is a difference.

    From exactly y = -1 that makes v[0], as v[0] - 0.
    """
    step = 0.125
    ahead = value(y + step, x) if along_y else value(y, x + step)
    return (ahead - value(y, x)) / step


def probe(kernels: Kernels, points: list[tuple[float, float]], dtype: str) -> Answer:
    count = len(points)
    call = {
        "input": np.broadcast_to(IMAGE, (count, 1, HEIGHT, WIDTH)),
        "offset": np.array(points, float).reshape(count, 2, 1, 1),
        "weight": np.ones((1, 1, 1, 1)),
        "mask": np.ones((count, 1, 1, 1)),
        "stride": (HEIGHT, WIDTH),
    }
    output, gradients = kernels.answer(call, np.ones((count, 1, 1, 1)), dtype)
    return output.reshape(count), gradients


@pytest.mark.parametrize("where", EXACT)
def test_value_and_slopes_of_a_sample(kernels: Kernels, where: str, dtype: str) -> None:
    points = EXACT[where]
    output, gradients = probe(kernels, points, dtype)
    values = np.array([value(y, x) for y, x in points])
    slopes = np.array([[slope(y, x, True), slope(y, x, False)] for y, x in points])
    assert_close(output, values, dtype, "output")
    assert_close(gradients.mask.reshape(-1), values, dtype, "mask")
    assert_close(gradients.offset.reshape(-1, 2), slopes, dtype, "offset")
    assert_close(gradients.weight.reshape(()), values.sum(), dtype, "weight")


@pytest.mark.parametrize("where", EXACT)
def test_the_input_gradient_of_a_sample_is_its_corners_weights(
    kernels: Kernels, where: str, dtype: str
) -> None:
    points = EXACT[where]
    _, gradients = probe(kernels, points, dtype)
    rows, columns = np.arange(HEIGHT)[:, None], np.arange(WIDTH)
    expected = np.stack(
        [np.maximum(0, 1 - abs(y - rows)) * np.maximum(0, 1 - abs(x - columns)) for y, x in points]
    )
    assert_close(gradients.input[:, 0], expected, dtype, "input")


def test_on_minus_one_only_the_offset_gradient_is_not_zero(kernels: Kernels, dtype: str) -> None:
    output, gradients = probe(kernels, [(-1, 2), (2, -1)], dtype)
    assert not output.any()
    assert not gradients.mask.any()
    assert not gradients.input.any()
    assert gradients.offset.reshape(2, 2).tolist() == [[IMAGE[0, 2], 0], [0, IMAGE[2, 0]]]
