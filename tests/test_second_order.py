# SPDX-License-Identifier: Apache-2.0
"""Gradients of gradients are refused in words, not computed wrongly."""

from __future__ import annotations

import mindspore as ms
import pytest
from mindspore import nn

from networks import LayerNet, MeanSquare, image

pytestmark = pytest.mark.usefixtures("device", "mode")


class GradientNorm(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__()
        self.grad = ms.grad(net)

    def construct(self, input):
        return (self.grad(input) ** 2).sum()


def test_second_order_gradients_raise_not_implemented_error():
    second_order = ms.grad(GradientNorm(MeanSquare(LayerNet())))
    with pytest.raises(NotImplementedError, match="gradients of its gradients are not implemented"):
        second_order(image()).asnumpy()
