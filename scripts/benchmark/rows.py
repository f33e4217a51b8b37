# SPDX-License-Identifier: Apache-2.0
"""The layers that the benchmark times: their geometry by name, and their tensors."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """A square kernel with padding `kernel // 2`, mask and bias; a geometry string sets fields."""

    n: int  # images
    c: int  # input channels
    o: int  # output channels
    h: int  # input height
    w: int  # input width
    k: int = 3  # kernel size
    s: int = 1  # stride
    g: int = 1  # groups
    og: int = 1  # offset groups

    @property
    def padding(self) -> int:
        return self.k // 2

    @property
    def taps(self) -> int:
        return self.k * self.k

    @property
    def output_size(self) -> tuple[int, int]:
        return tuple((size + 2 * self.padding - self.k) // self.s + 1 for size in (self.h, self.w))

    def flops(self, training: bool) -> int:
        """Of the matrix products alone; training has three of them where the forward has one."""
        height, width = self.output_size
        forward = 2 * self.n * height * width * self.o * self.c // self.g * self.taps
        return 3 * forward if training else forward

    def __str__(self) -> str:
        return ",".join(f"{name}{value}" for name, value in self._asdict().items())


ROWS = {
    # The deformable stages of a detector, and one with four offset groups.
    "c3": Row(1, 128, 128, 100, 136),
    "c4": Row(1, 256, 256, 50, 68),
    "c5": Row(1, 512, 512, 25, 34),
    "c4g": Row(2, 256, 256, 50, 68, og=4),
    "resnet50-s2": Row(2, 128, 128, 200, 336, s=2),
    "resnet50-c4": Row(2, 256, 256, 50, 84),
    "resnet50-c5": Row(2, 512, 512, 25, 42),
    "resnext-c4": Row(2, 256, 256, 100, 168, g=32),
    "resnext-c5": Row(2, 512, 512, 50, 84, g=32),
    "dbnet-c3": Row(1, 128, 128, 92, 160),
    "dbnet-c4": Row(1, 256, 256, 46, 80),
    "dbnet-c5": Row(1, 512, 512, 23, 40),
    "centernet-64": Row(16, 64, 64, 128, 128),
    "centernet-256": Row(16, 256, 128, 32, 32),
    "edvr": Row(1, 64, 64, 180, 320, og=8),
    "basicvsr++": Row(1, 128, 64, 180, 320, og=16),
    "propainter": Row(1, 256, 128, 60, 108, og=16),
    "birefnet-7x7": Row(1, 64, 256, 256, 256, k=7),
    "birefnet-3x3": Row(1, 64, 256, 128, 128),
    "birefnet-1x1": Row(1, 64, 256, 64, 64, k=1),
    "dekr": Row(1, 15, 15, 128, 128),
    "bevdepth": Row(6, 512, 512, 16, 44, g=4),
    "yolact": Row(8, 128, 128, 69, 69),
}


def find_rows(name: str) -> dict[str, Row]:
    """The row of that name, those of that network, or one made from a geometry: n1,c8,o8,h9,w9."""
    found = {key: row for key, row in ROWS.items() if name in (key, key.partition("-")[0])}
    if found:
        return found
    fields = [re.fullmatch(r"([a-z]+)(\d+)", word) for word in name.split(",")]
    try:
        return {name: Row(**{field[1]: int(field[2]) for field in fields})}
    except TypeError:
        raise ValueError(
            f"no row {name}; there are {', '.join(ROWS)}, and geometries such as {ROWS['c4g']}"
        ) from None


class Arrays(NamedTuple):
    """A row's tensors."""

    input: np.ndarray
    offset: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    mask: np.ndarray
    grad_output: np.ndarray


def make_arrays(row: Row, dtype: type[np.floating] = np.float32) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = Arrays(
        input=(row.n, row.c, row.h, row.w),
        offset=(row.n, 2 * row.og * row.taps, *row.output_size),
        weight=(row.o, row.c // row.g, row.k, row.k),
        bias=(row.o,),
        mask=(row.n, row.og * row.taps, *row.output_size),
        grad_output=(row.n, row.o, *row.output_size),
    )
    arrays = Arrays(*(rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes))
    arrays.offset[...] *= 2  # pixels
    return arrays
