# SPDX-License-Identifier: Apache-2.0
"""The backend "composition": MindSpore's ``DeformableOffsets``, then ``Conv2D``.

The first samples the input into columns [N, C_in, H_out * kh, W_out * kw], the second convolves
them with a stride of the kernel's size. MindSpore differentiates both. A graph of it holds only
MindSpore's primitives, so that it runs where ms_deform is not installed. For Ascend the sampling is
laid out as `ai_core_layout` chooses.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore._c_expression import MSContext
from mindspore.ops import Primitive
from mindspore.ops.operations import BiasAdd, Conv2D
from mindspore.ops.operations.nn_ops import DeformableOffsets

from ms_deform.backends import ai_core_layout
from ms_deform.backends.ai_core_layout import Layout, Target
from ms_deform.backends.interface import Call
from ms_deform.geometry import Geometry
from ms_deform.install import ai_core
from ms_deform.layout import pack


class _Limit(NamedTuple):
    """What a primitive cannot do, and who says so."""

    allowed: str
    source: str


# Worked round: DeformableOffsets takes masks always (they are ones where there are none), and no
# bfloat16. Both halves are computed in float32: CANN's DeformableOffsetsGrad takes no float16
# (ai_core, source 2), and GridSampler2D would round coordinates, normalised to [-1, 1], to 2^-11
# of the image.
LIMITS = {
    "dtype": _Limit(
        "float32, float16 or bfloat16: DeformableOffsets has no float64",
        "mindspore.ops.deformable_conv2d, 2.7 to 2.10",
    ),
    "shape": _Limit(
        "tensors of which only the batch size is unknown when the graph is compiled",
        "DeformableOffsets infers sizes of -3 from unknown ones, seen with MindSpore 2.7 and 2.10",
    ),
    "kernel": _Limit(
        "a kernel of at most 63 x 63 on Ascend: it is the stride of Conv2D",
        "CANN, nn_calculation_ops.h, Conv2D: strides from 1 to 63",
    ),
}
_MOST_STRIDE = 63
# Beyond every image, and with every position on it within 32 bits.
_FAR = 1e9


def obstacle(call: Call) -> str | None:
    """What the primitives cannot do, and who says so."""
    geometry = call.geometry
    sizes = (geometry.in_size, geometry.out_size, geometry.kernel_size)
    if call.dtype == mstype.float64:
        return _limit("dtype", "float64")
    if None in (geometry.groups, geometry.offset_groups, geometry.out_channels, *sum(sizes, ())):
        return _limit("shape", f"an input of size {geometry.in_size}")
    if call.device_target == "Ascend" and max(geometry.kernel_size) > _MOST_STRIDE:
        return _limit("kernel", str(geometry.kernel_size))
    return None


def _limit(name: str, got: str) -> str:
    return f"takes {LIMITS[name].allowed} ({LIMITS[name].source}), got {got}"


def off_ai_core(call: Call) -> str | None:
    """Why the call's sampling, or its gradient, may leave the AI Core of the device, if it may."""
    target = _device(call)
    if target is not None:
        return ai_core_layout.choose(call.geometry, target)[1]
    on_ascend = call.device_target == "Ascend"
    return f"no rules are known of the AI Core of {soc_version()!r}" if on_ascend else None


def soc_version() -> str:
    """MindSpore's name of the device's SoC, such as "ascend910b"."""
    return MSContext.get_instance().get_ascend_soc_version()


def _device(call: Call) -> Target | None:
    """What the call is laid out for: the device, if it is Ascend's and its rules are known."""
    product = ai_core.product_of(soc_version()) if call.device_target == "Ascend" else None
    if product is None:
        return None
    by_graph_engine = (
        ms.get_context("mode") == ms.GRAPH_MODE and ms.get_context("jit_level") == "O2"
    )
    engine = ai_core.GRAPH_ENGINE if by_graph_engine else ai_core.SINGLE_OPERATORS
    return Target(product, engine, call.training)


