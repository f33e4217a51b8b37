# SPDX-License-Identifier: Apache-2.0
"""``mindspore.ops.deformable_conv2d`` on this project's kernels, and its packed layout.

MindSpore's builtin takes offsets and mask in one tensor: all x, then all y, then all masks, each
[offset group, tap]. torchvision's offset has y and x of each tap side by side.
"""

from __future__ import annotations

import math

from mindspore import Tensor
from mindspore.ops import constexpr

from ms_deform.geometry import Dimension, constant_int, constant_ints, errors_of
from ms_deform.layout import pack, unpack
from ms_deform.ops import convolve


def deformable_conv2d(
    x: Tensor,
    weight: Tensor,
    offsets: Tensor,
    kernel_size: tuple[int, int],
    strides: tuple[int, int, int, int],
    padding: tuple[int, int, int, int],
    bias: Tensor | None = None,
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1),
    groups: int = 1,
    deformable_groups: int = 1,
    modulated: bool = True,
) -> Tensor:
    r"""
    Deformable convolution with the arguments and the packed layout of
    ``mindspore.ops.deformable_conv2d``, for code that calls that function.

    It is :func:`ms_deform.deform_conv2d`, which says the formula, on the unpacked offsets and mask.

    Args:
        x (Tensor): The input of shape :math:`(N, C_{in}, H, W)`, of dtype float16, bfloat16,
            float32 or float64.
        weight (Tensor): The kernel of shape :math:`(C_{out}, C_{in} / groups, kh, kw)`.
        offsets (Tensor): Offsets along x, offsets along y and masks, in this order along the
            channels, each of :math:`deformable\_groups \cdot kh \cdot kw` channels: shape
            :math:`(N, 3 \cdot deformable\_groups \cdot kh \cdot kw, H_{out}, W_{out})`. The masks
            can be left out if `modulated` is False.
        kernel_size (tuple[int]): Height and width of the kernel, as in `weight`.
        strides (tuple[int]): Step of the kernel for each axis of `x`: (1, 1, height, width).
        padding (tuple[int]): Zeros around the input: (top, bottom, left, right).
        bias (Tensor, optional): Added to each output channel, of shape :math:`(C_{out},)`.
            Default: ``None`` .
        dilations (tuple[int], optional): Distance of the taps for each axis of `x`:
            (1, 1, height, width). Default: ``(1, 1, 1, 1)`` .
        groups (int, optional): Number of groups of channels that are convolved apart.
            Default: ``1`` .
        deformable_groups (int, optional): Number of groups of channels with offsets of their own.
            Default: ``1`` .
        modulated (bool, optional): Whether samples are multiplied by the masks; masks that are
            there are not read otherwise. MindSpore's builtin allows True only. Default: ``True`` .

    Returns:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of `x`.

    Raises:
        TypeError: If `kernel_size`, `strides`, `padding`, `dilations`, `groups` or
            `deformable_groups` is not made of ints that are constant when the graph is compiled,
            or `modulated` is not a bool.
        ValueError: If one of them has another length than said, `strides` or `dilations` does not
            begin with 1, 1, or `kernel_size`, `groups` or the channels of `offsets` do not fit the
            shapes of the other tensors.
        TypeError, ValueError, RuntimeError, NotImplementedError: As
            :func:`ms_deform.deform_conv2d`.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> import numpy as np
        >>> from mindspore import Tensor
        >>> from ms_deform import deformable_conv2d
        >>> x = Tensor(np.ones((4, 3, 10, 10)), mindspore.float32)
        >>> kh, kw = 3, 3
        >>> weight = Tensor(np.ones((5, 3, kh, kw)), mindspore.float32)
        >>> offsets = Tensor(np.ones((4, 3 * kh * kw, 8, 8)), mindspore.float32)
        >>> output = deformable_conv2d(x, weight, offsets, (kh, kw), (1, 1, 1, 1), (0, 0, 0, 0))
        >>> print(output.shape)
        (4, 5, 8, 8)
    """
    samples = _samples(
        x.shape,
        weight.shape,
        offsets.shape,
        kernel_size,
        strides,
        padding,
        dilations,
        groups,
        deformable_groups,
        modulated,
    )
    offset, mask = unpack(offsets, samples)
    return convolve(
        x,
        offset,
        mask if modulated else None,
        weight,
        bias,
        strides[2:],
        padding,
        dilations[2:],
        "deformable_conv2d",
    )


