# SPDX-License-Identifier: Apache-2.0
"""Shapes and ranks that are not known when the graph is compiled."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from invalid_calls import INVALID_SHAPES
from ms_deform import DeformConv2d
from networks import CHANNELS, Call, LayerNet, MeanSquare, call_tensors, image, paired

pytestmark = pytest.mark.usefixtures("device", "mode", "scratch_folder")

UNKNOWN = {
    "batch": [None, CHANNELS, 7, 9],
    "size": [2, CHANNELS, None, None],
    "all but channels": [None, CHANNELS, None, None],
    "rank": None,
}
IMAGES = [(2, (7, 9)), (1, (5, 6)), (3, (11, 4)), (2, (7, 9))]


@pytest.mark.parametrize("shape", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_compiled_network_takes_every_shape(shape):
    static, dynamic = LayerNet(), LayerNet()
    ms.load_param_into_net(dynamic, static.parameters_dict())
    dynamic.set_inputs(ms.Tensor(shape=shape, dtype=ms.float32))
    for batch, size in IMAGES:
        known = (None, None) if shape is None else (shape[0], shape[2])
        input = image(known[0] or batch, size=size if known[1] is None else (7, 9))
        np.testing.assert_array_equal(dynamic(input).asnumpy(), static(input).asnumpy())


@pytest.mark.parametrize("shape", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_gradients_of_a_compiled_network_take_every_shape(shape):
    class Gradient(nn.Cell):
        def __init__(self, net):
            super().__init__()
            self.grad = ms.grad(net, None, ms.ParameterTuple(net.trainable_params()))

        def construct(self, input):
            return self.grad(input)

    net = MeanSquare(LayerNet())
    static, dynamic = Gradient(net), Gradient(net)
    dynamic.set_inputs(ms.Tensor(shape=shape, dtype=ms.float32))
    for batch, size in IMAGES:
        known = (None, None) if shape is None else (shape[0], shape[2])
        input = image(known[0] or batch, size=size if known[1] is None else (7, 9))
        for gradient, expected in paired(dynamic(input), static(input)):
            np.testing.assert_allclose(gradient.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


# MindSpore takes seconds to report an error at run time, so these stand for the rest;
# test_kernels_alone.py compares the words of all.
REFUSED = (
    "bias of rank 2",
    "too few offset channels",
    "mask of another size",
    "output empty in width",
)


refused_by_shape_inference = pytest.mark.not_on_gpu_stand_in("asks no device, and is slow")


@refused_by_shape_inference
@pytest.mark.parametrize("name", REFUSED)
def test_shapes_known_only_at_run_time_are_refused_in_the_same_words(name):
    case = INVALID_SHAPES[name]
    tensors = {**call_tensors(), **case.tensors()}
    net = Call(**case.constants)
    order = ("input", "offset", "weight", "bias", "mask")
    net.set_inputs(*[ms.Tensor(shape=None, dtype=ms.float32)] * len(order))
    with pytest.raises((ValueError, RuntimeError), match=case.message):
        net(*(tensors[name] for name in order)).asnumpy()


@refused_by_shape_inference
def test_a_layer_is_named_where_its_shapes_are_known_only_at_run_time():
    net = DeformConv2d(4, 6, 3)
    net.set_inputs(*[ms.Tensor(shape=None, dtype=ms.float32)] * 2)
    input, offset = call_tensors()["input"], ms.Tensor(np.zeros((2, 17, 5, 7), np.float32))
    with pytest.raises((ValueError, RuntimeError), match="DeformConv2d: the shape of the offset"):
        net(input, offset).asnumpy()
