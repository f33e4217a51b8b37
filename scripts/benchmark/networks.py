# SPDX-License-Identifier: Apache-2.0
"""The operators under MindSpore as networks, for the benchmark."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from benchmark.rows import Row
from ms_deform import deform_conv2d


class Ours(nn.Cell):
    def __init__(self, row: Row) -> None:
        super().__init__()
        self.stride = row.s
        self.padding = row.padding

    def construct(
        self,
        input: ms.Tensor,
        offset: ms.Tensor,
        weight: ms.Tensor,
        bias: ms.Tensor,
        mask: ms.Tensor,
    ) -> ms.Tensor:
        return deform_conv2d(input, offset, weight, bias, self.stride, self.padding, mask=mask)


class Builtin(nn.Cell):
    def __init__(self, row: Row) -> None:
        super().__init__()
        self.kernel_size = (row.k, row.k)
        self.strides = (1, 1, row.s, row.s)
        self.padding = (row.padding,) * 4
        self.groups = row.g
        self.offset_groups = row.og

    def construct(
        self, input: ms.Tensor, packed: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor
    ) -> ms.Tensor:
        return ops.deformable_conv2d(
            input,
            weight,
            packed,
            self.kernel_size,
            self.strides,
            self.padding,
            bias,
            groups=self.groups,
            deformable_groups=self.offset_groups,
        )


class Training(nn.Cell):
    """The output and the gradients of a network's inputs, in one graph."""

    def __init__(self, forward: nn.Cell, count: int, grad_output: ms.Tensor) -> None:
        super().__init__()
        self.forward = forward
        self.grad_output = grad_output
        self.gradients = ms.value_and_grad(self.loss, tuple(range(count)), has_aux=True)

    def loss(self, *tensors: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        output = self.forward(*tensors)
        return (output * self.grad_output).sum(), output

    def construct(self, *tensors: ms.Tensor) -> tuple[ms.Tensor, ...]:
        (_, output), gradients = self.gradients(*tensors)
        return output, *gradients
