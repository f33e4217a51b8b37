# SPDX-License-Identifier: Apache-2.0
"""DCNv2Pack and SecondOrderDeformableAlignment are BasicSR's layers, and go where networks go.

That they give PyTorch's answers is in test_ported_layers.py.
"""

from __future__ import annotations

import copy
import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from ms_deform import (
    DCNv2Pack,
    DeformConv2d,
    SecondOrderDeformableAlignment,
    export_mindir,
    export_onnx,
    record_offsets,
)
from ms_deform.port import basicsr
from networks import MeanSquare, paired, random_array
from tolerances import assert_close

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's Greater and Split"),
]

EMPTY = inspect.Parameter.empty
SIZES = {"in_channels": EMPTY, "out_channels": EMPTY, "kernel_size": EMPTY}
GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


class Net(nn.Cell):
    """Both layers, as the alignment of a video network."""

    def __init__(self) -> None:
        super().__init__()
        self.align = SecondOrderDeformableAlignment(8, 4, 3, padding=1, deform_groups=2)
        self.refine = DCNv2Pack(4, 4, 3, padding=1, deformable_groups=2)

    def construct(self, x, extra_feat, flow_1, flow_2):
        aligned = self.align(x, extra_feat, flow_1, flow_2)
        return self.refine(aligned, extra_feat[:, :4])


def network() -> nn.Cell:
    """With random parameters: offsets of a zero conv_offset would test nothing."""
    net = Net()
    for seed, parameter in enumerate(net.get_parameters()):
        parameter.set_data(ms.Tensor(0.3 * random_array(parameter.shape, seed)))
    return net


def frames(batch: int = 1) -> list[ms.Tensor]:
    shapes = [(batch, channels, 7, 9) for channels in (8, 12, 2, 2)]
    return [ms.Tensor(random_array(shape, seed)) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("layer", "more"),
    [
        (DCNv2Pack, {"deformable_groups": 1, "bias": True}),
        (
            SecondOrderDeformableAlignment,
            {
                "deform_groups": 1,
                "bias": True,
                "max_residue_magnitude": 10,
                "deformable_groups": None,
            },
        ),
    ],
)
def test_arguments_and_defaults_are_those_of_the_origin_and_a_backend(layer, more):
    parameters = inspect.signature(layer).parameters
    expected = {**SIZES, **GEOMETRY, **more, "backend": None}
    assert [(name, p.default) for name, p in parameters.items()] == [*expected.items()]


def test_parameters_have_the_names_and_shapes_of_the_origin():
    shapes = {name: parameter.shape for name, parameter in Net().parameters_and_names()}
    assert shapes == {
        "align.weight": (4, 8, 3, 3),
        "align.bias": (4,),
        "align.conv_offset.0.weight": (4, 16, 3, 3),
        "align.conv_offset.0.bias": (4,),
        "align.conv_offset.2.weight": (4, 4, 3, 3),
        "align.conv_offset.2.bias": (4,),
        "align.conv_offset.4.weight": (4, 4, 3, 3),
        "align.conv_offset.4.bias": (4,),
        "align.conv_offset.6.weight": (54, 4, 3, 3),
        "align.conv_offset.6.bias": (54,),
        "refine.weight": (4, 4, 3, 3),
        "refine.bias": (4,),
        "refine.conv_offset.weight": (54, 4, 3, 3),
        "refine.conv_offset.bias": (54,),
    }


def test_initial_parameters_are_those_of_the_origin():
    align = SecondOrderDeformableAlignment(32, 32, 3, groups=2, deform_groups=2)
    bounds = {
        align.weight: np.sqrt(1 / (32 * 9)),  # all input channels count, whatever the groups
        align.conv_offset[0].weight: np.sqrt(1 / (100 * 9)),  # as torch's Conv2d
        align.conv_offset[2].weight: np.sqrt(1 / (32 * 9)),
        DCNv2Pack(32, 32, 3).weight: np.sqrt(1 / (32 * 9)),
    }
    for parameter, bound in bounds.items():
        assert 0.98 * bound < np.abs(parameter.asnumpy()).max() <= bound
    last = align.conv_offset[6]
    for parameter in (align.bias, last.weight, last.bias, DCNv2Pack(4, 4, 3).conv_offset.weight):
        assert not parameter.asnumpy().any()


def test_basicsrs_name_of_the_offset_groups_makes_the_same_layer():
    layers = [
        SecondOrderDeformableAlignment(8, 4, 3, padding=1, **{name: 4})
        for name in ("deform_groups", "deformable_groups")
    ]
    assert [layer.deform_groups for layer in layers] == [4, 4]
    assert repr(layers[0]).splitlines()[1] == repr(layers[1]).splitlines()[1]
    assert "padding=(1, 1), deform_groups=4" in repr(layers[0])
    assert "deformable_groups=2" in repr(DCNv2Pack(4, 4, 3, deformable_groups=2))


