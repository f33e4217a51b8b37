# SPDX-License-Identifier: Apache-2.0
"""Small networks as users write them, around the layer and around the function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ms_deform import DeformConv2d, deform_conv2d

CHANNELS, SIZE, TAPS = 4, (7, 9), 9


class LayerNet(nn.Cell):
    """A DeformConv2d whose offsets and mask come from a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(
            CHANNELS, 3 * TAPS, 3, pad_mode="pad", padding=1, has_bias=True
        )
        self.deform = DeformConv2d(CHANNELS, 6, 3, padding=1)
        self.offset_channels = 2 * TAPS

    def construct(self, input):
        predicted = self.offset_conv(input)
        mask = ops.sigmoid(predicted[:, self.offset_channels :])
        return self.deform(input, predicted[:, : self.offset_channels], mask)


class FunctionNet(nn.Cell):
    """The function on a parameter of its own, without mask and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(
            CHANNELS, 2 * TAPS, 3, pad_mode="pad", padding=1, has_bias=True
        )
        self.weight = ms.Parameter(ms.Tensor(random_array((6, CHANNELS, 3, 3))), name="weight")

    def construct(self, input):
        return deform_conv2d(input, self.offset_conv(input), self.weight, padding=1)


class Call(nn.Cell):
    """deform_conv2d with constants that graph mode sees while it compiles."""

    def __init__(self, **constants) -> None:
        super().__init__()
        self.constants = {"padding": 1, **constants}

    def construct(self, input, offset, weight, bias, mask):
        return deform_conv2d(input, offset, weight, bias, mask=mask, **self.constants)


class MeanSquare(nn.Cell):
    """The mean square of a network's output: a loss that needs no label."""

    def __init__(self, net: nn.Cell) -> None:
        super().__init__()
        self.net = net

    def construct(self, *inputs):
        return ops.square(self.net(*inputs)).mean()


def paired(actual: Any, expected: Any) -> Iterator[tuple[Any, Any]]:
    """The items of two tuples or lists side by side: as many in both, and at least one."""
    assert isinstance(actual, (tuple, list)) and isinstance(expected, (tuple, list))
    assert len(actual) == len(expected) > 0
    return zip(actual, expected)


def random_array(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def image(batch: int = 2, seed: int = 0, size: tuple[int, int] = SIZE) -> ms.Tensor:
    return ms.Tensor(random_array((batch, CHANNELS, *size), seed))


def call_tensors(batch: int = 2, out_channels: int = 6) -> dict[str, ms.Tensor]:
    """Tensor arguments of a valid 3x3 call with padding 1, two groups, two offset groups."""
    shapes = {
        "input": (batch, CHANNELS, *SIZE),
        "offset": (batch, 2 * 2 * TAPS, *SIZE),
        "weight": (out_channels, CHANNELS // 2, 3, 3),
        "bias": (out_channels,),
        "mask": (batch, 2 * TAPS, *SIZE),
    }
    return {
        name: ms.Tensor(random_array(shape, seed))
        for seed, (name, shape) in enumerate(shapes.items())
    }
