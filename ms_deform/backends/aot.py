# SPDX-License-Identifier: Apache-2.0
"""The backend "aot": ``ops.Custom`` AOT operators and their bprop rules.

The forward operator and three gradients: of (input, offset, mask), of weight and of bias, so that a
graph drops those that it does not ask for. All take five inputs, whatever is optional, so that one
registration serves all calls: an absent mask or bias is a `placeholder`, and the gradients take
grad_output in the place of bias. What `second_order` makes of these operators is the bprop of the
gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from mindspore import Parameter, Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops import CustomRegOp, DataType, constexpr
from mindspore.ops.primitive import _pynative_executor, jit_context

from ms_deform.backends import second_order
from ms_deform.backends.interface import Call
from ms_deform.geometry import Attributes
from ms_deform.install.library import LIBRARY_TARGETS, find_library

_DTYPES = (
    DataType.F32_Default,
    DataType.F64_Default,
    DataType.F16_Default,
    DataType.BF16_Default,
)
FORWARD_NAME = "MsDeformForward"
_FORWARD = (FORWARD_NAME, ("input", "offset", "mask", "weight", "bias"), ("output",))
_GRADIENT_INPUTS = ("input", "offset", "mask", "weight", "grad_output")
_GRADIENTS = (
    ("MsDeformGradInput", ("grad_input", "grad_offset", "grad_mask")),
    ("MsDeformGradWeight", ("grad_weight",)),
    ("MsDeformGradBias", ("grad_bias",)),
)


def obstacle(call: Call) -> None:
    """The kernels take every call."""


def prepare(call: Call) -> tuple[ops.Custom, Tensor]:
    """The forward operator, and what stands for an absent tensor."""
    primitive = forward_primitive(
        call.device_target,
        call.geometry.attributes,
        call.deterministic,
        call.caller,
    )
    return primitive, placeholder(call.dtype)


def run(
    prepared: tuple[object, ...],
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """A primitive on the tensors, a placeholder for an absent one, and what it takes after them."""
    primitive, absent = prepared[:2]
    mask = absent if mask is None else mask
    bias = absent if bias is None else bias
    return primitive(input, offset, mask, weight, bias, *prepared[2:])


@cache
def placeholder(dtype: mstype.Type) -> Tensor:
    """What stands for an absent tensor; the kernels do not read it."""
    return Tensor([0.0], dtype)


@cache
def forward_primitive(
    device_target: str,
    attributes: Attributes,
    deterministic: bool,
    caller: str,
) -> ops.Custom:
    """The forward operator with its bprop.

    deterministic: gradients always have the same bits. caller: what errors of the kernels name.
    """
    grad_input_of, grad_weight_of, grad_bias_of = gradient_primitives(
        device_target, attributes, deterministic, caller
    )
    use_bias = attributes.use_bias

    def bprop(
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        weight: Tensor,
        bias: Tensor,
        output: Tensor,
        grad_output: Tensor,
    ) -> tuple[Tensor | None, ...]:
        grad_input, grad_offset, grad_mask = grad_input_of(input, offset, mask, weight, grad_output)
        grad_weight = grad_weight_of(input, offset, mask, weight, grad_output)
        grad_bias = None
        if use_bias:
            grad_bias = grad_bias_of(input, offset, mask, weight, grad_output)
        return grad_input, grad_offset, grad_mask, grad_weight, grad_bias

    carried = _carried(attributes, deterministic, caller)
    return _primitive(device_target, *_FORWARD, carried, bprop)


@cache
def gradient_primitives(
    device_target: str, attributes: Attributes, deterministic: bool, caller: str
) -> tuple[ops.Custom, ...]:
    """The gradient operators with their bprop."""
    masked = attributes._replace(use_mask=True, use_bias=False)

    # Looked up when they are needed: they have a bprop of their own.
    @constexpr
    def masked_primitives(dtype: mstype.Type) -> tuple[object, ...]:
        constants = (device_target, masked, deterministic, caller)
        return forward_primitive(*constants), placeholder(dtype), *gradient_primitives(*constants)

    def pullback(
        input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, grad_output: Tensor
    ) -> tuple[Tensor, ...]:
        forward, absent, grad_input_of, grad_weight_of, _ = masked_primitives(input.dtype)
        gradients = grad_input_of(input, offset, mask, weight, grad_output)
        grad_weight = grad_weight_of(input, offset, mask, weight, grad_output)
        return *gradients, grad_weight, forward(input, offset, mask, weight, absent)

    bprops = (
        second_order.bprop_of_input(pullback, attributes.use_mask),
        second_order.bprop_of_weight(pullback, attributes.use_mask),
        second_order.bprop_of_bias,
    )
    carried = _carried(attributes, deterministic, caller)
    return tuple(
        _primitive(device_target, function, _GRADIENT_INPUTS, outputs, carried, bprop)
        for (function, outputs), bprop in zip(_GRADIENTS, bprops)
    )


def _carried(attributes: Attributes, deterministic: bool, caller: str) -> dict[str, object]:
    return {**attributes._asdict(), "deterministic": deterministic, "caller": caller}


class _Operator(ops.Custom):
    """A Custom, and one for PyNative mode, so that its gradients have right gradients there."""

    def __init__(self, bprop: Callable[..., object], **constants: object) -> None:
        super().__init__(bprop=bprop, **constants)
        count = len(constants["reg_info"]["inputs"])

        # MindSpore 2.7 passes the output again for every gradient that is nested in another.
        def eager_bprop(*arguments: object) -> object:
            return bprop(*arguments[: count + 1], arguments[-1])

        self.eager = ops.Custom(bprop=eager_bprop, **constants)

    # A graph holds the operator itself, whether it was compiled, without a call, or traced.
    def __call__(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        if jit_context():
            return super().__call__(*tensors)
        # In the place of a Parameter a bprop is given a copy, whose own gradient is lost.
        if _pynative_executor.grad_flag():
            tensors = [t.view(t.shape) if isinstance(t, Parameter) else t for t in tensors]
        return self.eager(*tensors)


def _primitive(
    device_target: str,
    function: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    attributes: dict[str, object],
    bprop: Callable[..., object],
) -> ops.Custom:
    library = find_library(LIBRARY_TARGETS[device_target])
    registration = CustomRegOp(function).target(device_target)
    for index, name in enumerate(inputs):
        registration = registration.input(index, name)
    for index, name in enumerate(outputs):
        registration = registration.output(index, name)
    for dtype in _DTYPES:
        registration = registration.dtype_format(*(dtype,) * (len(inputs) + len(outputs)))
    for name, value in attributes.items():
        kind = {bool: "bool", str: "str", tuple: "listInt"}[type(value)]
        value = list(value) if kind == "listInt" else value
        registration = registration.attr(name, "required", kind, value=value)
    # Shapes and types are inferred in C++: Python inference does not work for dynamic shapes.
    return _Operator(
        bprop,
        func=f"{library}:{function}",
        out_shape=None,
        out_dtype=None,
        func_type="aot",
        reg_info=registration.get_op_info(),
    )
