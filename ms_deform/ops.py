# SPDX-License-Identifier: Apache-2.0
"""The functional interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from mindspore import Tensor, get_current_device, nn
from mindspore import dtype as mstype
from mindspore._c_expression.amp import get_curr_amp_strategy
from mindspore.common.dtype import Type
from mindspore.ops import constexpr, stop_gradient

from ms_deform.backends import choose_backend
from ms_deform.backends.aot import placeholder
from ms_deform.backends.interface import Call
from ms_deform.determinism import is_deterministic
from ms_deform.geometry import TensorInfo, check_geometry, errors_of
from ms_deform.hints import must_be_tensor, name_layer, order_of_arguments


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = (1, 1),
    padding: int | tuple[int, int] | tuple[int, int, int, int] = (0, 0),
    dilation: int | tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    r"""
    Deformable convolution v2, or v1 if `mask` is None, with the arguments, layouts and results of
    ``torchvision.ops.deform_conv2d``.

    A convolution whose taps are moved: tap :math:`k` of output pixel :math:`p` reads the input at
    the regular position :math:`p_k` plus a learned offset :math:`\Delta p_k`, by bilinear
    interpolation, times a learned mask :math:`\Delta m_k`:

    .. math::
        y(p) = b + \sum_{k=1}^{K} w_k \cdot x(p + p_k + \Delta p_k) \cdot \Delta m_k

    Outside the input :math:`x` is 0. The number of groups follows from the shapes:
    `groups` = :math:`C_{in}` / `weight.shape[1]` and
    `offset_groups` = `offset.shape[1]` / :math:`(2 \cdot kh \cdot kw)`.

    See `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ and `Deformable
    ConvNets v2: More Deformable, Better Results <https://arxiv.org/abs/1811.11168>`_.

    Note:
        - All tensors have the same dtype. float16 and bfloat16 are computed, coordinates included,
          in float32 and rounded once at the end; float64 is computed in float64.
        - A NaN offset makes its output pixel NaN. An infinite or huge one samples outside: 0.
        - Gradients are defined for all tensors, and on CPU and GPU their gradients too, by the
          backend "aot"; in graph mode MindSpore differentiates twice for static shapes only.

    Args:
        input (Tensor): The input of shape :math:`(N, C_{in}, H, W)`, of dtype float16, bfloat16,
            float32 or float64.
        offset (Tensor): Offsets in input pixels, of shape
            :math:`(N, 2 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`. Channel
            :math:`2 (g \cdot kh \cdot kw + i \cdot kw + j)` is the offset along y of tap
            :math:`(i, j)` in offset group :math:`g`, the next channel that along x.
        weight (Tensor): The kernel of shape :math:`(C_{out}, C_{in} / groups, kh, kw)`.
        bias (Tensor, optional): Added to each output channel, of shape :math:`(C_{out},)`.
            Default: ``None`` .
        stride (Union[int, tuple[int]], optional): Step of the kernel along height and width.
            Default: ``(1, 1)`` .
        padding (Union[int, tuple[int]], optional): Zeros around the input: along height and width,
            or (top, bottom, left, right). Default: ``(0, 0)`` .
        dilation (Union[int, tuple[int]], optional): Distance of the taps along height and width.
            Default: ``(1, 1)`` .
        mask (Tensor, optional): A factor for each sample, of shape
            :math:`(N, offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`, not limited to [0, 1].
            None is the same as ones. Default: ``None`` .

    Returns:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of `input`, where
        :math:`H_{out} = \lfloor (H + top + bottom - dilation_0 (kh - 1) - 1) / stride_0 \rfloor
        + 1`, and :math:`W_{out}` likewise.

    Raises:
        TypeError: If an argument is not a Tensor where one is expected.
        TypeError: If the tensors differ in dtype, or the dtype is not supported.
        TypeError: If `stride`, `padding` or `dilation` is not made of ints that are constant when
            the graph is compiled.
        ValueError: If a shape does not fit the others, the output would be empty, `stride` or
            `dilation` is less than 1, or `padding` is negative.
        RuntimeError: If there is no backend for the device target, or its library is missing,
            damaged, or built for another version.
        NotImplementedError: If a second-order gradient is asked of the backend "aclnn" or "aicpu",
            or the backend that :class:`ms_deform.set_backend` chose has a limit that the call does
            not keep.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> import numpy as np
        >>> from mindspore import Tensor
        >>> from ms_deform import deform_conv2d
        >>> input = Tensor(np.ones((1, 1, 3, 3)), dtype=mindspore.float32)
        >>> weight = Tensor(np.ones((1, 1, 3, 3)), dtype=mindspore.float32)
        >>> offset = Tensor(np.zeros((1, 18, 3, 3)), dtype=mindspore.float32)
        >>> print(deform_conv2d(input, offset, weight, padding=1))
        [[[[4. 6. 4.]
           [6. 9. 6.]
           [4. 6. 4.]]]]
        >>> mask = Tensor(np.full((1, 9, 3, 3), 0.5), dtype=mindspore.float32)
        >>> print(deform_conv2d(input, offset, weight, padding=1, mask=mask))
        [[[[2.  3.  2. ]
           [3.  4.5 3. ]
           [2.  3.  2. ]]]]
    """
    return convolve(input, offset, mask, weight, bias, stride, padding, dilation)


def convolve(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] | tuple[int, int, int, int],
    dilation: int | tuple[int, int],
    caller: str = "deform_conv2d",
    backend: str | None = None,
    training: bool = True,
    layer: Callable[[], nn.Cell] | None = None,
) -> Tensor:
    """`deform_conv2d`, for a caller whose name errors are to tell.

    backend: the name of one; None: the one that `set_backend` chose.
    training: whether gradients may be asked for. They are right if it is False too, but slower.
    layer: a weak reference to the layer that calls, whose place in its network errors tell.
    """
    run, prepared = _prepare(
        (
            _describe(input),
            _describe(offset),
            _describe(mask),
            _describe(weight),
            _describe(bias),
        ),
        (stride, padding, dilation),
        caller,
        backend,
        training,
        layer,
    )
    return run(prepared, input, offset, mask, weight, bias)


def _describe(value: object) -> object:
    """What the checks need to know of an argument; in graph mode a constant."""
    return (value.shape, value.dtype) if isinstance(value, Tensor) else value


# With this decorator a function runs in Python, in graph mode while the graph is compiled.
@constexpr
def _prepare(
    described: tuple[object, ...],
    constants: tuple[object, ...],
    caller: str,
    backend: str | None,
    training: bool,
    layer: Callable[[], nn.Cell] | None,
) -> tuple[Callable[..., Tensor], tuple[object, ...]]:
    """A backend's `run` for the checked call, and what it needs beside the tensors."""
    try:
        tensors = _described_tensors(described, caller)
        constants = tuple([tuple(item) if isinstance(item, list) else item for item in constants])
        call = _checked_call(
            tensors,
            _differ_in_dtype(tensors) and _mixed_precision_casts(),
            constants,
            repr(constants),
            get_current_device().device_target,
            is_deterministic(),
            caller,
            training,
        )
        chosen = choose_backend(call, backend)
        return chosen.run, chosen.prepare(call)
    except Exception as error:
        name_layer(error, caller, layer)
        raise


