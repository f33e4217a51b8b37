# SPDX-License-Identifier: Apache-2.0
"""The kernels' working memory: bounded, kept between calls, given back when asked for."""

from __future__ import annotations

import mindspore as ms
import pytest
from mindspore import ops

import ms_deform
from ms_deform import deform_conv2d

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.not_on_gpu_stand_in("takes minutes"),
]

# What real networks need most for: input, weight, output size, taken from the benchmark's rows.
LARGEST_LAYERS = {
    "ResNet-50, stride 2": ((2, 128, 200, 336), (128, 128, 3, 3), 2),
    "BiRefNet 7x7": ((1, 64, 256, 256), (256, 64, 7, 7), 1),
    "CenterNet": ((16, 64, 128, 128), (64, 64, 3, 3), 1),
    "BasicVSR++": ((1, 128, 180, 320), (64, 128, 3, 3), 1),
}


def gradients(input_shape, weight_shape, stride=1):
    """Forward and backward of a call on zeros."""
    batch, _, height, width = input_shape
    kernel = weight_shape[2]
    out_size = [(size - 1) // stride + 1 for size in (height, width)]
    offset = ops.zeros((batch, 2 * kernel * kernel, *out_size), ms.float32)
    input, weight = (ops.zeros(shape, ms.float32) for shape in (input_shape, weight_shape))

    def loss(input, offset, weight):
        return deform_conv2d(input, offset, weight, stride=stride, padding=kernel // 2).sum()

    for gradient in ms.grad(loss, (0, 1, 2))(input, offset, weight):
        gradient.asnumpy()  # waits for it


@pytest.fixture(autouse=True)
def nothing_held():
    ms_deform.release_scratch()
    assert ms_deform.scratch_bytes() == 0


@pytest.mark.parametrize("layer", LARGEST_LAYERS.values(), ids=LARGEST_LAYERS.keys())
def test_training_the_largest_layers_takes_less_than_64_mb(layer):
    gradients(*layer)
    assert 0 < ms_deform.scratch_bytes() < 64e6


def test_a_call_uses_what_the_last_one_left():
    gradients((1, 16, 40, 40), (16, 16, 3, 3))
    held = ms_deform.scratch_bytes()
    gradients((1, 16, 40, 40), (16, 16, 3, 3))
    gradients((1, 16, 20, 20), (16, 16, 3, 3))
    assert ms_deform.scratch_bytes() == held
