# SPDX-License-Identifier: Apache-2.0
"""Sizes around every block that the CPU kernels work in."""

from __future__ import annotations

import pytest

import operator_under_test
import reference
from element_types import held_in
from geometries import Geometry
from tolerances import assert_close, assert_gradients_close

pytestmark = pytest.mark.usefixtures("device", "mode")


def plane(width: int) -> Geometry:
    return Geometry(channels_in=2, channels_out=3, size=(1, width), kernel=(1, 1), padding=(0, 0))


def channels(channels_in: int, channels_out: int, **changed: object) -> Geometry:
    return Geometry(channels_in=channels_in, channels_out=channels_out, **changed)


SIZES = {
    # Rows of a register block, pixels of a small tile and of a large one, one more than two.
    **{f"{pixels} pixels": plane(pixels) for pixels in (1, 5, 6, 7, 12, 13, 47, 48, 49, 97, 3169)},
    # A vector, a panel, and one more, for every instruction set and both types.
    **{f"{n} channels out": channels(3, n) for n in (7, 8, 9, 16, 17, 31, 33, 64, 65, 129)},
    # Vectors of the sampler, its powers of two, a channel block.
    **{f"{n} channels in": channels(n, 3) for n in (7, 8, 9, 17, 24, 33, 63, 64, 65, 128, 129)},
    "groups of more channels than a block": channels(390, 9, groups=3),
    "more small groups than a block": channels(300, 150, groups=150),
    "groups that leave room in a block": channels(50, 20, groups=10),
    "wide outputs of few groups": channels(4, 2100, groups=2, size=(3, 4)),
    "depthwise beyond a block": channels(131, 131, groups=131),
    "offset groups cut groups": channels(24, 4, groups=4, offset_groups=3),
    "an offset group in several blocks": channels(300, 3, offset_groups=2),
    "several offset groups in a block": channels(24, 3, offset_groups=3),
    "offset groups that leave room in a block": channels(40, 3, offset_groups=8),
    "offset groups beyond a block": channels(260, 2, offset_groups=130),
    "an offset group in several waves": channels(
        130, 1, size=(400, 300), kernel=(1, 1), padding=(0, 0), stride=(97, 53)
    ),
    "more taps than a block": channels(65, 5, kernel=(7, 7), padding=(3, 3), size=(5, 6)),
    "more images than a pass": channels(
        3, 1, batch=5, size=(1000, 701), kernel=(1, 1), padding=(0, 0), stride=(97, 53)
    ),
}


@pytest.mark.parametrize("dtype", ("float64", "float32"))
@pytest.mark.parametrize("geometry", SIZES.values(), ids=SIZES.keys())
def test_output_and_gradients_around_every_block_size(geometry, dtype):
    call = held_in(dtype, geometry.call())
    grad_output = geometry.grad_output().astype(dtype).astype("float64")
    output, gradients = operator_under_test.gradients(call, grad_output, dtype)
    assert_close(output, reference.deform_conv2d(**call), dtype, "output")
    assert_gradients_close(
        gradients, reference.deform_conv2d_grad(grad_output=grad_output, **call), dtype
    )