def pack_offset(offset: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""
    The packed offsets that :func:`ms_deform.deformable_conv2d` and
    ``mindspore.ops.deformable_conv2d`` take, from the two tensors of
    :func:`ms_deform.deform_conv2d`.

    Args:
        offset (Tensor): Offsets, y before x for each tap, of shape
            :math:`(N, 2 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`.
        mask (Tensor, optional): The masks, of shape
            :math:`(N, offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`. None is the same as
            ones, which are then packed. Default: ``None`` .

    Returns:
        Tensor, of shape :math:`(N, 3 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`:
        all x, then all y, then all masks.

    Raises:
        ValueError: If `offset` or `mask` is not a 4-D tensor, the channels of `offset` are odd in
            number, or `mask` has not half as many.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import numpy as np
        >>> from mindspore import Tensor
        >>> from ms_deform import pack_offset
        >>> offset = Tensor(np.array([10.0, 1.0, 20.0, 2.0]).reshape(1, 4, 1, 1))  # y, x, y, x
        >>> mask = Tensor(np.array([0.5, 0.25]).reshape(1, 2, 1, 1))
        >>> print(pack_offset(offset, mask).flatten())
        [ 1.    2.   10.   20.    0.5   0.25]
    """
    _check_pack(offset.shape, None if mask is None else mask.shape)
    return pack(offset, mask)


def unpack_offset(packed: Tensor) -> tuple[Tensor, Tensor]:
    r"""
    Offset and mask as :func:`ms_deform.deform_conv2d` takes them, from the packed offsets of
    ``mindspore.ops.deformable_conv2d``.

    Args:
        packed (Tensor): All x, then all y, then all masks, of shape
            :math:`(N, 3 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`.

    Returns:
        Tuple of 2 Tensors: the offset, y before x for each tap, of shape
        :math:`(N, 2 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`, and the mask of
        shape :math:`(N, offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`.

    Raises:
        ValueError: If `packed` is not a 4-D tensor with a multiple of 3 channels.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import numpy as np
        >>> from mindspore import Tensor
        >>> from ms_deform import unpack_offset
        >>> packed = Tensor(np.array([1.0, 2.0, 10.0, 20.0, 0.5, 0.25]).reshape(1, 6, 1, 1))
        >>> offset, mask = unpack_offset(packed)
        >>> print(offset.flatten())
        [10.  1. 20.  2.]
        >>> print(mask.flatten())
        [0.5  0.25]
    """
    _check_unpack(packed.shape)
    return unpack(packed, packed.shape[1] // 3)


# With this decorator a function runs in Python, in graph mode while the graph is compiled.
@constexpr
def _samples(
    x_shape: tuple[Dimension, ...],
    weight_shape: tuple[Dimension, ...],
    offsets_shape: tuple[Dimension, ...],
    kernel_size: object,
    strides: object,
    padding: object,
    dilations: object,
    groups: object,
    deformable_groups: object,
    modulated: object,
) -> int:
    """The number of samples of an output pixel, the channels of each part of the offsets."""
    with errors_of("deformable_conv2d"):
        kernel_size = constant_ints("kernel_size", kernel_size, 1, (2,), single=False)
        constant_ints("padding", padding, 0, (4,), single=False)
        for name, value in (("strides", strides), ("dilations", dilations)):
            if constant_ints(name, value, 1, (4,), single=False)[:2] != (1, 1):
                raise ValueError(f"'{name}' must be (1, 1, height, width), got {value}")
        groups = constant_int("groups", groups, 1)
        samples = constant_int("deformable_groups", deformable_groups, 1) * math.prod(kernel_size)
    if not isinstance(modulated, bool):
        raise TypeError(f"deformable_conv2d: 'modulated' must be a bool, got {modulated!r}")
    _check_groups(x_shape, weight_shape, groups)
    _check_equal("kernel_size", kernel_size, "weight.shape[2:]", weight_shape[2:])
    allowed = [3 * samples] if modulated else [2 * samples, 3 * samples]
    if len(offsets_shape) != 4 or offsets_shape[1] not in (None, *allowed):
        raise ValueError(
            "deformable_conv2d: 'offsets' must be a 4-D tensor [N, 3 * deformable_groups * kh * "
            f"kw, H_out, W_out], {' or '.join(map(str, allowed))} channels with modulated = "
            f"{modulated}, got shape {offsets_shape}"
        )
    return samples


def _check_groups(
    x_shape: tuple[Dimension, ...], weight_shape: tuple[Dimension, ...], groups: int
) -> None:
    if len(x_shape) != 4 or len(weight_shape) != 4:
        raise ValueError(
            "deformable_conv2d: 'x' and 'weight' must be 4-D tensors, got shapes "
            f"{x_shape} and {weight_shape}"
        )
    if None not in (x_shape[1], weight_shape[1]):
        _check_equal("groups * weight.shape[1]", groups * weight_shape[1], "x.shape[1]", x_shape[1])


def _check_equal(name: str, value: object, other_name: str, other: object) -> None:
    if value != other and other != (None, None):
        raise ValueError(f"deformable_conv2d: {name} must be {other_name} = {other}, got {value}")


@constexpr
def _check_pack(offset: tuple[Dimension, ...], mask: tuple[Dimension, ...] | None) -> None:
    if len(offset) != 4 or (offset[1] is not None and offset[1] % 2 != 0):
        raise ValueError(
            "pack_offset: 'offset' must be a 4-D tensor [N, 2 * offset_groups * kh * kw, H_out, "
            f"W_out], got shape {offset}"
        )
    if mask is not None and (
        len(mask) != 4 or (None not in (offset[1], mask[1]) and 2 * mask[1] != offset[1])
    ):
        raise ValueError(
            f"pack_offset: 'mask' must be a 4-D tensor with half the channels of offset, whose "
            f"shape is {offset}, got shape {mask}"
        )


@constexpr
def _check_unpack(packed: tuple[Dimension, ...]) -> None:
    if len(packed) != 4 or (packed[1] is not None and packed[1] % 3 != 0):
        raise ValueError(
            "unpack_offset: 'packed' must be a 4-D tensor [N, 3 * offset_groups * kh * kw, H_out, "
            f"W_out], got shape {packed}"
        )