# Bounded: data of ever new sizes must not fill the memory. The constants' text is a part of the key
# because 1, 1.0 and True are equal, and only one of them is a stride.
@lru_cache(maxsize=4096)
def _checked_call(
    tensors: tuple[tuple[object, Type] | None, ...],
    casts: bool,
    constants: tuple[object, ...],
    constants_text: str,
    device_target: str,
    deterministic: bool,
    caller: str,
    training: bool,
) -> Call:
    infos = [tensor and TensorInfo(*tensor) for tensor in tensors]
    if casts:
        infos = [info and info._replace(dtype=mstype.float32) for info in infos]
    with errors_of(caller):
        geometry = check_geometry(*infos, constants)
    return Call(geometry, infos[0].dtype, device_target, deterministic, caller, training)


def _described_tensors(
    described: tuple[object, ...], caller: str
) -> tuple[tuple[object, Type] | None, ...]:
    for name, value in zip(("input", "offset", "mask", "weight", "bias"), described):
        absent = value is None and name in ("mask", "bias")
        if not absent and not (
            isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Type)
        ):
            order = order_of_arguments(caller, value) if name in ("bias", "mask") else ""
            raise TypeError(f"{caller}: {must_be_tensor(repr(name), value, name)}{order}")
    return described


def _differ_in_dtype(tensors: tuple[tuple[object, Type] | None, ...]) -> bool:
    dtype = tensors[0][1]
    for tensor in tensors:
        # Nearly always it is the same object; comparing two by value is slow.
        if tensor is not None and tensor[1] is not dtype and tensor[1] != dtype:
            return True
    return False


def _mixed_precision_casts() -> bool:
    """Whether MindSpore is going to cast the inputs of a primitive to one dtype by itself.

    In PyNative mode it does so behind Python's back inside a Cell with ``to_float`` (AMP O2, O3),
    where it casts the inputs of any primitive, and under AMP "auto". Graphs arrive here cast.
    """
    if get_curr_amp_strategy() is not None:
        return True
    float32, float16 = (
        stop_gradient(placeholder(dtype)).dtype for dtype in (mstype.float32, mstype.float16)
    )
    return float32 == float16
