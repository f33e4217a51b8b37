# SPDX-License-Identifier: Apache-2.0
"""The geometry of one deformable convolution: every argument is checked here, before any kernel.

What is not known while a graph is compiled (a dimension or the rank of a dynamic shape) is None
here; ``aot_kernels/common/geometry.cc`` checks it, in the same words, once it is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import NamedTuple, Optional

from mindspore import dtype as mstype

from ms_deform.hints import ORDER

Dimension = Optional[int]
Shape = tuple[Dimension, ...]
Size = tuple[Dimension, Dimension]  # height, width

_MOST_PIXELS = 2**31 - 1

_SPLIT = (
    "it looks like offsets and masks in one tensor: split that of mmcv's conv_offset by "
    "`o1, o2, mask = ops.chunk(offset, 3, axis=1)`, `offset = ops.cat((o1, o2), axis=1)`, "
    "`mask = ops.sigmoid(mask)`, that of ops.deformable_conv2d by "
    "`offset, mask = ms_deform.unpack_offset(offset)`"
)

SUPPORTED_DTYPES = (mstype.float16, mstype.bfloat16, mstype.float32, mstype.float64)


class TensorInfo(NamedTuple):
    """What is known of a tensor before it has values."""

    shape: Shape | None  # None: unknown rank
    dtype: mstype.Type


class Tensors(NamedTuple):
    """The tensors of a call; None: not given."""

    input: TensorInfo
    offset: TensorInfo
    mask: TensorInfo | None
    weight: TensorInfo
    bias: TensorInfo | None


class Attributes(NamedTuple):
    """What a call has beside its sizes; the primitives carry it."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    use_mask: bool
    use_bias: bool


class Geometry(NamedTuple):
    """All that follows from the arguments of a call, worked out here and nowhere else."""

    attributes: Attributes
    kernel_size: Size
    in_channels: Dimension
    out_channels: Dimension
    groups: Dimension
    offset_groups: Dimension
    batch: Dimension
    in_size: Size
    out_size: Size

    @property
    def any_size(self) -> Geometry:
        """The same for all batches and images: what primitives are kept by."""
        return self._replace(batch=None, in_size=(None, None), out_size=(None, None))


@contextmanager
def errors_of(caller: str) -> Iterator[None]:
    """Puts before an error's text what the user called."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{caller}: {error}").with_traceback(error.__traceback__) from None


def check_geometry(
    input: TensorInfo,
    offset: TensorInfo,
    mask: TensorInfo | None,
    weight: TensorInfo,
    bias: TensorInfo | None,
    constants: tuple[object, object, object],
) -> Geometry:
    """Checks all that is known of a call; `constants` are its stride, padding and dilation.

    Raises:
        TypeError: If a tensor has an unsupported or another dtype than the rest, or if `stride`,
            `padding` or `dilation` is not made of constant ints.
        ValueError: If a shape or a value does not fit the others.
    """
    tensors = Tensors(input, offset, mask, weight, bias)
    _check_order(tensors)
    stride, padding, dilation = constants
    attributes = Attributes(
        stride=constant_ints("stride", stride, 1, (2,)),
        padding=four_sides(constant_ints("padding", padding, 0, (2, 4))),
        dilation=constant_ints("dilation", dilation, 1, (2,)),
        use_mask=mask is not None,
        use_bias=bias is not None,
    )
    _check_dtypes(tensors)
    try:
        return _check_shapes(tensors, attributes)
    except ValueError as error:
        hint = _hint(tensors, attributes)
        raise ValueError(f"{error}{hint}").with_traceback(error.__traceback__) from None


def constant_ints(
    name: str, value: object, least: int, lengths: tuple[int, ...], single: bool = True
) -> tuple[int, ...]:
    """`value` as a tuple of one of these lengths; if `single`, an int stands for two of them."""
    expected = ("an int or " if single else "") + " or ".join(map(str, lengths)) + " ints"
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    _check_ints(name, value, values, expected)
    if single and not isinstance(value, (tuple, list)):
        values *= 2
    if len(values) not in lengths:
        error = ValueError if isinstance(value, (tuple, list)) else TypeError
        raise error(f"'{name}' must be {expected}, got {value}")
    _check_least(name, value, values, least)
    return tuple(map(int, values))


def constant_int(name: str, value: object, least: int) -> int:
    _check_ints(name, value, (value,), "an int")
    _check_least(name, value, (value,), least)
    return int(value)


def _check_ints(name: str, value: object, values: tuple[object, ...], expected: str) -> None:
    for item in values:
        if not isinstance(item, Integral) or isinstance(item, bool):
            verb = "is" if expected == "an int" else "are"
            raise TypeError(
                f"'{name}' must be {expected} that {verb} known when the graph is compiled, got "
                f"{_describe_value(value)}; a Tensor or a variable cannot be used"
            )


def _check_least(name: str, value: object, values: tuple[int, ...], least: int) -> None:
    if min(values) < least:
        raise ValueError(f"'{name}' must be at least {least}, got {value}")


def four_sides(padding: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right)"""
    if len(padding) == 2:
        return (padding[0], padding[0], padding[1], padding[1])
    return padding


