# SPDX-License-Identifier: Apache-2.0
"""The network of torch_net.py in MindSpore, line by line."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from ms_deform import DeformConv2d


class Net(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, pad_mode="pad", padding=1, has_bias=True)
        self.norm = nn.BatchNorm2d(16)
        self.offset = nn.Conv2d(16, 27, 3, pad_mode="pad", padding=1, has_bias=True)
        self.deform = DeformConv2d(16, 32, 3, padding=1)
        self.head = nn.Dense(32, 10)

    def construct(self, x: Tensor) -> Tensor:
        x = ops.relu(self.norm(self.conv(x)))
        predicted = self.offset(x)
        x = self.deform(x, predicted[:, :18], ops.sigmoid(predicted[:, 18:]))
        return self.head(ops.relu(x).mean((2, 3)))
