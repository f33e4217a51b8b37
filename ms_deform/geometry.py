# SPDX-License-Identifier: Apache-2.0
"""The geometry of one deformable convolution: every argument is checked here, before any kernel.

What is not known while a graph is compiled (a dimension or the rank of a dynamic shape) is None
here; ``aot_kernels/common/geometry.cc`` checks it, in the same words, once it is known.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple, Optional

from mindspore import dtype as mstype

Dimension = Optional[int]
Shape = tuple[Dimension, ...]

_MOST_PIXELS = 2**31 - 1

SUPPORTED_DTYPES = (mstype.float16, mstype.bfloat16, mstype.float32, mstype.float64)


class TensorInfo(NamedTuple):
    """What is known of a tensor before it has values."""

    shape: Shape | None  # None: unknown rank
    dtype: mstype.Type


class Geometry(NamedTuple):
    """The constants of a call; the primitives carry them as attributes."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    use_mask: bool
    use_bias: bool


def check_geometry(
    input: TensorInfo,
    offset: TensorInfo,
    weight: TensorInfo,
    bias: TensorInfo | None,
    mask: TensorInfo | None,
    stride: object,
    padding: object,
    dilation: object,
) -> Geometry:
    """Checks all that is known of a call and returns its constants.

    Raises:
        TypeError: If a tensor has an unsupported or another dtype than the rest, or if `stride`,
            `padding` or `dilation` is not made of constant ints.
        ValueError: If a shape or a value does not fit the others.
    """
    geometry = Geometry(
        stride=constant_ints("stride", stride, 1, (2,)),
        padding=_four_sides(constant_ints("padding", padding, 0, (2, 4))),
        dilation=constant_ints("dilation", dilation, 1, (2,)),
        use_mask=mask is not None,
        use_bias=bias is not None,
    )
    _check_dtypes(input=input, offset=offset, weight=weight, bias=bias, mask=mask)
    _check_shapes(input, offset, weight, bias, mask, geometry)
    return geometry


def constant_ints(
    name: str, value: object, least: int, lengths: tuple[int, ...]
) -> tuple[int, ...]:
    """`value` as a tuple of ints, a single int standing for the same one on both axes."""
    expected = "an int or " + " or ".join(f"{length}" for length in lengths) + " ints"
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    for item in values:
        if not isinstance(item, Integral) or isinstance(item, bool):
            raise TypeError(
                f"deform_conv2d: '{name}' must be {expected} that are known when the graph is "
                f"compiled, got {_describe_value(value)}; a Tensor or a variable cannot be used"
            )
    if len(values) not in lengths:
        raise ValueError(f"deform_conv2d: '{name}' must be {expected}, got {value}")
    if min(values) < least:
        raise ValueError(f"deform_conv2d: '{name}' must be at least {least}, got {value}")
    return tuple(int(item) for item in values)


