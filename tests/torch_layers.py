# SPDX-License-Identifier: Apache-2.0
"""mmcv's layers in torch, as its documentation and sources define them, on torchvision's operator.

mmcv itself has no wheel for the versions of torch the tests use.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torchvision.ops import deform_conv2d


class _Pack(nn.Module):
    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        deform_groups=1,
        bias=True,
        channels_per_sample=3,
    ) -> None:
        super().__init__()
        pair = nn.modules.utils._pair
        kernel_size = pair(kernel_size)
        self.geometry = {
            "stride": pair(stride),
            "padding": pair(padding),
            "dilation": pair(dilation),
        }
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        bound = 1 / math.sqrt(in_channels * math.prod(kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        self.conv_offset = nn.Conv2d(
            in_channels,
            deform_groups * channels_per_sample * math.prod(kernel_size),
            kernel_size,
            **self.geometry,
        )
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)


class DeformConv2dPack(_Pack):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs, bias=False, channels_per_sample=2)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x):
        return deform_conv2d(x, self.conv_offset(x), self.weight, **self.geometry)


class ModulatedDeformConv2dPack(_Pack):
    def forward(self, x):
        o1, o2, mask = torch.chunk(self.conv_offset(x), 3, dim=1)
        offset = torch.cat((o1, o2), dim=1)
        return deform_conv2d(
            x, offset, self.weight, self.bias, mask=torch.sigmoid(mask), **self.geometry
        )
