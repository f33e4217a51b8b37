# SPDX-License-Identifier: Apache-2.0
"""ms_deform.deform_conv2d from and to NumPy, in the mode and on the device that are set.

A call is a dict of keyword arguments as geometries.Geometry.call makes it, its arrays in float64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import deform_conv2d
from ms_deform.backends import asked_backend
from reference import Gradients

DTYPES = {
    "float64": ms.float64,
    "float32": ms.float32,
    "float16": ms.float16,
    "bfloat16": ms.bfloat16,
}
ARRAYS = ("input", "offset", "weight", "bias", "mask")
# MindSpore's DeformableOffsets has no float64.
each_backend_and_dtype = pytest.mark.parametrize(
    "backend, dtype",
    [
        (backend, dtype)
        for backend in ("aot", "composition")
        for dtype in DTYPES
        if (backend, dtype) != ("composition", "float64")
    ],
    indirect=["backend"],
)


class Operator(nn.Cell):
    """The operator with its constant arguments; a Cell, so that graph mode compiles it whole."""

    def __init__(self, stride=(1, 1), padding=(0, 0), dilation=(1, 1)) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.dilation = dilation

    def construct(self, input, offset, weight, bias, mask):
        return deform_conv2d(
            input, offset, weight, bias, self.stride, self.padding, self.dilation, mask
        )


class OperatorAndGradients(nn.Cell):
    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.grad = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, input, offset, weight, bias, mask, grad_output):
        arrays = (input, offset, weight, bias, mask)
        return self.operator(*arrays), self.grad(self.operator)(*arrays, grad_output)


# Cells are kept for a while: calls that differ in values alone share a compiled graph.
@lru_cache(maxsize=4)
def cells(
    backend: str | None, **constants: tuple[int, ...]
) -> tuple[Operator, OperatorAndGradients]:
    operator = Operator(**constants)
    return operator, OperatorAndGradients(operator)


def cells_of(call: dict[str, Any]) -> tuple[Operator, OperatorAndGradients]:
    constants = ("stride", "padding", "dilation")
    return cells(asked_backend(), **{name: call[name] for name in constants if name in call})


def to_tensor(array: np.ndarray, dtype: str, permuted: bool = False) -> ms.Tensor:
    """permuted: the same values in memory where the last two axes of four are swapped."""
    # Converted on the host: MindSpore's Cast has no bfloat16 on a GPU.
    tensor = ms.Tensor(array, DTYPES[dtype])
    if permuted and tensor.ndim == 4:
        tensor = ms.Tensor(array.swapaxes(2, 3), DTYPES[dtype]).swapaxes(2, 3)
    return tensor


def to_array(tensor: ms.Tensor) -> np.ndarray:
    return tensor.asnumpy().astype(np.float64)


def tensors(call: dict[str, Any], dtype: str, permuted: bool = False) -> list[ms.Tensor | None]:
    return [to_tensor(call[name], dtype, permuted) if name in call else None for name in ARRAYS]


def forward(call: dict[str, Any], dtype: str = "float64", permuted: bool = False) -> np.ndarray:
    operator, _ = cells_of(call)
    output = operator(*tensors(call, dtype, permuted))
    assert output.dtype == DTYPES[dtype]
    return to_array(output)


def gradients(
    call: dict[str, Any], grad_output: np.ndarray, dtype: str = "float64", permuted: bool = False
) -> tuple[np.ndarray, Gradients]:
    """The output and the gradients of sum(grad_output * output); None for an array not given."""
    _, with_gradients = cells_of(call)
    output, grads = with_gradients(
        *tensors(call, dtype, permuted), to_tensor(grad_output, dtype, permuted)
    )
    assert {output.dtype, *(grad.dtype for grad in grads)} == {DTYPES[dtype]}
    given = [name for name in ARRAYS if name in call]
    assert len(grads) == len(given)
    by_name = dict(zip(given, map(to_array, grads)))
    return to_array(output), Gradients(*(by_name.get(name) for name in Gradients._fields))
