# SPDX-License-Identifier: Apache-2.0
"""Deformable convolution of PyTorch's own operators, which differentiates it to any order.

For stride 1, one group and one offset group; right where no sample is on a pixel.
"""

from __future__ import annotations

import torch


def deform_conv2d(input, offset, weight, bias, padding, mask) -> torch.Tensor:
    batch, channels, height, width = input.shape
    kernel_height, kernel_width = weight.shape[2:]
    taps, (out_height, out_width) = kernel_height * kernel_width, offset.shape[2:]
    offset = offset.view(batch, taps, 2, out_height, out_width)
    tap = torch.arange(taps)[:, None, None]
    y = offset[:, :, 0] + torch.arange(out_height)[:, None] + tap // kernel_width - padding
    x = offset[:, :, 1] + torch.arange(out_width) + tap % kernel_width - padding
    columns = 0
    for corner in range(4):
        row, column = y.floor() + corner // 2, x.floor() + corner % 2
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        at = at.view(batch, 1, -1).expand(-1, channels, -1)
        pixels = input.flatten(2).gather(2, at).view(batch, channels, *y.shape[1:])
        factor = inside * (1 - (y - row).abs()) * (1 - (x - column).abs()) * mask
        columns = columns + pixels * factor[:, None]
    output = torch.einsum("nckyx,ock->noyx", columns, weight.flatten(2))
    return output + bias[:, None, None]