def _describe_value(value: object) -> str:
    if value is None:
        return "None or a variable"
    return f"{value!r} of type {type(value).__name__}"


def _check_order(tensors: Tensors) -> None:
    """mmcv has mask and weight where weight and bias belong here."""
    weight, bias = tensors.weight.shape, tensors.bias and tensors.bias.shape
    if not (_is_image(weight) and _is_image(bias)):
        return
    mask_like = (weight[0], 2 * weight[1], *weight[2:])
    taps = bias[2] * bias[3]
    if mask_like == tensors.offset.shape and taps > 0 and weight[1] % taps == 0:
        raise ValueError(
            f"'bias' must be a 1-D tensor [C_out], got shape {bias}; it looks like mmcv's order of "
            f"arguments, here it is {ORDER}"
        )


def _is_image(shape: Shape | None) -> bool:
    """Whether it is known, and has four dimensions."""
    return shape is not None and len(shape) == 4 and None not in shape


def _check_dtypes(tensors: Tensors) -> None:
    dtypes = {name: info.dtype for name, info in tensors._asdict().items() if info is not None}
    listed = ", ".join(f"{name}: {dtype}" for name, dtype in dtypes.items())
    if len(set(dtypes.values())) > 1:
        raise TypeError(
            f"all tensors must have the same dtype, got {listed}; cast them to one of them"
        )
    if dtypes["input"] not in SUPPORTED_DTYPES:
        supported = ", ".join(str(dtype) for dtype in SUPPORTED_DTYPES)
        raise TypeError(f"dtype must be one of {supported}, got {listed}")


def _check_shapes(tensors: Tensors, attributes: Attributes) -> Geometry:
    input, offset, mask, weight, bias = tensors
    batch, in_channels, *in_size = _dimensions("input", input, 4, "[N, C_in, H, W]")
    offset_shape = _dimensions(
        "offset", offset, 4, "[N, 2 * offset_groups * kh * kw, H_out, W_out]"
    )
    weight_shape = _dimensions("weight", weight, 4, "[C_out, C_in / groups, kh, kw]")
    out_channels, _, *kernel_size = weight_shape
    groups = _check_groups(in_channels, weight_shape)
    offset_groups = _check_offset_groups(in_channels, offset_shape[1], *kernel_size)
    top, bottom, left, right = attributes.padding
    out_size = [
        _out_extent(axis, size, kernel, stride, padding, dilation)
        for axis, size, kernel, stride, padding, dilation in zip(
            ("height", "width"),
            in_size,
            kernel_size,
            attributes.stride,
            (top + bottom, left + right),
            attributes.dilation,
        )
    ]
    _check_pixels(in_size, attributes.padding)
    _check_sampled("offset", offset_shape, batch, out_size)
    batch = _first_known(batch, offset_shape[0])
    out_size = [*map(_first_known, out_size, offset_shape[2:])]
    if mask is not None:
        mask_shape = _dimensions("mask", mask, 4, "[N, offset_groups * kh * kw, H_out, W_out]")
        _check_mask_channels(mask_shape[1], offset_groups, *kernel_size)
        _check_sampled("mask", mask_shape, batch, out_size)
    if bias is not None:
        _check_bias(_dimensions("bias", bias, 1, "[C_out]")[0], out_channels)
    return Geometry(
        attributes=attributes,
        kernel_size=tuple(kernel_size),
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
        offset_groups=offset_groups,
        batch=batch,
        in_size=tuple(in_size),
        out_size=tuple(out_size),
    )


def _first_known(first: Dimension, second: Dimension) -> Dimension:
    return second if first is None else first


def _dimensions(name: str, tensor: TensorInfo, rank: int, layout: str) -> Shape:
    if tensor.shape is None:
        return (None,) * rank
    if len(tensor.shape) != rank:
        raise ValueError(f"'{name}' must be a {rank}-D tensor {layout}, got shape {tensor.shape}")
    return tensor.shape


