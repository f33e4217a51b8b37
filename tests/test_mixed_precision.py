# SPDX-License-Identifier: Apache-2.0
"""MindSpore's automatic mixed precision works around the layer and around the function."""

from __future__ import annotations

import copy

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import DeformConv2d
from networks import FunctionNet, LayerNet, MeanSquare, image, paired

pytestmark = [pytest.mark.usefixtures("device", "mode"), pytest.mark.usefixtures("scratch_folder")]

NETS = {"layer": LayerNet, "function": FunctionNet}
LEVELS = ("O0", "O1", "O2", "O3", "auto")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
def test_output_and_gradients_stay_close_to_float32(net, level):
    exact = MeanSquare(net())
    mixed = MeanSquare(ms.amp.auto_mixed_precision(copy.deepcopy(exact.net), level))
    output = mixed.net(image()).astype(ms.float32).asnumpy()
    np.testing.assert_allclose(output, exact.net(image()).asnumpy(), rtol=0.05, atol=0.05)
    weights = ms.ParameterTuple(exact.trainable_params())
    expected = ms.grad(exact, None, weights)(image())
    weights = ms.ParameterTuple(mixed.trainable_params())
    for gradient, wanted in paired(ms.grad(mixed, None, weights)(image()), expected):
        assert gradient.dtype == ms.float32
        scale = np.abs(wanted.asnumpy()).max()
        np.testing.assert_allclose(gradient.asnumpy(), wanted.asnumpy(), atol=0.1 * scale)


@pytest.mark.parametrize("level", ("O2", "auto"))
def test_training_with_a_loss_scale_lowers_the_loss(level):
    net = MeanSquare(ms.amp.auto_mixed_precision(LayerNet(), level))
    optimizer = nn.Adam(net.trainable_params(), learning_rate=1e-2)
    scaler = ms.amp.StaticLossScaler(128.0)

    def scaled_loss(input):
        return scaler.scale(net(input))

    step = ms.value_and_grad(scaled_loss, None, optimizer.parameters)
    losses = []
    for _ in range(10):
        loss, gradients = step(image())
        optimizer(scaler.unscale(gradients))
        losses.append(float(scaler.unscale(loss).asnumpy()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "dtype",
    (
        ms.float16,
        pytest.param(
            ms.bfloat16,
            marks=pytest.mark.not_on_gpu_stand_in("MindSpore's Cast has no bfloat16 on a GPU"),
        ),
    ),
    ids=str,
)
def test_to_float_casts_inputs_and_parameters(dtype):
    exact = DeformConv2d(4, 6, 3, padding=1)
    mixed = copy.deepcopy(exact).to_float(dtype)
    offset = ops.zeros((2, 18, 7, 9), ms.float32)
    output = mixed(image(), offset)
    assert output.dtype == dtype
    output, expected = output.astype(ms.float32).asnumpy(), exact(image(), offset).asnumpy()
    np.testing.assert_allclose(output, expected, rtol=0.05, atol=0.05)
