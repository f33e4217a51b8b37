# SPDX-License-Identifier: Apache-2.0
"""DeformConv2dPack and ModulatedDeformConv2dPack are mmcv's layers.

That they give PyTorch's answers is in test_ported_layers.py.
"""

from __future__ import annotations

import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack, deform_conv2d
from networks import image, random_array

pytestmark = [pytest.mark.usefixtures("device", "mode"), pytest.mark.usefixtures("scratch_folder")]

LAYERS = (DeformConv2dPack, ModulatedDeformConv2dPack)


def randomise(layer: nn.Cell) -> dict[str, np.ndarray]:
    """Random parameters: offsets of a zero conv_offset would test nothing."""
    arrays = {}
    for seed, (name, parameter) in enumerate(layer.parameters_and_names()):
        arrays[name] = 0.3 * random_array(parameter.shape, seed)
        parameter.set_data(ms.Tensor(arrays[name]))
    return arrays


def test_arguments_and_defaults_are_mmcvs_and_a_backend():
    empty = inspect.Parameter.empty
    common = {
        "in_channels": empty,
        "out_channels": empty,
        "kernel_size": empty,
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "deform_groups": 1,
    }
    for layer, more in (
        (LAYERS[0], {"bias": False, "im2col_step": 32, "backend": None}),
        (LAYERS[1], {"bias": True, "backend": None}),
    ):
        parameters = inspect.signature(layer).parameters
        assert {name: p.default for name, p in parameters.items()} == {**common, **more}


@pytest.mark.parametrize(
    ("layer", "channels", "names"),
    [
        (DeformConv2dPack(6, 8, 3, deform_groups=2), 36, ["weight"]),
        (ModulatedDeformConv2dPack(6, 8, 3, deform_groups=2), 54, ["weight", "bias"]),
        (ModulatedDeformConv2dPack(6, 8, 3, deform_groups=2, bias=False), 54, ["weight"]),
    ],
)
def test_parameters_have_mmcvs_names_and_shapes(layer, channels, names):
    shapes = {name: parameter.shape for name, parameter in layer.parameters_and_names()}
    expected = {"weight": (8, 6, 3, 3), "bias": (8,)}
    assert shapes == {
        **{name: expected[name] for name in names},
        "conv_offset.weight": (channels, 6, 3, 3),
        "conv_offset.bias": (channels,),
    }


@pytest.mark.parametrize("layer", LAYERS)
def test_the_untrained_layer_samples_the_regular_grid(layer):
    layer = layer(4, 6, 3, padding=1)
    mask = 0.5 * ops.ones((2, 9, 7, 9), ms.float32)
    expected = deform_conv2d(
        image(),
        ops.zeros((2, 18, 7, 9), ms.float32),
        layer.weight,
        layer.bias,
        padding=1,
        mask=None if isinstance(layer, DeformConv2dPack) else mask,
    )
    np.testing.assert_array_equal(layer(image()).asnumpy(), expected.asnumpy())


def test_initial_weights_have_mmcvs_bounds():
    for layer, bound in (
        (DeformConv2dPack(32, 64, 3, groups=2), np.sqrt(6 / (16 * 9))),  # kaiming_uniform, relu
        (ModulatedDeformConv2dPack(32, 64, 3, groups=2), 1 / np.sqrt(32 * 9)),
    ):
        weight = layer.weight.asnumpy()
        assert 0.98 * bound < np.abs(weight).max() <= bound
        assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        for name, parameter in layer.parameters_and_names():
            assert name == "weight" or not parameter.asnumpy().any()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_copy_of_the_parameters_loads_by_name(layer):
    arrays = randomise(layer(4, 6, 3))
    twin = layer(4, 6, 3)
    parameters = {name: ms.Parameter(ms.Tensor(value)) for name, value in arrays.items()}
    assert ms.load_param_into_net(twin, parameters) == ([], [])
    for name, parameter in twin.parameters_and_names():
        np.testing.assert_array_equal(parameter.asnumpy(), arrays[name])


def test_layers_are_deformable_convolutions_and_say_their_groups():
    layer = ModulatedDeformConv2dPack(8, 8, 3, padding=1, deform_groups=4)
    assert isinstance(layer, DeformConv2d)
    assert "padding=(1, 1), deform_groups=4" in repr(layer)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="'bias' must be False, as in mmcv"):
        DeformConv2dPack(4, 6, 3, bias=True)
    with pytest.raises(ValueError, match="'deform_groups' must divide in_channels = 4, got 3"):
        ModulatedDeformConv2dPack(4, 6, 3, deform_groups=3)