def _check_groups(in_channels: Dimension, weight: Shape) -> Dimension:
    out_channels, group_channels, kernel_height, kernel_width = weight
    if 0 in (group_channels, kernel_height, kernel_width):
        raise ValueError(
            "'weight' must have at least one input channel and a kernel of at "
            f"least 1x1, got shape {weight}"
        )
    if in_channels is None or group_channels is None:
        return None
    if in_channels == 0 or in_channels % group_channels != 0:
        raise ValueError(
            "input.shape[1] must be a positive multiple of weight.shape[1] = "
            f"C_in / groups, got {in_channels} and {group_channels}"
        )
    groups = in_channels // group_channels
    if out_channels is not None and out_channels % groups != 0:
        raise ValueError(
            "weight.shape[0] must be a multiple of groups = input.shape[1] / "
            f"weight.shape[1] = {groups}, got {out_channels}"
        )
    return groups


def _check_offset_groups(
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
            "the shape of the offset is not valid: offset.shape[1] must be a "
            f"positive multiple of 2 * kernel height * kernel width = {unit}, got {offset_channels}"
        )
    offset_groups = offset_channels // unit
    if in_channels is not None and in_channels % offset_groups != 0:
        raise ValueError(
            "input.shape[1] must be a multiple of the offset groups = "
            f"offset.shape[1] / {unit} = {offset_groups}, got {in_channels}"
        )
    return offset_groups


def _out_extent(
    axis: str, size: Dimension, kernel: Dimension, stride: int, padding: int, dilation: int
) -> Dimension:
    if size == 0:
        raise ValueError(f"input {axis} must be positive, got 0")
    if size is None or kernel is None:
        return None
    padded = size + padding
    window = dilation * (kernel - 1) + 1
    if padded < window:
        raise ValueError(
            f"the output would be empty: padded input {axis} {padded} is smaller "
            f"than the dilated kernel {axis} {window}"
        )
    return (padded - window) // stride + 1


def _check_pixels(in_size: Size, padding: tuple[int, ...]) -> None:
    """Kernels count the pixels of an image, with a border of their own, in 32 bits."""
    if None in in_size:
        return
    padded_height, padded_width = in_size[0] + sum(padding[:2]), in_size[1] + sum(padding[2:])
    if (padded_height + 3) * (padded_width + 1) > _MOST_PIXELS:
        raise ValueError(
            f"the padded input has {padded_height} x {padded_width} pixels, more "
            f"than the {_MOST_PIXELS} that are supported; cut it into parts"
        )


def _check_sampled(name: str, shape: Shape, batch: Dimension, out_size: Size) -> None:
    """The dimensions that offset and mask share with the input's batch and with the output."""
    if None not in (shape[0], batch) and shape[0] != batch:
        raise ValueError(
            f"{name}.shape[0] must be the batch size of the input = {batch}, got {shape[0]}"
        )
    if any(None not in pair and pair[0] != pair[1] for pair in zip(shape[2:], out_size)):
        raise ValueError(
            f"{name}.shape[2:] must be the output size "
            f"{_sizes(*out_size)}, got {_sizes(*shape[2:])}"
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
            "mask.shape[1] is not valid: it must be offset groups * kernel height "
            f"* kernel width = {expected}, got {mask_channels}"
        )


def _check_bias(length: Dimension, out_channels: Dimension) -> None:
    if None not in (length, out_channels) and length != out_channels:
        raise ValueError(f"bias.shape[0] must be weight.shape[0] = {out_channels}, got {length}")


# A hint must not lead astray: a mistake is named only where the call would be valid without it.


def _hint(tensors: Tensors, attributes: Attributes) -> str:
    """What to do about a refused call, or nothing."""
    for mended, mend in (*_split(tensors), *_channels_first(tensors)):
        try:
            _check_shapes(mended, attributes)
        except ValueError:
            continue
        return f"; {mend}"
    return ""


def _split(tensors: Tensors) -> Iterator[tuple[Tensors, str]]:
    """The call with the offsets alone, if its offset holds the masks too."""
    given = [info.shape for info in (tensors.offset, tensors.mask) if info is not None]
    if all(map(_is_image, given)) and given[0][1] % 3 == 0:
        batch, channels, *size = given[0]
        offset = tensors.offset._replace(shape=(batch, channels // 3 * 2, *size))
        yield tensors._replace(offset=offset), _SPLIT


def _channels_first(tensors: Tensors) -> Iterator[tuple[Tensors, str]]:
    """The call with its input, or all images, transposed, if they are [N, H, W, C]."""
    images = {name: info for name, info in zip(("input", "offset", "mask"), tensors) if info}
    if not all(_is_image(info.shape) for info in images.values()):
        return
    for names in (["input"], list(images)):
        transposed = {name: _transposed(images[name]) for name in names}
        mend = ", ".join(f"{name}.transpose(0, 3, 1, 2)" for name in names)
        yield tensors._replace(**transposed), f"it looks like [N, H, W, C]: pass {mend}"


def _transposed(info: TensorInfo) -> TensorInfo:
    batch, height, width, channels = info.shape
    return info._replace(shape=(batch, channels, height, width))
