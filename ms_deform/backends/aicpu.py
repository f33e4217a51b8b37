# SPDX-License-Identifier: Apache-2.0
"""The backend "aicpu": this project's kernels on the AICPU of an Ascend device.

They are a CANN vendor package, which `python -m ms_deform build --aicpu` makes, behind
``ops.Custom`` operators of func_type "aicpu", with bprop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops import CustomRegOp, DataType

from ms_deform.backends import aot, second_order
from ms_deform.backends.interface import Call
from ms_deform.geometry import Attributes
from ms_deform.install.aicpu_operators import FORWARD, GEOMETRY, GRAD_INPUT, GRAD_WEIGHT, Operator

_DTYPES = (DataType.F32_Default, DataType.F16_Default)
SUPPORTED_DTYPES = (mstype.float32, mstype.float16)

Shape = tuple[int, ...]


def obstacle(call: Call) -> str | None:
    if call.dtype not in SUPPORTED_DTYPES:
        return f"takes float32 and float16, got {call.dtype}"
    return None


def prepare(call: Call) -> tuple[ops.Custom, Tensor, Tensor]:
    """The forward operator, what stands for an absent tensor, and the geometry."""
    attributes = call.geometry.attributes
    primitive = forward_primitive(attributes.use_bias)
    return primitive, aot.placeholder(call.dtype), geometry_tensor(attributes)


run = aot.run


@cache
def geometry_tensor(attributes: Attributes) -> Tensor:
    numbers = (*attributes.stride, *attributes.padding, *attributes.dilation)
    return Tensor([*numbers, int(attributes.use_mask), int(attributes.use_bias)], mstype.int64)


@cache
def forward_primitive(use_bias: bool) -> ops.Custom:
    """The forward operator with its bprop."""
    grad_input_of = _primitive(GRAD_INPUT, lambda *shapes: shapes[:3], _refuse_second_order)
    grad_weight_of = _primitive(GRAD_WEIGHT, lambda *shapes: shapes[3], _refuse_second_order)

    def bprop(
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        weight: Tensor,
        bias: Tensor,
        geometry: Tensor,
        output: Tensor,
        grad_output: Tensor,
    ) -> tuple[Tensor | None, ...]:
        tensors = (input, offset, mask, weight, grad_output, geometry)
        grad_input, grad_offset, grad_mask = grad_input_of(*tensors)
        grad_bias = None
        if use_bias:
            grad_bias = grad_output.sum((0, 2, 3))
        return grad_input, grad_offset, grad_mask, grad_weight_of(*tensors), grad_bias, None

    return _primitive(FORWARD, output_shape, bprop)


def output_shape(input: Shape, offset: Shape, mask: Shape, weight: Shape, *_: object) -> Shape:
    return (input[0], weight[0], *offset[2:])


def registration(operator: Operator) -> dict[str, object]:
    info = CustomRegOp(operator.name).target("Ascend")
    for index, name in enumerate(operator.inputs):
        info = info.input(index, name, "required")
    for index, name in enumerate(operator.outputs):
        info = info.output(index, name, "required")
    for dtype in _DTYPES:
        inputs = [DataType.I64_Default if n == GEOMETRY else dtype for n in operator.inputs]
        info = info.dtype_format(*inputs, *(dtype,) * len(operator.outputs))
    return info.get_op_info()


# Graph mode takes no variable arguments in a bprop.
def _refuse_second_order(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    geometry: Tensor,
    output: Tensor,
    grad_of_output: Tensor,
) -> None:
    second_order.refuse()


def _primitive(
    operator: Operator, infer_shape: Callable[..., object], bprop: Callable[..., object]
) -> ops.Custom:
    count = len(operator.outputs)
    return ops.Custom(
        operator.name,
        out_shape=infer_shape,
        out_dtype=lambda dtype, *_: dtype if count == 1 else (dtype,) * count,
        func_type="aicpu",
        bprop=bprop,
        reg_info=registration(operator),
    )
