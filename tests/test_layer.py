# SPDX-License-Identifier: Apache-2.0
"""DeformConv2d has torchvision's arguments, parameters, initialisation and repr."""

from __future__ import annotations

import inspect
import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import DeformConv2d, deform_conv2d, record_offsets
from networks import image


def test_arguments_and_defaults_are_torchvisions_and_a_backend():
    parameters = inspect.signature(DeformConv2d).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "in_channels": inspect.Parameter.empty,
        "out_channels": inspect.Parameter.empty,
        "kernel_size": inspect.Parameter.empty,
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "bias": True,
        "backend": None,
    }
    parameters = inspect.signature(deform_conv2d).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "input": inspect.Parameter.empty,
        "offset": inspect.Parameter.empty,
        "weight": inspect.Parameter.empty,
        "bias": None,
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        "mask": None,
    }


def test_parameters_have_torchvisions_names_and_shapes():
    layer = DeformConv2d(6, 8, (3, 5), groups=2)
    shapes = {name: parameter.shape for name, parameter in layer.parameters_and_names()}
    assert shapes == {"weight": (8, 3, 3, 5), "bias": (8,)}
    assert all(parameter.requires_grad for parameter in layer.get_parameters())
    layer = DeformConv2d(6, 8, 3, bias=False)
    assert [name for name, _ in layer.parameters_and_names()] == ["weight"]
    assert layer.bias is None


def test_initial_parameters_are_uniform_within_one_over_root_fan_in():
    layer = DeformConv2d(32, 400, (3, 5), groups=2)
    bound = 1 / math.sqrt(16 * 3 * 5)
    for parameter in (layer.weight, layer.bias):
        values = parameter.asnumpy()
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.95 * bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert abs(values.mean()) < 0.15 * bound


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ((3, 8, 3), "DeformConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))"),
        (
            (4, 8, (3, 5), 2, (1, 2), 2, 4, False),
            "DeformConv2d(4, 8, kernel_size=(3, 5), stride=(2, 2), padding=(1, 2), "
            "dilation=(2, 2), groups=4, bias=False)",
        ),
        (
            (3, 8, 3, 1, (1, 0, 2, 1)),
            "DeformConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 0, 2, 1))",
        ),
    ],
)
def test_repr_is_torchvisions(layer, text):
    assert repr(DeformConv2d(*layer)) == text


@pytest.mark.usefixtures("device", "mode")
@pytest.mark.parametrize("use_mask", (True, False))
def test_layer_is_the_function_on_its_parameters(use_mask):
    layer = DeformConv2d(4, 6, 3, stride=2, padding=(1, 0, 2, 1), dilation=(1, 2), groups=2)
    offset = ops.randn(2, 36, 3, 4)
    mask = ops.rand(2, 18, 3, 4) if use_mask else None
    output = layer(image(), offset, mask)
    expected = deform_conv2d(
        image(), offset, layer.weight, layer.bias, 2, (1, 0, 2, 1), (1, 2), mask
    )
    np.testing.assert_array_equal(output.asnumpy(), expected.asnumpy())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, 8, 3, 1, 0, 1, 2), ValueError, "'in_channels' must be divisible by groups"),
        (
            (6, 9, 3, 1, 0, 1, 2),
            ValueError,
            "'out_channels' must be divisible by groups",
        ),
        ((0, 8, 3), ValueError, "'in_channels' must be at least 1, got 0"),
        ((4, 8, 3, 1, 0, 1, 0), ValueError, "'groups' must be at least 1, got 0"),
        ((4, 8, 0), ValueError, "'kernel_size' must be at least 1, got 0"),
        ((4, 8, (3, 3, 3)), ValueError, "'kernel_size' must be an int or 2 ints"),
        ((4, 8, 3, 0), ValueError, "'stride' must be at least 1, got 0"),
        ((4, 8, 3, 1, -1), ValueError, "'padding' must be at least 0, got -1"),
        ((4, 8, 3.0), TypeError, "'kernel_size' must be an int or 2 ints"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        DeformConv2d(*arguments)


def test_trained_torchvision_weights_load_by_name():
    layer = DeformConv2d(3, 4, 3)
    state = {"weight": np.ones((4, 3, 3, 3), np.float32), "bias": np.zeros(4, np.float32)}
    parameters = {name: ms.Parameter(ms.Tensor(value)) for name, value in state.items()}
    assert ms.load_param_into_net(layer, parameters) == ([], [])
    np.testing.assert_array_equal(layer.weight.asnumpy(), state["weight"])


class GuidedDeformConv2d(DeformConv2d):
    """A layer of one's own, as the documentation shows it: offsets from a second input."""

    def __init__(self) -> None:
        super().__init__(4, 6, 3, stride=2, padding=1)
        self.conv_offset = nn.Conv2d(4, 27, 3, 2, pad_mode="pad", padding=1)

    def construct(self, input, guide):
        predicted = self.conv_offset(guide)
        offset, mask = predicted[:, :18], ops.sigmoid(predicted[:, 18:])
        return self.deform_conv(input, offset, mask, self.weight, self.bias)


@pytest.mark.usefixtures("device", "mode")
def test_a_layer_of_ones_own_calls_deform_conv():
    layer, x, guide = GuidedDeformConv2d(), image(), image(seed=1)
    predicted = layer.conv_offset(guide)
    expected = deform_conv2d(
        x,
        predicted[:, :18],
        layer.weight,
        layer.bias,
        stride=2,
        padding=1,
        mask=ops.sigmoid(predicted[:, 18:]),
    )
    np.testing.assert_array_equal(layer(x, guide).asnumpy(), expected.asnumpy())
    with record_offsets(layer) as records:
        layer(x, guide)
    np.testing.assert_array_equal(
        records["GuidedDeformConv2d"][0].offset, predicted[:, :18].asnumpy()
    )
