# SPDX-License-Identifier: Apache-2.0
"""export_onnx lowers MindSpore's operators: onnxruntime computes what MindSpore computes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from mindspore.ops.operations import InstanceNorm

from ms_deform import export_onnx
from networks import random_array
from onnx_files import assert_all_close, outputs_of, run

pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install '.[onnx]'")

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]

# One lowering asks for the version, that of grid_sample; of the rest ONNX has widened types only.
OPSETS = (19, pytest.param(22, marks=pytest.mark.long))
SHAPE = (2, 4, 7, 9)


def activations(x):
    return (
        ops.relu(x),
        ops.relu6(4 * x),
        ops.leaky_relu(x, 0.1),
        ops.gelu(x),
        ops.gelu(x, "tanh"),
        ops.erf(x),
        ops.erfc(x),
        ops.silu(x),
        ops.sigmoid(x),
        ops.hardswish(3 * x),
        ops.hardsigmoid(3 * x),
        ops.softplus(x),
        ops.mish(x),
        ops.elu(x),
        ops.selu(x),
        ops.celu(x, 0.5),
        ops.prelu(x, ops.arange(4).astype(ms.float32)),
        ops.softmax(x, 1),
        ops.softmax(x, -1),
        ops.log_softmax(x, 1),
        ops.hardtanh(x, -0.5, 1.0),
        ops.glu(x, 1),
        ops.tanh(x),
        ops.softsign(x),
    )


def arithmetic(x, y):
    positive = ops.abs(x) + 0.5
    return (
        x + y,
        2 - x,
        x * y[:, :1],
        x / y,
        1 / positive,
        x / 3,
        x // 0.4,
        x % 0.4,
        x**2,
        positive**0.5,
        -x,
        ops.maximum(x, y),
        ops.minimum(x, 0.2),
        ops.sqrt(positive),
        ops.rsqrt(positive),
        ops.square(x),
        ops.exp(x),
        ops.log(positive),
        ops.round(3 * x),
        ops.floor(3 * x),
        ops.ceil(3 * x),
        ops.sign(x),
        ops.sin(x),
        ops.cos(x),
        ops.atan(x),
        ops.clamp(x, -0.5, 1),
        ops.clamp(x, None, 0.25),
        ops.AddN()((x, y, x)),
        ops.addcmul(x, x, y, 0.5),
        ops.lerp(x, y, 0.25),
        ops.square(x - y),
        ops.reciprocal(positive),
    )


def older_primitives(x, y):
    small, large = ops.sin(x) * 0.9, ops.abs(x) + 1.5
    return (
        ops.RealDiv()(x, large),
        ops.FloorMod()(x, large),
        ops.FloorDiv()(x, large),
        ops.SquaredDifference()(x, y),
        ops.ReduceProd()(x, 1),
        ops.LogicalXor()(x > 0, y > 0),
        ops.addcdiv(x, y, large, 0.5),
        ops.tan(small),
        ops.sinh(x),
        ops.cosh(x),
        ops.asin(small),
        ops.acos(small),
        ops.asinh(x),
        ops.acosh(large),
        ops.atanh(small),
        ops.isinf(x),
        ops.stop_gradient(x),
    )


def logic(x, y):
    either = ops.logical_or(x > 0.5, y <= 0)
    return (
        ops.select(x > 0, x, y),
        ops.where(x >= y, x, 0.1),
        ops.masked_fill(x, y > 0, -1.0),
        either.astype(ms.float32),
        ops.logical_and(either, x < y),
        ops.logical_not(either),
        x != y,
        x == x,
        ops.isnan(x),
        (x > 0).all(1),
        (x > 2).any((2, 3)),
    )


def whole_numbers(x):
    i = (4 * x).astype(ms.int32)
    return (
        i,
        i // 3,
        i % 3,
        i + 1,
        i * 0.5,
        i > 1,
        i.sum(1),
        ops.amax(i, 1),
        ops.arange(5) // 2,
        x * i,
    )


def reductions(x):
    return (
        x.mean(),
        x.mean((2, 3)),
        ops.mean(x, -1, True),
        x.sum(1),
        ops.reduce_sum(x, (0, 2)),
        ops.amax(x, (2, 3), True),
        ops.amin(x, -1),
        ops.prod(x, 1),
        x.std(1),
        x.var(1),
        ops.norm(x, dim=1),
        ops.L2Normalize(1)(x),
        ops.argmax(x, 1),
        ops.argmin(x, 2),
        ops.max(x, 1)[0],
        ops.max(x, 1)[1],
        ops.min(x, 1, True)[1],
        ops.topk(x, 3)[0],
        ops.topk(x, 3)[1],
        ops.cumsum(x, 2),
        ops.logsumexp(x, 1),
    )


def layout(x):
    return (
        x.reshape(2, -1),
        x.reshape(x.shape[0], 2, x.shape[1] // 2, 7, 9),
        ops.flatten(x),
        x.flatten(start_dim=2),
        x.permute(0, 2, 3, 1),
        x.swapaxes(-1, -2),
        x.unsqueeze(1),
        x[:, :1].squeeze(1),
        ops.cat((x, 2 * x), 1),
        ops.cat([x, x], -1),
        ops.stack((x, x + 1), 1),
        ops.stack([x, x + 1], -1),
        *ops.split(x, 2, 1),
        *ops.split(x, [1, 3], 1),
        *ops.chunk(x, 3, -1),
        *ops.unbind(x, 1),
        ops.tile(x, (1, 2, 1, 3)),
        ops.tile(x[0, 0], (2, 1, 1)),
        ops.broadcast_to(x[:1], SHAPE),
        x[:, :1].expand_as(x),
        ops.flip(x, (1, 3)),
        ops.repeat_interleave(x, 2, 2),
        ops.pixel_shuffle(x, 2),
        ops.DepthToSpace(2)(x),
        ops.pixel_unshuffle(x[:, :, 1:, 1:], 2),
        ops.SpaceToDepth(2)(x[:, :, 1:, 1:]),
        ops.zeros_like(x),
        ops.full_like(x, 3.0),
    )


def slices(x):
    return (
        x[0],
        x[-1],
        x[:, -1],
        x[:, 1:3, ::2, -3:],
        x[:, None, 1, ..., 1:-1],
        x[..., 2],
        x[:, :, 1:5:2, None],
        x[:, ::-1],
        x[..., -4:-1],
        x[:, [0, 2]],
        ops.narrow(x, 1, 1, 2),
        ops.gather(x, ops.arange(3), 2),
        ops.gather_elements(x, 1, ops.zeros(SHAPE, ms.int32)),
        ops.slice(x, (0, 1, 0, 2), (2, 2, 7, 4)),
    )


def grids(x):
    y, z = ops.meshgrid(ops.arange(7), ops.arange(9), indexing="ij")
    u, v = ops.meshgrid(ops.arange(7), ops.arange(9), indexing="xy")
    return x + y, x * z.astype(ms.float32), x + u.T, x + v.T, ops.linspace(-1, 1, 9) + x


def padding(x):
    return (
        ops.pad(x, (1, 2, 0, 3)),
        ops.pad(x, (1, 2), value=2.5),
        ops.pad(x, (1, 2, 0, 3), mode="reflect"),
        ops.pad(x, (1, 2, 0, 3), mode="replicate"),
        ops.pad(x, (1, 2, 0, 3), mode="circular"),
        ops.Pad(((0, 0), (1, 0), (1, 1), (2, 1)))(x),
        PAD(x),
        REFLECTION_PAD(x),
    )


PAD = nn.ZeroPad2d((1, 2, 0, 1))
REFLECTION_PAD = nn.ReflectionPad2d((1, 2, 3, 1))


def products(x):
    rows = x.reshape(8, 63)
    return (
        ops.matmul(x, x.swapaxes(-1, -2)),
        ops.matmul(rows, rows.T),
        ops.bmm(x.reshape(2, 28, 9), x.reshape(2, 9, 28)),
        ops.MatMul(transpose_a=True)(rows, rows),
        ops.BatchMatMul(transpose_b=True)(x, x),
        ops.dense(rows, ops.ones((5, 63)), ops.ones(5)),
    )


def resized(x):
    outputs = ()
    for size in ((14, 18), (5, 11), (1, 1)):
        outputs += (
            ops.interpolate(x, size=size, mode="bilinear"),
            ops.interpolate(x, size=size, mode="bilinear", align_corners=True),
        )
    return outputs


def resized_sharply(x):
    outputs = ()
    for size in ((28, 42), (2, 21), (41, 9)):
        outputs += (
            ops.interpolate(x, size=size, mode="nearest"),
            ops.interpolate(x, size=size, mode="nearest-exact"),
        )
    return outputs


def sampled(x, grid):
    outputs = ()
    for padding_mode in ("zeros", "border", "reflection"):
        for align_corners in (False, True):
            outputs += (
                ops.grid_sample(x, grid, "bilinear", padding_mode, align_corners),
                ops.grid_sample(x, grid, "nearest", padding_mode, align_corners),
            )
    return outputs


FUNCTIONS = {
    "activations": (activations, [SHAPE]),
    "arithmetic": (arithmetic, [SHAPE, SHAPE]),
    "older primitives": (older_primitives, [SHAPE, SHAPE]),
    "logic": (logic, [SHAPE, SHAPE]),
    "whole numbers": (whole_numbers, [SHAPE]),
    "reductions": (reductions, [SHAPE]),
    "layout": (layout, [SHAPE]),
    "slices": (slices, [SHAPE]),
    "grids": (grids, [SHAPE]),
    "padding": (padding, [SHAPE]),
    "products": (products, [SHAPE]),
    "resized": (resized, [SHAPE]),
    "resized sharply": (resized_sharply, [(1, 1, 14, 21)]),
    "sampled": (sampled, [SHAPE, (2, 5, 6, 2)]),
}


def layers_of_convolution():
    yield nn.Conv2d(4, 6, 3, has_bias=True)
    yield nn.Conv2d(4, 6, (3, 5), stride=2, pad_mode="same", dilation=(1, 2))
    yield nn.Conv2d(4, 6, (2, 3), stride=2, pad_mode="valid", group=2)
    yield nn.Conv2d(4, 4, 3, pad_mode="pad", padding=(0, 1, 2, 3), group=4)
    for mode in ("same", "valid"):
        for kernel, stride in ((3, 1), (4, 2), (3, 2), (2, 3)):
            yield nn.Conv2dTranspose(4, 2, kernel, stride, mode, has_bias=True)
    yield nn.Conv2dTranspose(4, 2, 3, 2, "pad", 1, output_padding=1)
    yield nn.Conv2dTranspose(4, 2, (3, 5), 1, "pad", (0, 1, 2, 1))
    yield nn.Conv2dTranspose(4, 4, 3, 2, "pad", 1, dilation=2, group=2)
    yield nn.Dense(9, 5)


def layers_of_pooling():
    for pool in (nn.MaxPool2d, nn.AvgPool2d):
        for mode in ("same", "valid"):
            yield pool(3, 2, mode)
            yield pool((2, 3), (1, 2), mode)
        for ceil in (False, True):
            yield pool(3, 2, "pad", 1, ceil_mode=ceil)
            yield pool(2, 3, "pad", 0, ceil_mode=ceil)
            yield pool((4, 3), 3, "pad", (2, 1), ceil_mode=ceil)
    yield nn.MaxPool2d(3, 2, "pad", 1, dilation=2)
    yield nn.AvgPool2d(3, 2, "pad", 1, count_include_pad=False)
    yield nn.AvgPool2d(3, 2, "pad", 1, ceil_mode=True, count_include_pad=False)
    for size in (1, (7, 3), (3, 4), (None, 2), (10, 9)):
        yield nn.AdaptiveAvgPool2d(size)
    for size in (1, (7, 3), (3, 4)):
        yield nn.AdaptiveMaxPool2d(size)


def layers_of_normalization():
    yield nn.BatchNorm2d(4)
    yield nn.GroupNorm(2, 4)
    yield nn.GroupNorm(4, 4, eps=0.1)
    yield nn.GroupNorm(1, 4, affine=False)
    yield nn.LayerNorm((9,))
    yield nn.LayerNorm((7, 9), 2, 2)
    yield nn.SyncBatchNorm(4)


def layers_of_activation():
    yield nn.ReLU()
    yield nn.LeakyReLU(0.2)
    yield nn.PReLU(4)
    yield nn.GELU()
    yield nn.GELU(False)
    yield nn.SiLU()
    yield nn.HSwish()
    yield nn.HSigmoid()
    yield nn.Sigmoid()
    yield nn.Softmax(1)
    yield nn.Dropout(p=0.5)
    yield nn.PixelShuffle(2)
    yield nn.Upsample(size=(9, 9), mode="bilinear", align_corners=True)


LAYERS = {
    "convolution": layers_of_convolution,
    "pooling": layers_of_pooling,
    "normalization": layers_of_normalization,
    "activation": layers_of_activation,
}


TOLERANCES = {"activations": 2e-5}  # MindSpore's tanh is a rational function


class Function(nn.Cell):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def construct(self, *inputs):
        return self.function(*inputs)


class Layers(nn.Cell):
    """Each layer on the same input; their parameters are random."""

    def __init__(self, layers) -> None:
        super().__init__()
        self.layers = nn.CellList(list(layers))
        for i, parameter in enumerate(self.get_parameters()):
            # Also variances, which are positive.
            parameter.set_data(ms.Tensor(np.abs(random_array(parameter.shape, i))))

    def construct(self, x):
        outputs = ()
        for layer in self.layers:
            outputs += (layer(x),)
        return outputs


@pytest.mark.parametrize(
    ("subject", "opset_version"), [*((subject, 19) for subject in FUNCTIONS), ("sampled", 22)]
)
def test_functions_give_the_same_outputs(subject, opset_version):
    function, shapes = FUNCTIONS[subject]
    check(Function(function), shapes, opset_version, TOLERANCES.get(subject, 1e-5))


@pytest.mark.parametrize("opset_version", OPSETS)
@pytest.mark.parametrize("subject", LAYERS)
def test_layers_give_the_same_outputs(subject, opset_version):
    check(Layers(LAYERS[subject]()), [SHAPE], opset_version)


class OnGpuOnly(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        # MindSpore 2.7.0 cannot make the layer.
        self.norm = InstanceNorm(epsilon=0.1)
        values = zip(("gamma", "beta", "mean", "variance"), (1.0, 0.0, 0.0, 1.0))
        for name, value in values:
            setattr(self, name, ms.Parameter(ms.Tensor([value] * 4), name=name))

    def construct(self, x):
        return (
            ops.roll(x, 2, 3),
            ops.roll(x, (-1, 1), (2, 3)),
            ops.einsum("nchw,ndhw->ncd", x, x),
            ops.layer_norm(x, (9,), 2 * ops.ones(9), ops.ones(9), 0.1),
            self.norm(x, self.gamma, self.beta, self.mean, self.variance)[0],
        )


def test_what_mindspore_has_no_cpu_kernel_for_gives_the_outputs_of_numpy():
    x = random_array(SHAPE)
    deviation = np.sqrt(x.var((2, 3), keepdims=True) + 0.1)
    expected = [
        np.roll(x, 2, 3),
        np.roll(x, (-1, 1), (2, 3)),
        np.einsum("nchw,ndhw->ncd", x, x),
        2 * (x - x.mean(3, keepdims=True)) / np.sqrt(x.var(3, keepdims=True) + 0.1) + 1,
        (x - x.mean((2, 3), keepdims=True)) / deviation,
    ]
    path = export_onnx(OnGpuOnly(), ms.Tensor(x), file_name="net")
    assert_all_close(run(path, ms.Tensor(x)), expected, 1e-5)


def check(net, shapes, opset_version, tolerance=1e-5):
    inputs = [ms.Tensor(random_array(shape, i)) for i, shape in enumerate(shapes)]
    net.set_train(False)
    path = export_onnx(net, *inputs, file_name="net", opset_version=opset_version)
    assert_all_close(run(path, *inputs), outputs_of(net, *inputs), tolerance)
