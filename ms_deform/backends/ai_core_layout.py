# SPDX-License-Identifier: Apache-2.0
"""How the composition lays a call out, so that CANN keeps its sampling on the AI Core.

- DeformableOffsets of all channels, as MindSpore's own layout has it.
- DeformableOffsets of each offset group by itself: the groups go into the batch, each image with
  channels of zeros up to what the rule wants.
- GridSampler2D of each offset group by itself, the mask multiplied afterwards.

Of those that the product's rules allow the one that moves the fewest elements is taken. A fourth
way, all channels sampled with the offsets of every group, is not here: it never moves less than the
second, whose images have at most as many channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ms_deform.geometry import Geometry, Size
from ms_deform.install import ai_core
from ms_deform.install.ai_core import DEFORMABLE_OFFSETS, GRID_SAMPLER, Product, Sampling

# More channels of zeros than any rule wants.
_MOST_ZEROS = 2048


class Target(NamedTuple):
    """What a call is laid out for."""

    product: Product
    engine: str = ai_core.SINGLE_OPERATORS
    training: bool = True


class Layout(NamedTuple):
    """The images [N * image_groups, channels, H, W] that an operator samples."""

    operator: str
    image_groups: int  # offset groups in the batch: all, or 1
    channels: int  # those of the input, then zeros
    first: tuple[int, int]  # rows of zeros above the input, columns to its left
    size: Size  # with the zeros above, below, left and right


# Bounded: data of ever new sizes must not fill the memory.
@lru_cache(maxsize=4096)
def choose(geometry: Geometry, target: Target) -> tuple[Layout, str | None]:
    """The layout, and why its sampling, or the gradient of it, leaves the AI Core; None if neither.

    The geometry's sizes are known, but for the batch.
    """
    allowed = [
        layout for layout in layouts(geometry, target) if obstacle(geometry, layout, target) is None
    ]
    if allowed:
        return min(allowed, key=lambda layout: moved_elements(geometry, layout, target)), None
    if target.training:
        forward, _ = choose(geometry, target._replace(training=False))
        return forward, obstacle(geometry, forward, target)
    # As MindSpore's own layout has it.
    layout = next(layouts(geometry, target))
    return layout, obstacle(geometry, layout, target)


def layouts(geometry: Geometry, target: Target) -> Iterator[Layout]:
    """Those that compute the call, on the AI Core or not."""
    yield _deformable_offsets(geometry, 1, geometry.in_channels)
    groups = geometry.offset_groups
    for make in (_deformable_offsets, _grid_sampler):
        yield _with_zeros(geometry, make(geometry, groups, geometry.in_channels // groups), target)


def _deformable_offsets(geometry: Geometry, image_groups: int, channels: int) -> Layout:
    # One row and column of the padding are in the image: at a coordinate of exactly -1, where a
    # kernel with padding and offsets of zero samples, the gradients of DeformableOffsetsGrad are 0
    # and torchvision's are not (`offset_h > -1` in the operator of CANN 8.1 and in ops-nn's).
    top, _, left, _ = geometry.attributes.padding
    first = (min(top, 1), min(left, 1))
    size = tuple(map(sum, zip(geometry.in_size, first)))
    return Layout(DEFORMABLE_OFFSETS, image_groups, channels, first, size)


def _grid_sampler(geometry: Geometry, image_groups: int, channels: int) -> Layout:
    # Coordinates are normalised by (size - 1) / 2: a power of two, and whole numbers stay whole.
    height, width = (2 ** max(size - 2, 0).bit_length() + 1 for size in geometry.in_size)
    return Layout(GRID_SAMPLER, image_groups, channels, (0, 0), (height, width))


def _with_zeros(geometry: Geometry, layout: Layout, target: Target) -> Layout:
    """The layout with the fewest channels that the rules allow, if they allow any."""
    for channels in range(layout.channels, layout.channels + _MOST_ZEROS):
        wider = layout._replace(channels=channels)
        if obstacle(geometry, wider, target) is None:
            return wider
    return layout


def obstacle(geometry: Geometry, layout: Layout, target: Target) -> str | None:
    """Why the sampling, or its gradient in training, leaves the AI Core; None if neither does."""
    sampling = Sampling(
        layout.operator,
        layout.channels,
        layout.size,
        geometry.offset_groups // layout.image_groups,
        geometry.kernel_size,
        geometry.batch is not None,
        target.engine,
    )
    why_not = ai_core.obstacle(target.product, sampling)
    if target.training:
        gradient = sampling._replace(operator=ai_core.GRADIENTS[layout.operator])
        # First: without one no forward operator helps.
        why_not = ai_core.obstacle(target.product, gradient) or why_not
    return why_not


def moved_elements(geometry: Geometry, layout: Layout, target: Target) -> int:
    """What the sampling of a call reads and writes, in elements, with CANN's changes of format.

    Left out is what all layouts have: the product, and the order of offsets.
    """
    images = (geometry.batch or 1) * geometry.offset_groups
    points = images * math.prod(geometry.kernel_size) * math.prod(geometry.out_size)
    own = geometry.in_channels // geometry.offset_groups
    # Of one offset group.
    channels = layout.channels * layout.image_groups // geometry.offset_groups
    pixels = images * channels * math.prod(layout.size)
    added = channels != own or layout.size != geometry.in_size
    sizes = _Sizes(
        points,
        channels * points,
        pixels,
        pixels + images * own * math.prod(geometry.in_size) if added else 0,
        (own + channels) * points if channels != own else 0,
    )
    forward, backward = _MOVED_BY[layout.operator](sizes)
    return forward + backward if target.training else forward


class _Sizes(NamedTuple):
    """Elements, of all images."""

    points: int  # sampled: taps of all output pixels
    columns: int  # points with all channels
    pixels: int  # of the images
    zeros: int  # moved to put zeros to the images, or to take them off their gradient
    cut: int  # moved to take zeros off the columns, or to put them to their gradient


# A sampled column reads four pixels; its gradient reads four, adds to four, and has three numbers a
# point. Both operators want NHWC, which costs a read and a write each way.
def _by_deformable_offsets(n: _Sizes) -> tuple[int, int]:
    sampling = 5 * n.columns + 3 * n.points
    formats = 2 * (n.pixels + 3 * n.points + n.columns)
    gradient = 13 * n.columns + 6 * n.points
    # Of the columns' gradient, of images, offsets, and the gradients of both.
    gradient_formats = 2 * (n.columns + 2 * n.pixels + 6 * n.points)
    forward = n.zeros + formats + sampling + n.cut
    return forward, n.cut + gradient_formats + gradient + n.zeros


def _by_grid_sampler(n: _Sizes) -> tuple[int, int]:
    sampling = 5 * n.columns + 2 * n.points
    coordinates = 8 * n.points
    masking = 2 * n.columns + n.points
    gradient = 13 * n.columns + 4 * n.points
    # Writes NCHW columns itself; the gradient reads NHWC and writes NCHW.
    gradient_formats = 2 * (n.columns + 2 * n.pixels)
    # Of the columns and of the mask, a product and its sum.
    unmasking = masking + 4 * n.columns + n.points
    forward = n.zeros + 2 * n.pixels + coordinates + sampling + n.cut + masking
    backward = unmasking + n.cut + gradient_formats + gradient + coordinates + n.zeros
    return forward, backward


_MOVED_BY = {DEFORMABLE_OFFSETS: _by_deformable_offsets, GRID_SAMPLER: _by_grid_sampler}
