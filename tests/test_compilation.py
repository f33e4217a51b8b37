# SPDX-License-Identifier: Apache-2.0
"""Every way MindSpore compiles or transforms a function gives the plain call's results."""

from __future__ import annotations

import copy
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import deform_conv2d
from networks import (
    CHANNELS,
    SIZE,
    TAPS,
    LayerNet,
    MeanSquare,
    call_tensors,
    image,
    paired,
    random_array,
)

pytestmark = pytest.mark.usefixtures("device", "mode", "backend")

CAPTURES = {
    "ast O0": {"capture_mode": "ast", "jit_level": "O0"},
    "ast O1": {"capture_mode": "ast", "jit_level": "O1"},
    "bytecode": {"capture_mode": "bytecode"},
}


def convolve(input, offset, weight, bias, mask):
    return deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)


def square_of_convolution(input, offset, weight, bias, mask):
    return ops.square(convolve(input, offset, weight, bias, mask)).sum()


def arguments() -> list[ms.Tensor]:
    tensors = call_tensors()
    return [tensors[name] for name in ("input", "offset", "weight", "bias", "mask")]


def assert_same(actual: ms.Tensor, expected: ms.Tensor) -> None:
    scale = max(1.0, np.abs(expected.asnumpy()).max())
    np.testing.assert_allclose(actual.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES.keys())
def test_jit_gives_the_output_and_the_gradients(capture):
    if capture["capture_mode"] == "bytecode" and sys.version_info >= (3, 12):
        pytest.skip("MindSpore's bytecode capture does not support Python 3.12")
    assert_same(ms.jit(convolve, **capture)(*arguments()), convolve(*arguments()))
    gradients = ms.grad(square_of_convolution, (0, 1, 2, 3, 4))
    expected = gradients(*arguments())
    through = ms.grad(ms.jit(square_of_convolution, **capture), (0, 1, 2, 3, 4))
    for gradient, wanted in paired(through(*arguments()), expected):
        assert_same(gradient, wanted)


@pytest.mark.parametrize("level", ("O0", "O1"))
def test_jit_levels_of_a_cell_give_the_same_training(level):
    plain = MeanSquare(LayerNet())
    leveled = copy.deepcopy(plain)
    leveled.set_jit_config(ms.JitConfig(jit_level=level))
    for net in (plain, leveled):
        step = nn.TrainOneStepCell(net, nn.SGD(net.trainable_params(), learning_rate=0.1))
        step.set_train()
        net.loss = step(image())
    assert_same(leveled.loss, plain.loss)
    for left, right in paired(leveled.trainable_params(), plain.trainable_params()):
        assert_same(left, right)


# The operators of the gradients of input and of weight.
GRADIENTS = {
    "aot": ("MsDeformGradInput", "MsDeformGradWeight"),
    "composition": ("DeformableOffsetsGrad", "Conv2DBackpropFilter"),
}


def test_a_graph_drops_the_gradients_nobody_asks_for(monkeypatch, tmp_path, backend):
    @ms.jit
    def input_gradient(*tensors):
        return ms.grad(square_of_convolution)(*tensors)

    monkeypatch.chdir(tmp_path)
    ms.set_context(save_graphs=2, save_graphs_path=str(tmp_path))
    try:
        input_gradient(*arguments())
    finally:
        ms.set_context(save_graphs=0)
    (optimized,) = tmp_path.rglob("*_validate*.ir")
    graph = optimized.read_text()
    of_input, of_weight = GRADIENTS[backend]
    assert of_input in graph
    assert of_weight not in graph
    assert "MsDeformGradBias" not in graph


def test_recompute_gives_the_same_gradients():
    plain, recomputed = LayerNet(), LayerNet()
    ms.load_param_into_net(recomputed, plain.parameters_dict())
    recomputed.recompute()
    expected = ms.grad(MeanSquare(plain), None, ms.ParameterTuple(plain.trainable_params()))
    again = ms.grad(MeanSquare(recomputed), None, ms.ParameterTuple(recomputed.trainable_params()))
    for gradient, wanted in paired(again(image()), expected(image())):
        assert_same(gradient, wanted)


@pytest.mark.parametrize("in_axes", ((0, 0, None), (0, None, None), (None, 1, None)), ids=str)
def test_vmap_equals_a_loop(in_axes):
    def function(input, offset, weight):
        return deform_conv2d(input, offset, weight, padding=1)

    shapes = ((2, CHANNELS, *SIZE), (2, 2 * TAPS, *SIZE), (6, CHANNELS, 3, 3))
    tensors, slices = [], []
    for shape, axis in zip(shapes, in_axes):
        stacked = shape if axis is None else (*shape[:axis], 3, *shape[axis:])
        array = random_array(stacked, seed=len(tensors))
        tensors.append(ms.Tensor(array))
        parts = [array] * 3 if axis is None else np.moveaxis(array, axis, 0)
        slices.append([ms.Tensor(np.ascontiguousarray(part)) for part in parts])
    output = ms.vmap(function, in_axes, 0)(*tensors).asnumpy()
    expected = np.stack([function(*sample).asnumpy() for sample in zip(*slices)])
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_vjp_equals_grad():
    output, pull_back = ms.vjp(convolve, *arguments())
    expected = ms.grad(square_of_convolution, (0, 1, 2, 3, 4))(*arguments())
    for gradient, wanted in paired(pull_back(2 * output), expected):
        assert_same(gradient, wanted)


class MeanOutput(nn.Cell):
    """The mean over pixels of one output channel, or of each."""

    def __init__(self, channels: slice) -> None:
        super().__init__()
        self.channels = channels

    def construct(self, weight, input, offset):
        return deform_conv2d(input, offset, weight, padding=1).mean((0, 2, 3))[self.channels]


def test_jacrev_holds_the_gradient_of_every_output():
    weight = ms.Tensor(random_array((2, CHANNELS, 3, 3)))
    offset = ms.Tensor(random_array((2, 2 * TAPS, *SIZE)))
    jacobian = ms.jacrev(MeanOutput(slice(0, 2)))(weight, image(), offset)
    assert jacobian.shape == (2, 2, CHANNELS, 3, 3)
    for channel in range(2):
        alone = MeanOutput(slice(channel, channel + 1))
        assert_same(jacobian[channel], ms.grad(alone)(weight, image(), offset))