def prepare(call: Call, target: Target | None = None) -> tuple[object, ...]:
    """What computes the call without its bias, and what that takes beside the tensors."""
    target = target or _device(call)
    # An empty batch has nothing to lay out, and MindSpore pads no empty tensor.
    if target is None or call.geometry.batch == 0:
        return (_as_it_is, *primitives(call.geometry.any_size))
    return _laid_out(call.geometry, ai_core_layout.choose(call.geometry, target)[0])


def run(
    prepared: tuple[object, ...],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    output = prepared[0](prepared[1:], input, offset, mask, weight)
    if bias is not None:
        output = BiasAdd()(output, single(bias))
    return ops.cast(output, input.dtype)


@cache
def primitives(geometry: Geometry) -> tuple[Primitive, Primitive]:
    """The two primitives of a geometry, without batch and sizes."""
    attributes = geometry.attributes
    sample = _deformable_offsets(geometry, geometry.offset_groups, attributes.padding)
    return sample, _product(geometry, geometry.kernel_size)


def _deformable_offsets(
    geometry: Geometry, offset_groups: int, padding: tuple[int, ...]
) -> Primitive:
    attributes = geometry.attributes
    return DeformableOffsets(
        strides=(1, 1, *attributes.stride),
        pads=padding,
        ksize=geometry.kernel_size,
        dilations=(1, 1, *attributes.dilation),
        deformable_groups=offset_groups,
    )


def _product(geometry: Geometry, kernel_size: tuple[int, int]) -> Primitive:
    return Conv2D(
        geometry.out_channels,
        kernel_size,
        pad_mode="valid",
        stride=kernel_size,
        group=geometry.groups,
    )


def _as_it_is(
    prepared: tuple[Primitive, Primitive],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
) -> Tensor:
    sample, product = prepared
    return product(sample(single(input), packed(offset, mask)), single(weight))


# Bounded: data of ever new sizes must not fill the memory.
@lru_cache(maxsize=4096)
def _laid_out(geometry: Geometry, layout: Layout) -> tuple[object, ...]:
    """`prepare` for a layout; -1 in a shape is a batch that is not known."""
    batch = -1 if geometry.batch is None else geometry.batch
    count = -1 if geometry.batch is None else batch * layout.image_groups
    own = geometry.in_channels // layout.image_groups
    offset_groups = geometry.offset_groups // layout.image_groups
    samples = offset_groups * math.prod(geometry.kernel_size)
    height, width = geometry.out_size
    shapes = (
        (count, own, *geometry.in_size),
        (count, layout.channels, *layout.size),
        (count, 2 * samples, height, width),
        (count, samples, height, width),
    )
    images = (shapes, _zeros(geometry, layout, own))
    cut = own if layout.channels > own else None
    if layout.operator == ai_core.GRID_SAMPLER:
        taps = samples * geometry.in_channels
        return (
            _by_grid_sampler,
            images,
            ((count, samples, 2, height, width), (count, samples * height, width, 2)),
            _coordinates(geometry, layout),
            cut,
            (count, 1, samples * height, width),
            (batch, taps, height, width),
            (geometry.out_channels, taps // geometry.groups, 1, 1),
            _product(geometry, (1, 1)),
        )
    top, bottom, left, right = geometry.attributes.padding
    padding = (top - layout.first[0], bottom, left - layout.first[1], right)
    kernel_height, kernel_width = geometry.kernel_size
    return (
        _by_deformable_offsets,
        images,
        _deformable_offsets(geometry, offset_groups, padding),
        cut,
        (batch, geometry.in_channels, height * kernel_height, width * kernel_width),
        _product(geometry, geometry.kernel_size),
    )


def _zeros(geometry: Geometry, layout: Layout, own: int) -> Primitive | None:
    """What adds a layout's zeros to the images, if it has any."""
    channels = (0, layout.channels - own)
    rows, columns = (
        (first, whole - first - size)
        for first, whole, size in zip(layout.first, layout.size, geometry.in_size)
    )
    # Not ops.pad: its gradient is wrong from the second call of a graph on (MindSpore 2.10, CPU).
    return ops.Pad(((0, 0), channels, rows, columns)) if any(channels + rows + columns) else None


def _by_deformable_offsets(
    prepared: tuple[object, ...],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
) -> Tensor:
    images, sample, cut, columns, product = prepared
    input, offset, mask = _images(images, input, offset, mask)
    sampled = sample(input, pack(offset, mask))
    if cut is not None:
        sampled = sampled[:, :cut]
    return product(ops.reshape(sampled, columns), single(weight))


def _by_grid_sampler(
    prepared: tuple[object, ...],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
) -> Tensor:
    images, (pairs, grids), coordinates, cut, factors, columns, rows, product = prepared
    input, offset, mask = _images(images, input, offset, mask)
    y, x = ops.unstack(ops.reshape(offset, pairs), 2)
    first_y, first_x, scale_y, scale_x = coordinates
    grid = ops.stack(((x + first_x) * scale_x - 1, (y + first_y) * scale_y - 1), -1)
    sampled = ops.grid_sample(input, ops.reshape(grid, grids), "bilinear", "zeros", True)
    if cut is not None:
        sampled = sampled[:, :cut]
    sampled = sampled * ops.reshape(mask, factors)
    return product(ops.reshape(sampled, columns), ops.reshape(single(weight), rows))


def _images(
    images: tuple[object, ...], input: Tensor, offset: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The images that are sampled, with their zeros, finite offsets, and masks."""
    (inputs, padded, offsets, masks), zeros = images
    input = ops.reshape(single(input), inputs)
    if zeros is not None:
        # MindSpore does not know the padded shape where it does not know the batch.
        input = ops.reshape(zeros(input), padded)
    offset = _near(ops.reshape(single(offset), offsets))
    # A NaN in the mask, for one in an offset: CANN's operators take that for 0, or leave it out.
    batch, samples, height, width = masks
    both = ops.reshape(offset, (batch, samples, 2, height, width)).sum(2)
    nans = ops.stop_gradient(both - both)
    mask = nans + 1 if mask is None else ops.reshape(single(mask), masks) + nans
    return input, offset, mask


def _coordinates(geometry: Geometry, layout: Layout) -> tuple[object, ...]:
    """Of y and of x: those of all taps and pixels without offsets, and what normalises them.

    (size - 1) / 2 is a power of two, so that whole coordinates come back whole from [-1, 1]. Others
    are rounded to the spacing of float32 at the far border.
    """
    attributes = geometry.attributes
    taps = np.divmod(np.arange(math.prod(geometry.kernel_size)), geometry.kernel_size[1])
    firsts = []
    for axis in range(2):
        pixels = np.arange(geometry.out_size[axis]) * attributes.stride[axis]
        tap = taps[axis] * attributes.dilation[axis] - attributes.padding[2 * axis]
        firsts.append(np.expand_dims(np.add.outer(tap, pixels), 2 - axis))
    scales = [2 / (size - 1) for size in layout.size]
    return (*(Tensor(first.astype(np.float32)) for first in firsts), *scales)


def packed(offset: Tensor, mask: Tensor | None) -> Tensor:
    """Offset and mask as the primitives take them, without infinities, of which they make NaNs."""
    return pack(_near(single(offset)), None if mask is None else single(mask))


def _near(offset: Tensor) -> Tensor:
    """The offset, infinities and other distances beyond every image made finite."""
    # Not clamp, which loses NaNs, and not masked_fill, which vmap cannot take in MindSpore 2.7.
    return ops.select(ops.abs(offset) > _FAR, ops.full_like(offset, _FAR), offset)


def single(tensor: Tensor) -> Tensor:
    return ops.cast(tensor, mstype.float32)


class LaidOut(NamedTuple):
    """The backend, laid out for a target whatever the device is."""

    target: Target

    obstacle = staticmethod(obstacle)
    run = staticmethod(run)

    def prepare(self, call: Call) -> tuple[object, ...]:
        return prepare(call, self.target)

    def __repr__(self) -> str:
        return f"'composition' for {self.target.product.name}"
