# SPDX-License-Identifier: Apache-2.0
"""The backend "composition": MindSpore's ``DeformableOffsets``, then ``Conv2D``.

The first samples the input into columns [N, C_in, H_out * kh, W_out * kw], the second convolves
them with a stride of the kernel's size. MindSpore differentiates both. A graph of it holds only
MindSpore's primitives, so that it runs where ms_deform is not installed.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops import Primitive
from mindspore.ops.operations import BiasAdd, Conv2D
from mindspore.ops.operations.nn_ops import DeformableOffsets

from ms_deform.backends.interface import Call
from ms_deform.geometry import Geometry
from ms_deform.layout import pack


class _Limit(NamedTuple):
    """What a primitive cannot do, and who says so."""

    allowed: str
    source: str


# Worked round: DeformableOffsets takes masks always (they are ones where there are none), and no
# bfloat16 (both halves are computed in float32).
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


def prepare(call: Call) -> tuple[Primitive, Primitive]:
    return primitives(call.geometry.any_size)


@cache
def primitives(geometry: Geometry) -> tuple[Primitive, Primitive]:
    """The two primitives of a geometry, without batch and sizes."""
    attributes = geometry.attributes
    sample = DeformableOffsets(
        strides=(1, 1, *attributes.stride),
        pads=attributes.padding,
        ksize=geometry.kernel_size,
        dilations=(1, 1, *attributes.dilation),
        deformable_groups=geometry.offset_groups,
    )
    product = Conv2D(
        geometry.out_channels,
        geometry.kernel_size,
        pad_mode="valid",
        stride=geometry.kernel_size,
        group=geometry.groups,
    )
    return sample, product


def run(
    prepared: tuple[Primitive, Primitive],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    sample, product = prepared
    output = product(sample(single(input), packed(offset, mask)), single(weight))
    if bias is not None:
        output = BiasAdd()(output, single(bias))
    return ops.cast(output, input.dtype)


def packed(offset: Tensor, mask: Tensor | None) -> Tensor:
    """Offset and mask as the primitives take them, without infinities, of which they make NaNs."""
    offset = single(offset)
    # Not clamp, which loses NaNs, and not masked_fill, which vmap cannot take in MindSpore 2.7.
    near = ops.select(ops.abs(offset) > _FAR, ops.full_like(offset, _FAR), offset)
    return pack(near, None if mask is None else single(mask))


def single(tensor: Tensor) -> Tensor:
    return ops.cast(tensor, mstype.float32)
