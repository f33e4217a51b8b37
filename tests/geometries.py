# SPDX-License-Identifier: Apache-2.0
"""Geometries the tests run over: a hand-picked grid of corner cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reference import output_size


@dataclass(frozen=True)
class Geometry:
    """Sizes and arguments of one call; the defaults differ on every axis."""

    batch: int = 2
    channels_in: int = 6
    channels_out: int = 4
    size: tuple[int, int] = (5, 8)
    kernel: tuple[int, int] = (3, 2)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, ...] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    offset_groups: int = 1
    use_mask: bool = True
    use_bias: bool = True
    offset_scale: float = 1.0

    @property
    def output_size(self) -> tuple[int, int]:
        return output_size(self.size, self.kernel, self.stride, self.padding, self.dilation)

    def call(self, seed: int = 0) -> dict[str, Any]:
        """Keyword arguments of deform_conv2d with random float64 arrays.

        An eighth of the offsets are whole numbers, so samples also meet pixels and borders exactly.
        """
        rng = np.random.default_rng(seed)
        taps = self.offset_groups * self.kernel[0] * self.kernel[1]
        offset = rng.normal(size=(self.batch, 2 * taps, *self.output_size)) * self.offset_scale
        whole = rng.random(offset.shape) < 1 / 8
        call = {
            "input": rng.normal(size=(self.batch, self.channels_in, *self.size)),
            "offset": np.where(whole, np.round(offset), offset),
            "weight": rng.normal(
                size=(self.channels_out, self.channels_in // self.groups, *self.kernel)
            ),
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
        }
        if self.use_bias:
            call["bias"] = rng.normal(size=self.channels_out)
        if self.use_mask:
            call["mask"] = rng.normal(size=(self.batch, taps, *self.output_size))
        return call

    def grad_output(self, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng([seed, 1])
        return rng.normal(size=(self.batch, self.channels_out, *self.output_size))


def plane(height: int, width: int) -> Geometry:
    """An output of height x width pixels, to meet the kernels' tile sizes."""
    return Geometry(channels_in=2, channels_out=3, size=(height, width + 1))


GRID = {
    "torchvision's own": Geometry(
        size=(5, 4),
        channels_out=2,
        stride=(2, 1),
        padding=(1, 0),
        dilation=(2, 1),
        groups=2,
        offset_groups=3,
    ),
    "1x1 kernel": Geometry(kernel=(1, 1), padding=(0, 0)),
    "1x1 everything": Geometry(
        batch=1, channels_in=1, channels_out=1, size=(1, 1), kernel=(1, 1), padding=(0, 0)
    ),
    "one channel in": Geometry(channels_in=1, channels_out=5),
    "one channel out": Geometry(channels_out=1),
    "7x5 kernel": Geometry(channels_in=3, kernel=(7, 5), padding=(3, 2)),
    "1x4 kernel": Geometry(kernel=(1, 4), padding=(0, 2), stride=(1, 2)),
    "depthwise": Geometry(channels_out=6, groups=6),
    "depthwise times two": Geometry(channels_out=12, groups=6, offset_groups=2),
    "an offset group a channel": Geometry(offset_groups=6, groups=2),
    "more groups than offset groups": Geometry(
        channels_in=12, channels_out=8, groups=4, offset_groups=3
    ),
    "37 channels to 19": Geometry(channels_in=37, channels_out=19),
    "no mask": Geometry(use_mask=False, offset_groups=2),
    "no bias": Geometry(use_bias=False, groups=2),
    "neither mask nor bias": Geometry(use_mask=False, use_bias=False),
    "strided and dilated": Geometry(
        size=(13, 17), stride=(3, 2), dilation=(2, 3), padding=(2, 3), kernel=(3, 4)
    ),
    "four-sided padding": Geometry(padding=(0, 3, 2, 1)),
    "offsets far outside": Geometry(offset_scale=8.0),
    "empty batch": Geometry(batch=0),
    "batch 33": Geometry(batch=33, channels_in=2, channels_out=3),
    "15 pixels": plane(3, 5),
    "16 pixels": plane(2, 8),
    "17 pixels": plane(1, 17),
    "63 pixels": plane(7, 9),
    "64 pixels": plane(4, 16),
    "65 pixels": plane(5, 13),
    "127 pixels": plane(1, 127),
    "128 pixels": plane(8, 16),
    "129 pixels": plane(3, 43),
}


# Below, at and above what a block of the CUDA kernels takes, on every axis of its tiles.
CUDA_BLOCKS = {
    "64 channels to 64": Geometry(batch=1, channels_in=64, channels_out=64, size=(3, 9)),
    "136 channels to 129": Geometry(batch=1, channels_in=136, channels_out=129, size=(3, 9)),
    "72 channels to 65, no mask": Geometry(
        batch=1, channels_in=72, channels_out=65, size=(8, 9), kernel=(1, 1), use_mask=False
    ),
    "16 offset groups": Geometry(
        batch=1, channels_in=128, channels_out=16, size=(5, 7), offset_groups=16
    ),
    "8 groups of 8": Geometry(batch=1, channels_in=64, channels_out=64, groups=8, size=(5, 7)),
    "24 channels in 3 groups, 1 offset group": Geometry(channels_in=24, channels_out=6, groups=3),
    "48 channels, 3 groups, 2 offset groups": Geometry(
        channels_in=48, channels_out=6, groups=3, offset_groups=2
    ),
    "5x5 kernel: more rows than a plan": Geometry(
        batch=1, channels_in=16, channels_out=8, kernel=(5, 5), padding=(2, 2), size=(6, 7)
    ),
}
