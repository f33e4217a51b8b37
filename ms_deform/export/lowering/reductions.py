# SPDX-License-Identifier: Apache-2.0
"""Sums, means, extrema and their positions, softmax, and norms."""

from __future__ import annotations

from functools import partial

from onnx import TensorProto

from ms_deform.export.lowering.interface import (
    Builder,
    Call,
    Unsupported,
    check_layout,
    from_front,
    lowers,
    number,
    numbers,
    tensor_type,
)

_REDUCTIONS = {
    "ReduceMean": "ReduceMean",
    "ReduceSum": "ReduceSum",
    "ReduceMax": "ReduceMax",
    "ReduceMin": "ReduceMin",
    "ReduceProd": "ReduceProd",
    "SumExt": "ReduceSum",
    "ProdExt": "ReduceProd",
    "MeanExt": "ReduceMean",
}


def _reduction(operator: str, graph: Builder, call: Call) -> str:
    axes, keep, skip = call.values("axis", "keep_dims", "skip_mode")
    if skip is True and not axes:
        raise Unsupported("a reduction with skip_mode=False, or none")
    return _reduce(graph, operator, graph.cast(call.inputs[0], _dtype(call)), axes, keep)


for _primitive, _operator in _REDUCTIONS.items():
    lowers(_primitive)(partial(_reduction, _operator))


def _dtype(call: Call) -> int:
    return tensor_type(call.type).dtype


def _reduce(graph: Builder, operator: str, name: str, axes: object, keep: object) -> str:
    """Without axes it is over all of them."""
    axes = () if axes is None else numbers(axes)
    inputs = (name, graph.ints(axes)) if axes else (name,)
    return graph.add(operator, *inputs, keepdims=int(bool(keep)))


def _logical(operator: str, graph: Builder, call: Call) -> str:
    axes, keep = call.values("axis", "keep_dims")
    ints = graph.cast(call.inputs[0], TensorProto.INT32)
    reduced = _reduce(graph, operator, ints, axes, keep)
    return graph.add("Cast", reduced, to=TensorProto.BOOL)


lowers("ReduceAll")(partial(_logical, "ReduceMin"))
lowers("ReduceAny")(partial(_logical, "ReduceMax"))


def _extremum_with_position(which: str, graph: Builder, call: Call) -> list[str]:
    """Its outputs are position and value."""
    axis, keep = call.values("axis", "keep_dims")
    x, axis, keep = graph.name(call.inputs[0]), int(number(axis)), int(bool(keep))
    position = graph.add(f"Arg{which}", x, axis=axis, keepdims=keep)
    value = _reduce(graph, f"Reduce{which}", x, axis, keep)
    return [_from_int64(graph, position, call.type[0].dtype), value]


lowers("ArgMaxWithValue")(partial(_extremum_with_position, "Max"))
lowers("ArgMinWithValue")(partial(_extremum_with_position, "Min"))


def _position(which: str, graph: Builder, call: Call) -> str:
    (axis,) = call.values("axis")
    name = graph.name(call.inputs[0])
    if axis is None:
        name, axis = graph.reshape(name, [-1]), 0
    position = graph.add(f"Arg{which}", name, axis=int(number(axis)), keepdims=0)
    return _from_int64(graph, position, _dtype(call))


lowers("Argmax")(partial(_position, "Max"))
lowers("Argmin")(partial(_position, "Min"))


def _from_int64(graph: Builder, name: str, dtype: int) -> str:
    return name if dtype == TensorProto.INT64 else graph.add("Cast", name, to=dtype)


@lowers("TopK")
def _top_k(graph: Builder, call: Call) -> list[str]:
    x, count = call.inputs
    values, positions = graph.add("TopK", graph.name(x), graph.ints(numbers(count)), outputs=2)
    return [values, _from_int64(graph, positions, call.type[1].dtype)]


@lowers("CumSum")
def _cumulative_sum(graph: Builder, call: Call) -> str:
    x, axis, *flags = call.inputs
    exclusive, reverse = flags or (call.attributes["exclusive"], call.attributes["reverse"])
    return graph.add(
        "CumSum",
        graph.name(x),
        graph.ints(numbers(axis)),
        exclusive=int(exclusive),
        reverse=int(reverse),
    )


