# SPDX-License-Identifier: Apache-2.0
"""CANN's DeformableOffsets and its gradient in NumPy, by the source of CANN 8.1.RC1.

opp/built-in/op_impl/ai_core/tbe/impl/dynamic/deformable_offsets.py (`compute_one_filter`) and
deformable_offsets_grad.py. One offset group, as these operators want it on the AI Core. They differ
from torchvision's in the gradients at a coordinate of exactly -1, and in what a NaN gives.
"""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import nn


class DeformableOffsets(nn.Cell):
    """In the place of MindSpore's primitive, in PyNative mode."""

    def __init__(self, strides, pads, ksize, dilations, deformable_groups) -> None:
        super().__init__()
        assert deformable_groups == 1
        assert min(pads) >= 0
        self.stride, self.dilation, self.kernel = strides[2:], dilations[2:], ksize
        self.padding = pads[0], pads[2]

    def construct(self, x, offsets):
        values, packed = x.asnumpy().astype(float), offsets.asnumpy().astype(float)
        _, _, height, width = values.shape
        columns = self._empty_columns(values, packed)
        for (i, j), position, mask in self._taps(packed):
            total = 0
            # Where an offset is a NaN all of these are 0.
            finite = [np.nan_to_num(coordinate) for coordinate in position]
            for corner, weights in _corners(*finite):
                weight = np.prod(
                    [np.where(np.isnan(p), 0, w) for p, w in zip(position, weights)], 0
                )
                inside = _inside(corner, height, width)
                total = total + (weight * mask)[:, None] * _pixels(values, corner, inside)
            columns[:, :, i :: self.kernel[0], j :: self.kernel[1]] = total
        return ms.Tensor(columns.astype(np.float32))

    def bprop(self, x, offsets, output, grad_output):
        values, packed = x.asnumpy().astype(float), offsets.asnumpy().astype(float)
        columns = grad_output.asnumpy().astype(float)
        batch, _, height, width = values.shape
        grad_x, grad_packed = np.zeros_like(values), np.zeros_like(packed)
        images = np.arange(batch)[:, None, None]
        for (i, j), (y, x), mask in self._taps(packed):
            grad = columns[:, :, i :: self.kernel[0], j :: self.kernel[1]]
            sampled = (y > -1) & (y < height) & (x > -1) & (x < width)
            slopes = [0, 0, 0]
            for corner, (weight_y, weight_x) in _corners(y, x):
                inside = sampled & _inside(corner, height, width)
                pixels = _pixels(values, corner, inside)
                rows, cols = (np.where(inside, c, 0).astype(int) for c in corner)
                added = np.where(inside[:, None], grad * (mask * weight_y * weight_x)[:, None], 0)
                np.add.at(grad_x, (images, slice(None), rows, cols), added.transpose(0, 2, 3, 1))
                sign_y = np.where(corner[0] > np.floor(y), 1, -1)
                sign_x = np.where(corner[1] > np.floor(x), 1, -1)
                inner = (grad * pixels).sum(1)
                factors = (sign_x * weight_y * mask, sign_y * weight_x * mask, weight_y * weight_x)
                slopes = [slope + inner * factor for slope, factor in zip(slopes, factors)]
            tap, taps = i * self.kernel[1] + j, self.kernel[0] * self.kernel[1]
            for plane, slope in enumerate(slopes):
                grad_packed[:, plane * taps + tap] = slope
        return ms.Tensor(grad_x.astype(np.float32)), ms.Tensor(grad_packed.astype(np.float32))

    def _empty_columns(self, values: np.ndarray, packed: np.ndarray) -> np.ndarray:
        height, width = (n * k for n, k in zip(packed.shape[2:], self.kernel))
        return np.empty((*values.shape[:2], height, width))

    def _taps(self, packed: np.ndarray) -> Iterator[tuple]:
        """Of each tap its indices, its coordinates (y, x), and its mask."""
        kernel_height, kernel_width = self.kernel
        x, y, mask = np.split(packed, 3, axis=1)
        rows, columns = np.indices(packed.shape[2:])
        for tap in range(kernel_height * kernel_width):
            i, j = divmod(tap, kernel_width)
            base_y = rows * self.stride[0] - self.padding[0] + i * self.dilation[0]
            base_x = columns * self.stride[1] - self.padding[1] + j * self.dilation[1]
            yield (i, j), (y[:, tap] + base_y, x[:, tap] + base_x), mask[:, tap]


def _corners(y: np.ndarray, x: np.ndarray) -> Iterator[tuple]:
    """(row, column) of each, and its weights along y and x."""
    low_y, low_x = np.floor(y), np.floor(x)
    for row, weight_y in ((low_y, low_y + 1 - y), (low_y + 1, y - low_y)):
        for column, weight_x in ((low_x, low_x + 1 - x), (low_x + 1, x - low_x)):
            yield (row, column), (weight_y, weight_x)


def _inside(corner: tuple[np.ndarray, np.ndarray], height: int, width: int) -> np.ndarray:
    row, column = corner
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


def _pixels(values: np.ndarray, corner: tuple, inside: np.ndarray) -> np.ndarray:
    """[N, C, Ho, Wo], 0 outside."""
    images = np.arange(len(values))[:, None, None]
    rows, columns = (np.where(inside, position, 0).astype(int) for position in corner)
    return np.moveaxis(np.where(inside[..., None], values[images, :, rows, columns], 0), -1, 1)
