# SPDX-License-Identifier: Apache-2.0
"""The backend "aclnn": CANN's ``aclnnDeformableConv2d`` through ``ops.Custom``.

It runs in graph mode, jit level O0 or O1: in PyNative mode ``ops.Custom`` takes tensors only, and
in O2 no aclnn function. Gradients, should a graph ask for them, are those of CANN's
``aclnnDeformableConv2dBackward`` where it is (Ascend 950), elsewhere those of the composition.

What is said of CANN here was read in its published source, hicann/ops-nn v9.1.0:
``conv/deformable_conv2d`` (``op_host/op_api/aclnn_deformable_conv2d.cpp``, ``op_kernel``),
``conv/convolution_backward/op_api`` (``aclnn_convolution_backward.h`` and ``.cpp``,
``deformable_conv2d_backward_checker.cpp``) and their ``docs``. Both functions are documented as
deterministic, so nothing is asked of them for `Call.deterministic`; yet the kernel behind the
gradient of x (``conv/deformable_offsets_grad/op_kernel/arch35``) sums by atomic additions.

950 takes tensors of format NCHW and a bias of format ND; A2 and A3 take that too. MindSpore's
``ConvertType`` (``op_api_convert.h`` in its wheel) makes every tensor of four dimensions NCHW and
those of one ND, whatever the registration says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import mindspore as ms
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops import CustomRegOp, DataType, Primitive

from ms_deform.backends import composition, second_order
from ms_deform.backends.interface import Call
from ms_deform.geometry import Geometry
from ms_deform.install.ai_core import CONVOLUTION, CONVOLUTION_GRAD
from ms_deform.install.cann import aclnn_backward_obstacle, aclnn_obstacle


class Function(NamedTuple):
    """The tensors of a function's GetWorkspaceSize, in its order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


# A bias is always given: ops.Custom takes no None.
FORWARD = Function(CONVOLUTION, ("x", "weight", "offset", "bias"), ("out", "deform_out"))
BACKWARD = Function(
    CONVOLUTION_GRAD,
    ("input", "grad_output", "offset_out", "weight", "offset"),
    ("grad_input", "grad_weight", "grad_offset", "grad_bias"),
)
# Between the inputs and the outputs of both.
_ATTRIBUTES = (
    ("kernel_size", "listInt"),
    ("stride", "listInt"),
    ("padding", "listInt"),
    ("dilation", "listInt"),
    ("groups", "int"),
    ("deformable_groups", "int"),
    ("modulated", "bool"),
)
_DTYPES = (DataType.F32_Default, DataType.F16_Default, DataType.BF16_Default)

# CheckAttrs and CheckShape of both functions.
_MOST_TAPS = 2048
_MOST_PRODUCTS = 65535
_MOST_PIXELS = 2**31 - 1

Shape = tuple[int, ...]
# Of x, weight, packed offset and bias, from x, grad_output, deform_out, weight and packed offset.
Gradients = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]

# Computes the calls that this backend does not take.
STAND_IN = "composition"


def trains() -> bool:
    """Whether CANN has the gradient on this device too."""
    return aclnn_backward_obstacle(composition.soc_version()) is None


def obstacle(call: Call) -> str | None:
    if ms.get_context("mode") != ms.GRAPH_MODE or ms.get_context("jit_level") == "O2":
        return "needs graph mode, jit level O0 or O1"
    return composition.obstacle(call) or _missing() or _limit(call.geometry)


def _missing() -> str | None:
    why_not = aclnn_obstacle(composition.soc_version())
    return why_not and f"cannot be used: {why_not}"


def _limit(geometry: Geometry) -> str | None:
    if geometry.batch is None:
        return "needs shapes that are known when the graph is compiled"
    if geometry.batch == 0:
        return "takes no empty tensors"
    taps = math.prod(geometry.kernel_size)
    products = taps * geometry.in_channels // geometry.groups
    if taps > _MOST_TAPS or products > _MOST_PRODUCTS:
        return (
            f"takes kernels of at most {_MOST_TAPS} taps and {_MOST_PRODUCTS} taps times input "
            f"channels of a group, got {taps} taps and {products}"
        )
    pixels = math.prod(geometry.in_size)
    if pixels > _MOST_PIXELS:
        return f"takes inputs of at most {_MOST_PIXELS} pixels a channel, got {pixels}"
    return None


def registration(function: Function) -> dict[str, object]:
    """What MindSpore's code generator makes the call from."""
    info = CustomRegOp(function.name).target("Ascend")
    for index, name in enumerate(function.inputs):
        info = info.input(index, name, "required")
    for index, name in enumerate(function.outputs):
        info = info.output(index, name, "required")
    # Without a value an attribute is an argument of the call, after the tensors.
    for name, kind in _ATTRIBUTES:
        info = info.attr(name, "required", kind)
    for dtype in _DTYPES:
        info = info.dtype_format(*(dtype,) * (len(function.inputs) + len(function.outputs)))
    return info.get_op_info()


