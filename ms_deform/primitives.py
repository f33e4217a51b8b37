# SPDX-License-Identifier: Apache-2.0
"""The primitives behind ``deform_conv2d``: ``ops.Custom`` AOT operators and their bprop rules.

Three primitives, each with the same five inputs, so that one registration serves every combination
of optional tensors: forward (input, offset, mask, weight, bias), and the gradients of
(input, offset, mask) and of weight, which take grad_output in the place of bias. They are two, so
that a graph drops the one that it does not ask for. An absent mask or bias is `placeholder`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from mindspore import Tensor, ops
from mindspore import dtype as mstype
from mindspore.ops import CustomRegOp, DataType

from ms_deform.backends import backend_for
from ms_deform.geometry import Geometry
from ms_deform.library import find_library

_DTYPES = (
    DataType.F32_Default,
    DataType.F64_Default,
    DataType.F16_Default,
    DataType.BF16_Default,
)
_FORWARD_INPUTS = ("input", "offset", "mask", "weight", "bias")
_GRADIENT_INPUTS = ("input", "offset", "mask", "weight", "grad_output")


@cache
def placeholder(dtype: mstype.Type) -> Tensor:
    """What stands for an absent tensor; the kernels do not read it."""
    return Tensor([0.0], dtype)


@cache
def forward_primitive(device_target: str, geometry: Geometry) -> ops.Custom:
    """The forward operator with its bprop."""
    grad_input_of = _primitive(
        device_target,
        "MsDeformGradInput",
        _GRADIENT_INPUTS,
        ("grad_input", "grad_offset", "grad_mask"),
        geometry._replace(use_bias=False),
        _refuse_second_order,
    )
    grad_weight_of = _primitive(
        device_target,
        "MsDeformGradWeight",
        _GRADIENT_INPUTS,
        ("grad_weight",),
        geometry._replace(use_bias=False),
        _refuse_second_order,
    )
    sum_over_pixels = ops.ReduceSum()
    use_bias = geometry.use_bias

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
            # The halves sum in float32, as the kernels do.
            wide = grad_output
            if grad_output.dtype != mstype.float64:
                wide = ops.cast(grad_output, mstype.float32)
            grad_bias = ops.cast(sum_over_pixels(wide, (0, 2, 3)), grad_output.dtype)
        return grad_input, grad_offset, grad_mask, grad_weight, grad_bias

    return _primitive(
        device_target, "MsDeformForward", _FORWARD_INPUTS, ("output",), geometry, bprop
    )


def _refuse_second_order(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    output: Tensor,
    grad_of_output: Tensor,
) -> None:
    raise NotImplementedError(
        "deform_conv2d: gradients of its gradients are not implemented; take first-order "
        "gradients only"
    )


def _primitive(
    device_target: str,
    function: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    geometry: Geometry,
    bprop: Callable[..., object],
) -> ops.Custom:
    library = find_library(backend_for(device_target).library_target)
    registration = CustomRegOp(function).target(device_target)
    for index, name in enumerate(inputs):
        registration = registration.input(index, name)
    for index, name in enumerate(outputs):
        registration = registration.output(index, name)
    for dtype in _DTYPES:
        registration = registration.dtype_format(*(dtype,) * (len(inputs) + len(outputs)))
    for name, value in geometry._asdict().items():
        kind = "bool" if isinstance(value, bool) else "listInt"
        value = value if isinstance(value, bool) else list(value)
        registration = registration.attr(name, "required", kind, value=value)
    # Shapes and types are inferred in C++: Python inference does not work for dynamic shapes.
    return ops.Custom(
        f"{library}:{function}",
        out_shape=None,
        out_dtype=None,
        func_type="aot",
        bprop=bprop,
        reg_info=registration.get_op_info(),
    )