def test_the_untrained_alignment_samples_where_the_flows_point():
    layer = SecondOrderDeformableAlignment(8, 4, 3, padding=1, deform_groups=4)
    x, extra_feat, flow_1, flow_2 = frames()
    with record_offsets(layer) as records:
        layer(x, extra_feat, flow_1, flow_2)
    (record,) = records["SecondOrderDeformableAlignment"]
    offset = record.offset.reshape(1, 4, 9, 2, 7, 9)
    for group, flow in enumerate((flow_1, flow_1, flow_2, flow_2)):
        for tap in range(9):
            np.testing.assert_array_equal(offset[:, group, tap], flow.asnumpy()[:, ::-1])


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_tanh_and_its_gradient_are_exact_to_rounding(dtype):
    tiny = np.logspace(-30, 0, 301)
    x = np.concatenate([np.linspace(-12, 12, 24001), tiny, -tiny, [0, 100, -100]]).astype(dtype)
    expected, rounding = np.tanh(x.astype(float)), np.finfo(dtype).eps
    output = basicsr._Tanh()(ms.Tensor(x)).asnumpy()
    gradient = ms.grad(basicsr._Tanh())(ms.Tensor(x)).asnumpy()
    # Relative to each value, so near 0 as well.
    np.testing.assert_allclose(output, expected, rtol=3 * rounding, atol=0)
    np.testing.assert_allclose(gradient, 1 - expected**2, rtol=0, atol=2 * rounding)


def test_tanh_keeps_infinities_and_nans():
    x = ms.Tensor(np.array([np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(basicsr._Tanh()(x).asnumpy(), [1, -1, np.nan])


def test_the_leaky_relu_is_torchs_at_zero_too():
    x = ms.Tensor(np.array([-2, 0, 3], np.float32))
    np.testing.assert_allclose(basicsr._LeakyReLU()(x).asnumpy(), [-0.2, 0, 3], rtol=1e-6)
    gradient = ms.grad(basicsr._LeakyReLU())(x).asnumpy()
    np.testing.assert_allclose(gradient, [0.1, 0.1, 1], rtol=1e-6)


@pytest.mark.parametrize("level", ("O1", "O2", "O3", "auto"))
def test_mixed_precision_stays_close_to_float32(level):
    exact = MeanSquare(network())
    mixed = MeanSquare(ms.amp.auto_mixed_precision(copy.deepcopy(exact.net), level))
    output = mixed.net(*frames()).astype(ms.float32).asnumpy()
    np.testing.assert_allclose(output, exact.net(*frames()).asnumpy(), rtol=0.1, atol=0.1)
    weights = ms.ParameterTuple(mixed.trainable_params())
    for gradient in ms.grad(mixed, None, weights)(*frames()):
        assert gradient.dtype == ms.float32
        assert np.isfinite(gradient.asnumpy()).all()


def test_training_lowers_the_loss_and_moves_the_offsets():
    net = MeanSquare(Net())
    step = nn.TrainOneStepCell(net, nn.Adam(net.trainable_params(), learning_rate=1e-2))
    losses = [float(step(*frames()).asnumpy()) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    for predictor in (net.net.align.conv_offset[6], net.net.refine.conv_offset):
        assert predictor.weight.asnumpy().any()


def test_dynamic_shapes_work():
    net, static = network(), network()
    net.set_inputs(
        *(
            ms.Tensor(shape=(None, channels, None, None), dtype=ms.float32)
            for channels in (8, 12, 2, 2)
        )
    )
    for batch in (1, 3):
        output = net(*frames(batch)).asnumpy()
        assert_close(output, static(*frames(batch)).asnumpy(), "float32", "output")


@pytest.mark.not_on_gpu_stand_in("needs MindSpore's DeformableOffsets")
def test_the_mindir_file_runs_without_ms_deform():
    net = network()
    path = export_mindir(net, *frames(), file_name="net")  # runs it in a process without ms_deform
    output = nn.GraphCell(ms.load(path))(*frames()).asnumpy()
    assert_close(output, net(*frames()).asnumpy(), "float32", "output", 1e-5)


@pytest.mark.not_on_gpu_stand_in("is about files")
def test_the_onnx_file_computes_the_same():
    pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    net = network()
    path = export_onnx(net, *frames(), file_name="net")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {item.name: x.asnumpy() for item, x in paired(session.get_inputs(), frames())}
    (output,) = session.run(None, inputs)
    assert_close(output, net(*frames()).asnumpy(), "float32", "output", 1e-5)


def test_they_are_deformable_convolutions_and_are_recorded():
    net = network()
    assert isinstance(net.align, DeformConv2d)
    with record_offsets(net) as records:
        net(*frames())
    assert {name: calls[0].offset.shape for name, calls in records.items()} == {
        "align": (1, 36, 7, 9),
        "refine": (1, 36, 7, 9),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DCNv2Pack(4, 6, 3, deformable_groups=3),
            "DCNv2Pack: 'deformable_groups' must divide in_channels = 4, got 3",
        ),
        (
            lambda: DCNv2Pack(4, 6, 3, deformable_groups=0),
            "DCNv2Pack: 'deformable_groups' must be at least 1, got 0",
        ),
        (
            lambda: SecondOrderDeformableAlignment(8, 4, 5, deform_groups=2),
            "'kernel_size' must have 9 taps, as many as conv_offset predicts, got 5",
        ),
        (
            lambda: SecondOrderDeformableAlignment(8, 4, 3),
            "'deform_groups' must be even, as each flow is for half of them, got 1",
        ),
        (
            lambda: SecondOrderDeformableAlignment(8, 4, 3, deform_groups=2, deformable_groups=4),
            "'deform_groups' and 'deformable_groups' are one number, got 2 and 4",
        ),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