@lowers("Softmax", "LogSoftmax")
def _softmax(graph: Builder, call: Call, operator: str = "Softmax") -> str:
    (axis,) = call.values("axis")
    axes = numbers(axis)
    if len(axes) > 1:
        raise Unsupported("a softmax over one axis, after a reshape")
    return graph.add(operator, graph.name(call.inputs[0]), axis=axes[0])


lowers("LogSoftmax")(partial(_softmax, operator="LogSoftmax"))


@lowers("LogSumExp")
def _log_sum_exp(graph: Builder, call: Call) -> str:
    return _reduction("ReduceLogSumExp", graph, call)


@lowers("L2Normalize")
def _l2_normalize(graph: Builder, call: Call) -> str:
    """x / sqrt(max(sum(x^2), epsilon))"""
    x, dtype = graph.name(call.inputs[0]), _dtype(call)
    axes, epsilon = numbers(call.attributes["axis"]), call.attributes["epsilon"]
    squares = _reduce(graph, "ReduceSumSquare", x, axes, True)
    norm = graph.add("Sqrt", graph.add("Max", squares, graph.number(epsilon, dtype)))
    return graph.add("Div", x, norm)


@lowers("BatchNorm")
def _batch_norm(graph: Builder, call: Call) -> list[str | None]:
    x, *parameters = call.inputs[:5]
    training, epsilon = call.inputs[5:7]
    if "is_training" in call.attributes:
        training, epsilon = call.attributes["is_training"], call.attributes["epsilon"]
    check_layout(call.attributes.get("format", *call.inputs[8:9]))
    if training:
        raise Unsupported("a batch norm without use_batch_statistics=True")
    inputs = [graph.name(tensor) for tensor in (x, *parameters)]
    return [graph.add("BatchNormalization", *inputs, epsilon=epsilon), None, None, None, None]


@lowers("GroupNorm")
def _group_norm(graph: Builder, call: Call) -> list[str | None]:
    """Composed, because opset 19 scales groups only."""
    x, groups, weight, bias, epsilon = call.inputs
    grouped = graph.reshape(graph.name(x), (0, groups, -1))
    ones, zeros = (
        graph.add("Expand", graph.number(value, x.dtype), graph.ints([groups])) for value in (1, 0)
    )
    normal = graph.add("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    output = graph.add("Reshape", normal, graph.add("Shape", graph.name(x)))
    rest = (-1, *(1,) * (len(x.shape) - 2))
    for operator, parameter in (("Mul", weight), ("Add", bias)):
        if parameter is not None:
            output = graph.add(operator, output, graph.reshape(graph.name(parameter), rest))
    return [output, None, None]


@lowers("InstanceNorm")
def _instance_norm(graph: Builder, call: Call) -> list[str | None]:
    inputs = map(graph.name, call.inputs[:3])
    epsilon = call.attributes["epsilon"]
    return [graph.add("InstanceNormalization", *inputs, epsilon=epsilon), None, None]


@lowers("LayerNorm")
def _layer_norm(graph: Builder, call: Call) -> list[str | None]:
    x, weight, bias = call.inputs[:3]
    axis, of_parameters, epsilon = call.inputs[3:] or (
        call.attributes["begin_norm_axis"],
        call.attributes["begin_params_axis"],
        call.attributes["epsilon"],
    )
    rank = len(x.shape)
    if from_front(axis, rank) != from_front(of_parameters, rank):
        raise Unsupported("a layer norm with begin_params_axis=begin_norm_axis")
    return _layer_normalization(graph, (x, weight, bias), axis, epsilon)


@lowers("LayerNormExt")
def _layer_norm_by_shape(graph: Builder, call: Call) -> list[str | None]:
    x, shape, weight, bias, epsilon = call.inputs
    if weight is None:
        raise Unsupported("a layer norm with weight and bias")
    return _layer_normalization(graph, (x, weight, bias), -len(numbers(shape)), epsilon)


def _layer_normalization(
    graph: Builder, tensors: tuple[object, ...], axis: int, epsilon: float
) -> list[str | None]:
    inputs = [graph.name(tensor) for tensor in tensors if tensor is not None]
    normal = graph.add("LayerNormalization", *inputs, axis=axis, epsilon=epsilon)
    return [normal, None, None]
