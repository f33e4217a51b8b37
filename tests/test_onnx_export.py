# SPDX-License-Identifier: Apache-2.0
"""export_onnx writes the standard DeformConv: onnxruntime computes what MindSpore computes."""

from __future__ import annotations

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import onnx_files
import ported_networks
from geometries import GRID
from ms_deform import ModulatedDeformConv2dPack, export_onnx
from networks import CHANNELS, LayerNet, image, random_array
from operator_under_test import ARRAYS, Operator
from ported_networks import INPUTS
from tolerances import assert_close

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install '.[onnx]'")

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]

OPSETS = (19, 22)
# onnxruntime refuses an empty batch.
CALLS = [name for name in GRID if name != "empty batch" and "pixels" not in name]


class Given(nn.Cell):
    """The operator of a call, without the arguments that it is not given."""

    def __init__(self, call) -> None:
        super().__init__()
        self.operator = Operator(call["stride"], call["padding"], call["dilation"])
        self.given = tuple(name in call for name in ARRAYS)

    def construct(self, *tensors):
        position, arguments = 0, []
        for given in self.given:
            arguments.append(tensors[position] if given else None)
            position += given
        return self.operator(*arguments)


@pytest.mark.parametrize("opset_version", OPSETS)
@pytest.mark.parametrize("name", CALLS)
def test_every_geometry_gives_the_same_output(name, opset_version):
    call = GRID[name].call()
    tensors = [ms.Tensor(call[name].astype(np.float32)) for name in ARRAYS if name in call]
    net = Given(call)
    path = export_onnx(net, *tensors, file_name="call", opset_version=opset_version)
    (actual,) = onnx_files.run(path, *tensors)
    assert_close(actual, net(*tensors).asnumpy(), "float32", "output", 1e-5)


class Net(nn.Cell):
    """Layers of several kinds and geometries, and a backend of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerNet()
        self.norm = nn.BatchNorm2d(6)
        self.second = ModulatedDeformConv2dPack(
            6, 8, (3, 5), stride=2, padding=(1, 2), deform_groups=3, backend="composition"
        )
        self.head = nn.Dense(8, 3)

    def construct(self, x):
        x = self.second(ops.relu(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("opset_version", OPSETS)
def test_a_network_gives_the_same_output(opset_version, mode):
    net = Net().set_train()
    offsets = net.second.conv_offset.weight
    offsets.set_data(ms.Tensor(np.random.default_rng(1).normal(size=offsets.shape) / 9, ms.float32))
    path = export_onnx(net, image(), file_name=Path("net.onnx"), opset_version=opset_version)
    assert path == "net.onnx"
    assert net.training
    assert net.second.backend == "composition"
    (actual,) = onnx_files.run(path, image())
    assert_close(actual, net.set_train(False)(image()).asnumpy(), "float32", "output", 1e-5)


def test_the_layers_are_standard_nodes():
    model = onnx.load(export_onnx(Net(), image(), file_name="net"))
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 19)]
    nodes = [node for node in model.graph.node if node.op_type == "DeformConv"]
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in nodes[1].attribute}
    assert len(nodes) == 2
    assert attributes == {
        "strides": [2, 2],
        "pads": [1, 2, 1, 2],
        "dilations": [1, 1],
        "kernel_shape": [3, 5],
        "group": 1,
        "offset_group": 3,
    }
    used = {name for node in model.graph.node for name in node.input}
    assert {item.name for item in model.graph.initializer} <= used


@pytest.mark.parametrize("padding", (1, (0, 1, 2, 3)))
def test_a_network_without_deformable_layers_is_exported_too(padding):
    net = nn.Conv2d(CHANNELS, 2, 3, pad_mode="pad", padding=padding)
    (actual,) = onnx_files.run(export_onnx(net, image(), file_name="plain"), image())
    assert_close(actual, net(image()).asnumpy(), "float32", "output", 1e-5)


TRANSPOSED = {
    "symmetric": {"padding": 1, "stride": 2, "kernel_size": 4, "group": 2},
    "output padding": {"padding": 1, "stride": 2, "kernel_size": 3, "output_padding": 1},
    "four-sided": {"padding": (0, 1, 2, 1), "stride": 1, "kernel_size": (3, 5)},
}


@pytest.mark.parametrize("arguments", TRANSPOSED.values(), ids=TRANSPOSED.keys())
def test_transposed_convolutions_come_along(arguments):
    net = nn.Conv2dTranspose(CHANNELS, 2, pad_mode="pad", has_bias=True, **arguments)
    (actual,) = onnx_files.run(export_onnx(net, image(), file_name="transposed"), image())
    assert_close(actual, net(image()).asnumpy(), "float32", "output", 1e-5)


@pytest.mark.parametrize("name", ported_networks.NETWORKS)
def test_whole_networks_give_the_same_output(name):
    inputs = [ms.Tensor(random_array(shape, i)) for i, shape in enumerate(INPUTS[name])]
    net = ported_networks.NETWORKS[name]().set_train(False)
    (actual,) = onnx_files.run(export_onnx(net, *inputs, file_name="network"), *inputs)
    assert_close(actual, net(*inputs).asnumpy(), "float32", "output", 1e-5)


class Nested(nn.Cell):
    """Outputs in tuples, an input that nothing needs, and a parameter of the name of another."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = ms.Parameter(ms.Tensor([1.0, 2.0]), name="bias")

    def construct(self, unused, bias, *more):
        return bias * 2 + self.bias, [more[0], (more[1] + 1, bias)], ops.ones((2, 3))


def test_inputs_and_outputs_come_in_the_order_of_the_call():
    net = Nested()
    inputs = [ms.Tensor(random_array(shape, i)) for i, shape in enumerate(((1,), (2,), (3,), (4,)))]
    path = export_onnx(net, *inputs, file_name="net")
    onnx_files.assert_all_close(
        onnx_files.run(path, *inputs), onnx_files.outputs_of(net, *inputs), 1e-6
    )
    graph = onnx.load(path).graph
    assert [item.name for item in graph.input] == ["unused", "bias", "more_0", "more_1"]
    assert [item.name for item in graph.output] == [f"output_{i}" for i in range(5)]


def halved(dtype):
    net = LayerNet()
    for parameter in net.get_parameters():
        parameter.set_dtype(dtype)
    return net, image().astype(dtype)


def test_float16_stays_float16():
    net, x = halved(ms.float16)
    (actual,) = onnx_files.run(export_onnx(net, x, file_name="net"), x)
    assert actual.dtype == np.float16
    assert_close(actual, net(x).asnumpy(), "float16", "output", 4e-3)


def test_bfloat16_needs_the_newer_opset():
    net, x = halved(ms.bfloat16)
    with pytest.raises(RuntimeError, match=r"opset 19 does not have this; .* opset_version=22"):
        export_onnx(net, x, file_name="net")
    assert not Path("net.onnx").exists()
    # onnxruntime has no kernels for it on a CPU.
    model = onnx.load(export_onnx(net, x, file_name="net", opset_version=22))
    types = {item.name: item.data_type for item in model.graph.initializer}
    names = {parameter.name for parameter in net.get_parameters()}
    assert {types[name] for name in names} == {onnx.TensorProto.BFLOAT16}


def test_other_opsets_are_refused():
    with pytest.raises(ValueError, match=r"'opset_version' must be one of 19, 22.* got 17"):
        export_onnx(Net(), image(), file_name="net", opset_version=17)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "onnx>=1\.17,<2"'):
        export_onnx(Net(), image(), file_name="net")
