# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparisons, activations and casts."""

from __future__ import annotations

import math
from functools import partial

from onnx import TensorProto

from ms_deform.export.lowering.interface import (
    FLOATS,
    Builder,
    Call,
    Unsupported,
    check_layout,
    dtype_of,
    lowers,
    number,
    numbers,
    tensor_type,
)

_SAME_NAME = (
    *("Abs", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor"),
    *("Identity", "Log", "Mish", "Neg", "Reciprocal", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus"),
    *("Softsign", "Sqrt", "Tan", "Tanh"),
)
_UNARY = {
    **dict.fromkeys(_SAME_NAME),
    "ACos": "Acos",
    "Acosh": "Acosh",
    "HSwish": "HardSwish",
    "ReLU": "Relu",
    "SeLU": "Selu",
    "SoftPlus": "Softplus",
    "StopGradient": "Identity",
    "TensorMove": "Identity",
}
_PREDICATES = {"LogicalNot": "Not", "IsNan": "IsNaN", "IsInf": "IsInf"}
_ARITHMETIC = {
    **dict.fromkeys(("Add", "Mul", "Sub", "Div", "Pow")),
    "Muls": "Mul",
    "Divs": "Div",
    "RealDiv": "Div",
    "Maximum": "Max",
    "Minimum": "Min",
    "PowTensorScalar": "Pow",
    "PowScalarTensor": "Pow",
}
_COMPARISONS = {
    "Equal": "Equal",
    "EqScalar": "Equal",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "GreaterEqualScalar": "GreaterOrEqual",
    "Less": "Less",
    "LessScalar": "Less",
    "LessEqual": "LessOrEqual",
}
_LOGICAL = {"LogicalAnd": "And", "LogicalOr": "Or", "LogicalXor": "Xor"}


def _unary(operator: str, graph: Builder, call: Call) -> str:
    x = call.inputs[0]
    dtype = tensor_type(call.type).dtype
    if operator in ("Ceil", "Floor") and dtype not in FLOATS:
        operator = "Identity"
    return graph.add(operator, graph.cast(x, dtype))


def _predicate(operator: str, graph: Builder, call: Call) -> str:
    return graph.add(operator, graph.name(call.inputs[0]))


def _arithmetic(operator: str, graph: Builder, call: Call) -> str:
    dtype = tensor_type(call.type).dtype
    return graph.add(operator, *(graph.cast(item, dtype) for item in call.inputs[:2]))


def _comparison(operator: str, graph: Builder, call: Call) -> str:
    return graph.add(operator, *_promoted(graph, call))


for _primitive, _operator in _UNARY.items():
    lowers(_primitive)(partial(_unary, _operator or _primitive))
for _primitive, _operator in _PREDICATES.items():
    lowers(_primitive)(partial(_predicate, _operator))
for _primitive, _operator in _ARITHMETIC.items():
    lowers(_primitive)(partial(_arithmetic, _operator or _primitive))
for _primitive, _operator in _COMPARISONS.items():
    lowers(_primitive)(partial(_comparison, _operator))
for _primitive, _operator in _LOGICAL.items():
    lowers(_primitive)(partial(_arithmetic, _operator))


def _promoted(graph: Builder, call: Call) -> tuple[str, str]:
    """Both inputs in one dtype, which a plain number does not raise, but from ints to floats."""
    pair = call.inputs[:2]
    tensors = [item for item in pair if not isinstance(item, (bool, int, float))]
    dtypes = [dtype_of(item) for item in tensors]
    has_float = any(isinstance(item, float) for item in pair)
    if has_float and not set(dtypes) & set(FLOATS):
        dtypes = [TensorProto.FLOAT]
    dtype = max(dtypes, key=_rank)
    return tuple(graph.cast(item, dtype) for item in pair)


def _rank(dtype: int) -> int:
    """Where a dtype is in MindSpore's order of promotion."""
    order = (
        *(TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16),
        *(TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.BFLOAT16),
        *(TensorProto.FLOAT, TensorProto.DOUBLE),
    )
    if dtype not in order:
        raise Unsupported("compare tensors of signed ints or floats")
    return order.index(dtype)


@lowers("NotEqual")
def _not_equal(graph: Builder, call: Call) -> str:
    return graph.add("Not", graph.add("Equal", *_promoted(graph, call)))


@lowers("AddExt", "AddScalar")
def _add_scaled(graph: Builder, call: Call, operator: str = "Add") -> str:
    x, y, *rest = call.inputs
    dtype = tensor_type(call.type).dtype
    y = graph.cast(y, dtype)
    if rest and number(rest[0]) != 1:
        y = graph.add("Mul", y, graph.number(number(rest[0]), dtype))
    return graph.add(operator, graph.cast(x, dtype), y)


lowers("SubExt", "SubScalar")(partial(_add_scaled, operator="Sub"))


@lowers("Addcmul")
def _add_product(graph: Builder, call: Call, operator: str = "Mul") -> str:
    x, *rest = (graph.cast(item, tensor_type(call.type).dtype) for item in call.inputs)
    a, b, factor = rest
    return graph.add("Add", x, graph.add("Mul", graph.add(operator, a, b), factor))


lowers("Addcdiv")(partial(_add_product, operator="Div"))


@lowers("Lerp", "LerpScalar")
def _lerp(graph: Builder, call: Call) -> str:
    dtype = tensor_type(call.type).dtype
    start, end, weight = (graph.cast(item, dtype) for item in call.inputs)
    way = graph.add("Mul", weight, graph.add("Sub", end, start))
    return graph.add("Add", start, way)


@lowers("AddN")
def _add_n(graph: Builder, call: Call) -> str:
    return graph.add("Sum", *map(graph.name, call.inputs[0]))


@lowers("BiasAdd")
def _bias_add(graph: Builder, call: Call) -> str:
    x, bias, *format = call.inputs
    check_layout(call.attributes.get("format", *format))
    rest = [1] * (len(x.shape) - 2)
    bias = graph.name(bias)
    return graph.add("Add", graph.name(x), graph.reshape(bias, (-1, *rest)) if rest else bias)


@lowers("FloorDiv", "FloorDivScalar")
def _floor_divide(graph: Builder, call: Call) -> str:
    dtype = tensor_type(call.type).dtype
    x, y = (graph.cast(item, dtype) for item in call.inputs[:2])
    if dtype in FLOATS:
        return graph.add("Floor", graph.add("Div", x, y))
    # ONNX divides ints towards zero.
    remainder = graph.add("Mod", x, y)
    return graph.add("Div", graph.add("Sub", x, remainder), y)


@lowers("FloorMod", "RemainderTensorTensor", "RemainderTensorScalar", "RemainderScalarTensor")
def _floor_mod(graph: Builder, call: Call) -> str:
    dtype = tensor_type(call.type).dtype
    x, y = (graph.cast(item, dtype) for item in call.inputs[:2])
    if dtype not in FLOATS:
        return graph.add("Mod", x, y)
    whole = graph.add("Floor", graph.add("Div", x, y))
    return graph.add("Sub", x, graph.add("Mul", whole, y))


@lowers("Square")
def _square(graph: Builder, call: Call) -> str:
    x = graph.name(call.inputs[0])
    return graph.add("Mul", x, x)


@lowers("SquaredDifference")
def _squared_difference(graph: Builder, call: Call) -> str:
    difference = _arithmetic("Sub", graph, call)
    return graph.add("Mul", difference, difference)


@lowers("Rsqrt")
def _rsqrt(graph: Builder, call: Call) -> str:
    return graph.add("Reciprocal", graph.add("Sqrt", graph.name(call.inputs[0])))


@lowers("Round")
def _round(graph: Builder, call: Call) -> str:
    if any(numbers(call.inputs[1:2])):
        raise Unsupported("round to whole numbers: scale before and after it")
    return _unary("Round", graph, call)


@lowers("Cast")
def _cast(graph: Builder, call: Call) -> str:
    return graph.cast(call.inputs[0], tensor_type(call.type).dtype)


@lowers("Select", "Where", "SelectV2")
def _select(graph: Builder, call: Call) -> str:
    condition, x, y = call.inputs
    dtype = tensor_type(call.type).dtype
    condition = graph.cast(condition, TensorProto.BOOL)
    return graph.add("Where", condition, graph.cast(x, dtype), graph.cast(y, dtype))


@lowers("MaskedFill", "MaskedFillScalar")
def _masked_fill(graph: Builder, call: Call) -> str:
    x, mask, value = call.inputs
    dtype = tensor_type(call.type).dtype
    return graph.add("Where", graph.name(mask), graph.cast(value, dtype), graph.cast(x, dtype))


@lowers("ClampScalar", "ClampTensor")
def _clamp(graph: Builder, call: Call) -> str:
    x, least, most = call.inputs
    dtype = tensor_type(call.type).dtype
    x = graph.cast(x, dtype)
    for operator, bound in (("Max", least), ("Min", most)):
        if bound is not None:
            x = graph.add(operator, x, graph.cast(bound, dtype))
    return x


@lowers("ReLU6")
def _relu6(graph: Builder, call: Call) -> str:
    dtype = tensor_type(call.type).dtype
    bounds = graph.number(0, dtype), graph.number(6, dtype)
    return graph.add("Clip", graph.name(call.inputs[0]), *bounds)


@lowers("LeakyReLUExt")
def _leaky_relu(graph: Builder, call: Call) -> str:
    x, slope = call.inputs
    return graph.add("LeakyRelu", graph.name(x), alpha=float(number(slope)))


@lowers("PReLU")
def _prelu(graph: Builder, call: Call) -> str:
    x, slope = call.inputs
    rest = [1] * (len(x.shape) - 2)
    slope = graph.name(slope)
    return graph.add("PRelu", graph.name(x), graph.reshape(slope, (-1, *rest)) if rest else slope)


@lowers("Elu")
def _elu(graph: Builder, call: Call) -> str:
    (alpha,) = call.values("alpha")
    return graph.add("Elu", graph.name(call.inputs[0]), alpha=float(number(alpha)))


@lowers("CeLU")
def _celu(graph: Builder, call: Call) -> str:
    (alpha,) = call.values("alpha")
    return graph.add("Celu", graph.name(call.inputs[0]), alpha=float(number(alpha)))


@lowers("HSigmoid")
def _hard_sigmoid(graph: Builder, call: Call) -> str:
    return graph.add("HardSigmoid", graph.name(call.inputs[0]), alpha=1 / 6, beta=0.5)


@lowers("SiLU")
def _silu(graph: Builder, call: Call) -> str:
    x = graph.name(call.inputs[0])
    return graph.add("Mul", x, graph.add("Sigmoid", x))


@lowers("GeLU")
def _gelu_tanh(graph: Builder, call: Call) -> str:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); opset 19 has no Gelu."""
    x, dtype = graph.name(call.inputs[0]), tensor_type(call.type).dtype
    cube = graph.add("Mul", graph.add("Mul", x, x), x)
    inner = graph.add("Add", x, graph.add("Mul", cube, graph.number(0.044715, dtype)))
    inner = graph.add("Mul", inner, graph.number(math.sqrt(2 / math.pi), dtype))
    return _half_of(graph, x, graph.add("Tanh", inner), dtype)


@lowers("GeluExt")
def _gelu(graph: Builder, call: Call) -> str:
    """0.5 x (1 + erf(x / sqrt(2))), or the one with tanh."""
    if number(call.inputs[1]):
        return _gelu_tanh(graph, call)
    x, dtype = graph.name(call.inputs[0]), tensor_type(call.type).dtype
    inner = graph.add("Mul", x, graph.number(math.sqrt(0.5), dtype))
    return _half_of(graph, x, graph.add("Erf", inner), dtype)


def _half_of(graph: Builder, x: str, of: str, dtype: int) -> str:
    """0.5 x (1 + of)"""
    factor = graph.add("Add", of, graph.number(1, dtype))
    return graph.add("Mul", graph.add("Mul", x, factor), graph.number(0.5, dtype))


@lowers("Erfc")
def _erfc(graph: Builder, call: Call) -> str:
    one = graph.number(1, tensor_type(call.type).dtype)
    return graph.add("Sub", one, graph.add("Erf", graph.name(call.inputs[0])))


def _like(graph: Builder, call: Call, value: object) -> str:
    shape = graph.add("Shape", graph.name(call.inputs[0]))
    return graph.add("Expand", graph.cast(value, tensor_type(call.type).dtype), shape)


lowers("ZerosLike", "ZerosLikeExt")(partial(_like, value=0))
lowers("OnesLike", "OnesLikeExt")(partial(_like, value=1))


@lowers("FullLike")
def _full_like(graph: Builder, call: Call) -> str:
    return _like(graph, call, call.inputs[1])
