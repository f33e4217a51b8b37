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

from ms_deform.geometry import Geometry, TensorInfo
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


def check_limits(
    device_target: str, input: TensorInfo, offset: TensorInfo, weight: TensorInfo
) -> None:
    """NotImplementedError for what the primitives cannot do."""
    if input.dtype == mstype.float64:
        raise _refusal("dtype", "float64")
    for shape in (input.shape, offset.shape, (None, *weight.shape)):
        if shape is None or None in shape[1:]:
            raise _refusal("shape", f"shapes {input.shape}, {offset.shape} and {weight.shape}")
    if device_target == "Ascend" and max(weight.shape[2:]) > _MOST_STRIDE:
        raise _refusal("kernel", str(weight.shape[2:]))


def _refusal(limit: str, got: str) -> NotImplementedError:
    return NotImplementedError(
        f"deform_conv2d: the backend 'composition' takes {LIMITS[limit].allowed} "
        f"({LIMITS[limit].source}), got {got}; change that, or choose another backend with "
        "ms_deform.set_backend"
    )


@cache
def primitives(
    geometry: Geometry, in_channels: int, offset_channels: int, weight_shape: tuple[int, ...]
) -> tuple[Primitive, Primitive]:
    """The two primitives of a call."""
    out_channels, group_channels, *kernel = weight_shape
    kernel = tuple(kernel)
    sample = DeformableOffsets(
        strides=(1, 1, *geometry.stride),
        pads=geometry.padding,
        ksize=kernel,
        dilations=(1, 1, *geometry.dilation),
        deformable_groups=offset_channels // (2 * kernel[0] * kernel[1]),
    )
    product = Conv2D(
        out_channels, kernel, pad_mode="valid", stride=kernel, group=in_channels // group_channels
    )
    return sample, product


def convolve(
    sample: Primitive,
    product: Primitive,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
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