def _four_sides(padding: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(padding) == 2:
        return (padding[0], padding[0], padding[1], padding[1])
    return padding


def _describe_value(value: object) -> str:
    if value is None:
        return "None or a variable"
    return f"{value!r} of type {type(value).__name__}"


def _check_dtypes(**tensors: TensorInfo | None) -> None:
    dtypes = {name: tensor.dtype for name, tensor in tensors.items() if tensor is not None}
    listed = ", ".join(f"{name}: {dtype}" for name, dtype in dtypes.items())
    if len(set(dtypes.values())) > 1:
        raise TypeError(
            f"deform_conv2d: all tensors must have the same dtype, got {listed}; "
            "cast them to one of them"
        )
    if dtypes["input"] not in SUPPORTED_DTYPES:
        supported = ", ".join(str(dtype) for dtype in SUPPORTED_DTYPES)
        raise TypeError(f"deform_conv2d: dtype must be one of {supported}, got {listed}")


def _check_shapes(
    input: TensorInfo,
    offset: TensorInfo,
    weight: TensorInfo,
    bias: TensorInfo | None,
    mask: TensorInfo | None,
    geometry: Geometry,
) -> None:
    batch, in_channels, height, width = _dimensions("input", input, 4, "[N, C_in, H, W]")
    offset_shape = _dimensions(
        "offset", offset, 4, "[N, 2 * offset_groups * kh * kw, H_out, W_out]"
    )
    weight_shape = _dimensions("weight", weight, 4, "[C_out, C_in / groups, kh, kw]")
    _check_weight(in_channels, weight_shape)
    kernel_height, kernel_width = weight_shape[2:]
    offset_groups = _offset_groups(in_channels, offset_shape[1], kernel_height, kernel_width)
    top, bottom, left, right = geometry.padding
    out_height = _out_extent(
        "height", height, kernel_height, geometry.stride[0], top + bottom, geometry.dilation[0]
    )
    out_width = _out_extent(
        "width", width, kernel_width, geometry.stride[1], left + right, geometry.dilation[1]
    )
    _check_pixels(height, width, geometry.padding)
    _check_sampled("offset", offset_shape, batch, out_height, out_width)
    if mask is not None:
        mask_shape = _dimensions("mask", mask, 4, "[N, offset_groups * kh * kw, H_out, W_out]")
        _check_mask_channels(mask_shape[1], offset_groups, kernel_height, kernel_width)
        _check_sampled(
            "mask",
            mask_shape,
            _first_known(batch, offset_shape[0]),
            _first_known(out_height, offset_shape[2]),
            _first_known(out_width, offset_shape[3]),
        )
    if bias is not None:
        _check_bias(_dimensions("bias", bias, 1, "[C_out]")[0], weight_shape[0])


def _first_known(first: Dimension, second: Dimension) -> Dimension:
    return second if first is None else first


def _dimensions(name: str, tensor: TensorInfo, rank: int, layout: str) -> Shape:
    if tensor.shape is None:
        return (None,) * rank
    if len(tensor.shape) != rank:
        raise ValueError(
            f"deform_conv2d: '{name}' must be a {rank}-D tensor {layout}, got shape {tensor.shape}"
        )
    return tensor.shape


def _check_weight(in_channels: Dimension, weight: Shape) -> None:
    out_channels, group_channels, kernel_height, kernel_width = weight
    if 0 in (group_channels, kernel_height, kernel_width):
        raise ValueError(
            "deform_conv2d: 'weight' must have at least one input channel and a kernel of at "
            f"least 1x1, got shape {weight}"
        )
    if in_channels is None or group_channels is None:
        return
    if in_channels == 0 or in_channels % group_channels != 0:
        raise ValueError(
            "deform_conv2d: input.shape[1] must be a positive multiple of weight.shape[1] = "
            f"C_in / groups, got {in_channels} and {group_channels}"
        )
    groups = in_channels // group_channels
    if out_channels is not None and out_channels % groups != 0:
        raise ValueError(
            "deform_conv2d: weight.shape[0] must be a multiple of groups = input.shape[1] / "
            f"weight.shape[1] = {groups}, got {out_channels}"
        )


def _offset_groups(
    in_channels: Dimension,
    offset_channels: Dimension,
    kernel_height: Dimension,
    kernel_width: Dimension,
) -> Dimension:
    if offset_channels is None or kernel_height is None or kernel_width is None:
        return None
    unit = 2 * kernel_height * kernel_width
    if offset_channels == 0 or offset_channels % unit != 0:
        raise ValueError(
            "deform_conv2d: the shape of the offset is not valid: offset.shape[1] must be a "
            f"positive multiple of 2 * kernel height * kernel width = {unit}, got {offset_channels}"
        )
    offset_groups = offset_channels // unit
    if in_channels is not None and in_channels % offset_groups != 0:
        raise ValueError(
            "deform_conv2d: input.shape[1] must be a multiple of the offset groups = "
            f"offset.shape[1] / {unit} = {offset_groups}, got {in_channels}"
        )
    return offset_groups


def _out_extent(
    axis: str, size: Dimension, kernel: Dimension, stride: int, padding: int, dilation: int
) -> Dimension:
    if size == 0:
        raise ValueError(f"deform_conv2d: input {axis} must be positive, got 0")
    if size is None or kernel is None:
        return None
    padded = size + padding
    window = dilation * (kernel - 1) + 1
    if padded < window:
        raise ValueError(
            f"deform_conv2d: the output would be empty: padded input {axis} {padded} is smaller "
            f"than the dilated kernel {axis} {window}"
        )
    return (padded - window) // stride + 1


def _check_pixels(height: Dimension, width: Dimension, padding: tuple[int, ...]) -> None:
    """Kernels count the pixels of an image, with a border of their own, in 32 bits."""
    if height is None or width is None:
        return
    padded_height, padded_width = height + sum(padding[:2]), width + sum(padding[2:])
    if (padded_height + 3) * (padded_width + 1) > _MOST_PIXELS:
        raise ValueError(
            f"deform_conv2d: the padded input has {padded_height} x {padded_width} pixels, more "
            f"than the {_MOST_PIXELS} that are supported; cut it into parts"
        )


def _check_sampled(
    name: str, shape: Shape, batch: Dimension, out_height: Dimension, out_width: Dimension
) -> None:
    """The dimensions that offset and mask share with the input's batch and with the output."""
    if None not in (shape[0], batch) and shape[0] != batch:
        raise ValueError(
            f"deform_conv2d: {name}.shape[0] must be the batch size of the input = {batch}, "
            f"got {shape[0]}"
        )
    sizes = ((shape[2], out_height), (shape[3], out_width))
    if any(None not in pair and pair[0] != pair[1] for pair in sizes):
        raise ValueError(
            f"deform_conv2d: {name}.shape[2:] must be the output size "
            f"{_sizes(out_height, out_width)}, got {_sizes(shape[2], shape[3])}"
        )


def _sizes(*dimensions: Dimension) -> str:
    """A size as geometry.cc writes it, where an unknown dimension is -1."""
    return str(tuple(-1 if dimension is None else dimension for dimension in dimensions))


def _check_mask_channels(
    mask_channels: Dimension,
    offset_groups: Dimension,
    kernel_height: Dimension,
    kernel_width: Dimension,
) -> None:
    if mask_channels is None or offset_groups is None:
        return
    expected = offset_groups * kernel_height * kernel_width
    if mask_channels != expected:
        raise ValueError(
            "deform_conv2d: mask.shape[1] is not valid: it must be offset groups * kernel height "
            f"* kernel width = {expected}, got {mask_channels}"
        )


def _check_bias(length: Dimension, out_channels: Dimension) -> None:
    if None not in (length, out_channels) and length != out_channels:
        raise ValueError(
            f"deform_conv2d: bias.shape[0] must be weight.shape[0] = {out_channels}, got {length}"
        )