@cache
def primitive(geometry: Geometry, cann_gradients: bool) -> ops.Custom:
    """The operator of a geometry, without batch and sizes, with CANN's gradients or others."""
    gradients = gradients_of_cann(geometry) if cann_gradients else gradients_of(geometry)
    return _custom(FORWARD, infer_shapes, bprop_of(gradients))


def bprop_of(gradients: Gradients) -> Callable[..., tuple[Tensor | None, ...]]:
    """The bprop of the operator."""

    def bprop(
        x: Tensor,
        weight: Tensor,
        offset: Tensor,
        bias: Tensor,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        deformable_groups: int,
        modulated: bool,
        outputs: tuple[Tensor, Tensor],
        grad_outputs: tuple[Tensor, Tensor],
    ) -> tuple[Tensor | None, ...]:
        absent = (None,) * 7
        return (*gradients(x, grad_outputs[0], outputs[1], weight, offset), *absent)

    return bprop


def gradients_of_cann(geometry: Geometry) -> Gradients:
    """The gradients by CANN's function."""
    backward, arguments = backward_primitive(), constants(geometry)

    def gradients(
        x: Tensor, grad_output: Tensor, columns: Tensor, weight: Tensor, offset: Tensor
    ) -> tuple[Tensor, ...]:
        return backward(x, grad_output, columns, weight, offset, *arguments)

    return gradients


def gradients_of(geometry: Geometry) -> Gradients:
    """The gradients by MindSpore's primitives."""
    sample, product = composition.primitives(geometry)

    def composed(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return product(sample(x, offset), weight)

    gradient = ops.GradOperation(get_all=True, sens_param=True)

    def gradients(
        x: Tensor, grad_output: Tensor, columns: Tensor, weight: Tensor, offset: Tensor
    ) -> tuple[Tensor, ...]:
        grad_x, grad_weight, grad_offset = gradient(composed)(x, weight, offset, grad_output)
        return grad_x, grad_weight, grad_offset, grad_output.sum((0, 2, 3))

    return gradients


@cache
def backward_primitive() -> ops.Custom:
    return _custom(BACKWARD, infer_gradient_shapes, _refuse_second_order)


# Graph mode takes no variable arguments in a bprop.
def _refuse_second_order(
    input: Tensor,
    grad_output: Tensor,
    offset_out: Tensor,
    weight: Tensor,
    offset: Tensor,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    deformable_groups: int,
    modulated: bool,
    outputs: tuple[Tensor, ...],
    grad_outputs: tuple[Tensor, ...],
) -> None:
    second_order.refuse()


def _custom(
    function: Function, infer_shape: Callable[..., object], bprop: Callable[..., object]
) -> ops.Custom:
    return ops.Custom(
        function.name,
        out_shape=infer_shape,
        out_dtype=lambda dtype, *_: (dtype,) * len(function.outputs),
        func_type="aot",
        bprop=bprop,
        reg_info=registration(function),
    )


def infer_shapes(x: Shape, weight: Shape, offset: Shape, *_: object) -> tuple[Shape, Shape]:
    """Of out [N, C_out, H_out, W_out] and deform_out [N, C_in, H_out * kh, W_out * kw]."""
    batch, in_channels, _, _ = x
    out_channels, _, kernel_height, kernel_width = weight
    _, _, height, width = offset
    columns = (batch, in_channels, height * kernel_height, width * kernel_width)
    return (batch, out_channels, height, width), columns


def infer_gradient_shapes(
    input: Shape, grad_output: Shape, offset_out: Shape, weight: Shape, offset: Shape, *_: object
) -> tuple[Shape, Shape, Shape, Shape]:
    return input, weight, offset, (weight[0],)


def constants(geometry: Geometry) -> tuple[object, ...]:
    """The arguments after the tensors."""
    attributes = geometry.attributes
    return (
        geometry.kernel_size,
        (1, 1, *attributes.stride),
        attributes.padding,
        (1, 1, *attributes.dilation),
        geometry.groups,
        geometry.offset_groups,
        True,
    )


def prepare(call: Call) -> tuple[Primitive, tuple[object, ...]]:
    """The operator, and its arguments after the tensors."""
    return primitive(call.geometry.any_size, trains()), constants(call.geometry)


def run(
    prepared: tuple[Primitive, tuple[object, ...]],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    operator, arguments = prepared
    # Halves in float32. 950 would round the samples; A2 and A3 cast halves themselves, but also the
    # columns, which MindSpore always asks for: more elements than those of input and offset
    # together in every layer with taps * C_in > 2 * C_in + 6 * offset_groups * taps.
    single, packed = composition.single, composition.packed(offset, mask)
    if bias is None:
        bias = ops.zeros((weight.shape[0],), mstype.float32)
    output, _ = operator(single(input), single(weight), packed, single(bias), *arguments)
    return ops.cast(output, input.dtype)
