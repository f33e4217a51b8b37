# SPDX-License-Identifier: Apache-2.0
"""The stand-in for CUDA computes what MindSpore asks for, and says what it has not.

MindSpore numbers the operations of its kernels and lays out some structures that the stand-in reads
and writes: each shows here if another version of MindSpore does so differently.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from gpu_stand_in import VARIABLE
from ms_deform import deform_conv2d
from networks import paired, random_array

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("device"),
    pytest.mark.skipif(VARIABLE not in os.environ, reason="CUDA itself is here"),
]
X, Y = np.abs(random_array((3, 4))) + 0.5, random_array((3, 1), seed=1)

UNARY = {
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "square": np.square,
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "log": np.log,
    "neg": np.negative,
    "reciprocal": np.reciprocal,
    "floor": np.floor,
    "ones_like": np.ones_like,
    "logical_not": lambda x: x == 0,
}
BINARY = {
    "greater": np.greater,
    "less": np.less,
    "equal": np.equal,
    "greater_equal": np.greater_equal,
    "less_equal": np.less_equal,
    "not_equal": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
}


@ms.jit  # where it is no view
def transpose(tensor: ms.Tensor) -> ms.Tensor:
    return ops.transpose(tensor.reshape(3, 2, 2), (2, 0, 1))


OTHERS = {
    "transpose": (transpose, lambda a: a.reshape(3, 2, 2).transpose(2, 0, 1)),
    "permuted": (lambda t: t.swapaxes(0, 1).contiguous(), lambda a: a.T),
    "slice": (lambda t: t[1:, ::2].contiguous(), lambda a: a[1:, ::2]),
    "strided slice": (lambda t: ops.strided_slice(t, (1, 0), (3, 4), (1, 2)), lambda a: a[1:, ::2]),
    "tile": (lambda t: ops.tile(t, (2, 3)), lambda a: np.tile(a, (2, 3))),
    "concat": (lambda t: ops.cat((t, t[:, :2]), 1), lambda a: np.concatenate((a, a[:, :2]), 1)),
    "stack": (lambda t: ops.stack((t, t), 1), lambda a: np.stack((a, a), 1)),
    "sum": (lambda t: t.sum(0), lambda a: a.sum(0)),
    "mean": (lambda t: t.mean(1), lambda a: a.mean(1)),
    "matmul": (lambda t: ops.matmul(t, t.T), lambda a: a @ a.T),
}


def same(actual: ms.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_function_of_one_element(name: str, dtype: str) -> None:
    array = (X > 1) if name == "logical_not" else X.astype(dtype)
    same(getattr(ops, name)(ms.Tensor(array)), UNARY[name](array))


@pytest.mark.parametrize("name", BINARY)
def test_a_function_of_two_elements_broadcast(name: str) -> None:
    arrays = (X > 1, Y > 0) if name.startswith("logical") else (X, Y)
    same(getattr(ops, name)(*map(ms.Tensor, arrays)), BINARY[name](*arrays))


@pytest.mark.parametrize("name", OTHERS)
def test_a_function_of_a_tensor(name: str) -> None:
    function, expected = OTHERS[name]
    same(function(ms.Tensor(X)), expected(X))


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_a_gradient_from_the_result(name: str) -> None:
    x, step = X.astype(float), 1e-4
    expected = (UNARY[name](x + step) - UNARY[name](x - step)) / (2 * step)
    gradient = ms.grad(getattr(ops, name))(ms.Tensor(X))
    np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=1e-3)


def test_a_convolution_is_a_deformable_one_without_offsets() -> None:
    input, weight = random_array((2, 4, 7, 6)), random_array((6, 2, 3, 2), seed=1)
    offset = ms.Tensor(np.zeros((2, 12, 3, 4), np.float32))
    convolution = nn.Conv2d(4, 6, (3, 2), 2, "pad", (1, 1, 1, 1), dilation=(2, 1), group=2)

    def ours(input: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        return ops.square(deform_conv2d(input, offset, weight, None, 2, 1, (2, 1))).sum()

    def builtin(input: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        return ops.square(convolution.conv2d(input, weight)).sum()

    tensors = ms.Tensor(input), ms.Tensor(weight)
    expected = ms.grad(ours, (0, 1))(*tensors)
    for gradient, wanted in paired(ms.grad(builtin, (0, 1))(*tensors), expected):
        np.testing.assert_allclose(gradient.asnumpy(), wanted.asnumpy(), rtol=1e-4, atol=1e-3)


def test_the_loss_of_classes_is_their_cross_entropy() -> None:
    labels = np.array([2, 0, 3], np.int32)
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    value, gradient = ms.value_and_grad(loss)(ms.Tensor(X), ms.Tensor(labels))
    softmax = np.exp(X) / np.exp(X).sum(1, keepdims=True)
    same(value, -np.log(softmax[range(3), labels]).mean())
    same(gradient, (softmax - np.eye(4)[labels]) / 3)


def test_mindspore_reads_the_properties_of_the_device() -> None:
    properties = ms.hal.get_device_properties(0)
    assert properties.name == "GPU stand-in"
    assert properties.total_memory == 4 << 30
    assert (properties.major, properties.minor) == (8, 0)
    assert properties.multi_processor_count == 3
    assert properties.warp_size == 32


def test_fresh_memory_holds_nan() -> None:
    runtime = ctypes.CDLL(str(Path(os.environ[VARIABLE], "lib", "libcudart.so.11.0")))
    data = ctypes.POINTER(ctypes.c_double)()
    assert runtime.cudaMalloc(ctypes.byref(data), ctypes.c_size_t(80)) == 0
    assert np.isnan(data[:10]).all()
    assert runtime.cudaFree(data) == 0
    assert runtime.cudaFree(data) != 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ops.cumsum(ms.Tensor(X), 0), r"CumSum<float>\("),
        (lambda: ops.erfinv(ms.Tensor(X)), r"UnaryOpsCudaFunc.*ElwiseOpType\)12"),
        (lambda: nn.MaxPool2d(2)(ms.Tensor(X[None, None])), "cudnnSetPoolingNdDescriptor"),
    ],
    ids=["a kernel of MindSpore's", "an operation of a kernel", "a function of a library"],
)
def test_what_is_missing_is_an_error_with_its_name(call, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"the GPU stand-in has no .*{name}"):
        call().asnumpy()
