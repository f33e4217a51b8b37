# SPDX-License-Identifier: Apache-2.0
"""Gradients of gradients are refused in words, not computed wrongly."""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from networks import LayerNet, MeanSquare, image

pytestmark = pytest.mark.usefixtures("device")


class GradientNorm(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__()
        self.grad = ms.grad(net)

    def construct(self, input):
        return (self.grad(input) ** 2).sum()


@pytest.fixture
def mode_afterwards() -> Iterator[None]:
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


@pytest.mark.usefixtures("mode")
def test_second_order_gradients_raise_not_implemented_error():
    second_order = ms.grad(GradientNorm(MeanSquare(LayerNet())))
    with pytest.raises(NotImplementedError, match="gradients of its gradients are not implemented"):
        second_order(image()).asnumpy()


@pytest.mark.usefixtures("mode_afterwards")
def test_after_a_gradient_that_an_exception_stopped_the_refusal_says_to_call_again():
    loss, input = MeanSquare(LayerNet()), image()

    def stop(input):
        raise InterruptedError

    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = ms.grad(loss)(input).asnumpy()
    with pytest.raises(InterruptedError):
        ms.grad(stop)(input)
    ms.set_context(mode=ms.GRAPH_MODE)
    with pytest.raises(NotImplementedError, match="call it again, which is now right"):
        ms.grad(loss)(input)
    np.testing.assert_allclose(ms.grad(loss)(input).asnumpy(), expected, rtol=1e-4, atol=1e-6)
