# SPDX-License-Identifier: Apache-2.0
"""The backend "aclnn": CANN's ``aclnnDeformableConv2d`` through ``ops.Custom``, for inference.

It runs in graph mode, jit level O0 or O1: in PyNative mode ``ops.Custom`` takes tensors only, and
in O2 no aclnn function. Gradients, should a graph ask for them, are those of the composition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import mindspore as ms
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore._c_expression import MSContext
from mindspore.ops import CustomRegOp, DataType, Primitive

from ms_deform.backends import composition
from ms_deform.backends.interface import Call
from ms_deform.geometry import Geometry
from ms_deform.install.cann import aclnn_obstacle

FUNCTION = "aclnnDeformableConv2d"
# The parameters of aclnnDeformableConv2dGetWorkspaceSize, in its order. A bias is always given:
# ops.Custom takes no None.
_INPUTS = ("x", "weight", "offset", "bias")
_ATTRIBUTES = (
    ("kernel_size", "listInt"),
    ("stride", "listInt"),
    ("padding", "listInt"),
    ("dilation", "listInt"),
    ("groups", "int"),
    ("deformable_groups", "int"),
    ("modulated", "bool"),
)
_OUTPUTS = ("out", "deform_out")
_DTYPES = (DataType.F32_Default, DataType.F16_Default, DataType.BF16_Default)

# CANN 8.5, aclnnDeformableConv2d, "kernelSize".
_MOST_TAPS = 2048
_MOST_PRODUCTS = 65535


# Computes the calls that this backend does not take.
STAND_IN = "composition"


def obstacle(call: Call) -> str | None:
    if ms.get_context("mode") != ms.GRAPH_MODE or ms.get_context("jit_level") == "O2":
        return "needs graph mode, jit level O0 or O1"
    return composition.obstacle(call) or _missing() or _limit(call.geometry)


def _missing() -> str | None:
    why_not = aclnn_obstacle(MSContext.get_instance().get_ascend_soc_version())
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
    return None


def registration() -> dict[str, object]:
    """What MindSpore's code generator makes the call from."""
    info = CustomRegOp(FUNCTION).target("Ascend")
    for index, name in enumerate(_INPUTS):
        info = info.input(index, name, "required")
    for index, name in enumerate(_OUTPUTS):
        info = info.output(index, name, "required")
    # Without a value an attribute is an argument of the call, after the tensors.
    for name, kind in _ATTRIBUTES:
        info = info.attr(name, "required", kind)
    for dtype in _DTYPES:
        info = info.dtype_format(*(dtype,) * (len(_INPUTS) + len(_OUTPUTS)))
    return info.get_op_info()


@cache
def primitive(sample: Primitive, product: Primitive) -> ops.Custom:
    """The operator, with the gradients of the composition of these primitives."""
    gradients = gradients_of(sample, product)

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
        grad_x, grad_weight, grad_offset, grad_bias = gradients(x, weight, offset, grad_outputs[0])
        absent = (None,) * 7
        return (grad_x, grad_weight, grad_offset, grad_bias, *absent)

    return ops.Custom(
        FUNCTION,
        out_shape=infer_shapes,
        out_dtype=lambda x, *_: (x, x),
        func_type="aot",
        bprop=bprop,
        reg_info=registration(),
    )


def gradients_of(sample: Primitive, product: Primitive) -> Callable[..., tuple[Tensor, ...]]:
    """The gradients of x, weight, packed offset and bias."""

    def composed(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return product(sample(x, offset), weight)

    gradient = ops.GradOperation(get_all=True, sens_param=True)

    def gradients(
        x: Tensor, weight: Tensor, offset: Tensor, grad_output: Tensor
    ) -> tuple[Tensor, ...]:
        grad_x, grad_weight, grad_offset = gradient(composed)(x, weight, offset, grad_output)
        return grad_x, grad_weight, grad_offset, grad_output.sum((0, 2, 3))

    return gradients


def infer_shapes(
    x: tuple[int, ...], weight: tuple[int, ...], offset: tuple[int, ...], *_: object
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of out [N, C_out, H_out, W_out] and deform_out [N, C_in, H_out * kh, W_out * kw]."""
    batch, in_channels, _, _ = x
    out_channels, _, kernel_height, kernel_width = weight
    _, _, height, width = offset
    columns = (batch, in_channels, height * kernel_height, width * kernel_width)
    return (batch, out_channels, height, width), columns


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
    return primitive(*composition.prepare(call)), constants(call.geometry)


def run(
    prepared: tuple[Primitive, tuple[object, ...]],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    operator, arguments = prepared
    # Coordinates in float32, whatever the dtype, as on all backends.
    single, packed = composition.single, composition.packed(offset, mask)
    if bias is None:
        bias = ops.zeros((weight.shape[0],), mstype.float32)
    output, _ = operator(single(input), single(weight), packed, single(bias), *arguments)
    return ops.cast(output, input.dtype)
