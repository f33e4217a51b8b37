# SPDX-License-Identifier: Apache-2.0
"""Maxima and means over windows."""

from __future__ import annotations

from ms_deform.export.lowering.interface import (
    Builder,
    Call,
    Unsupported,
    check_layout,
    lowers,
    tensor_type,
)

# MindSpore's names and numbers of padding modes.
_AUTO_PAD = {"SAME": "SAME_UPPER", "VALID": "VALID", 1: "SAME_UPPER", 2: "VALID"}


@lowers("MaxPool")
def _max_pool(graph: Builder, call: Call) -> str:
    return _auto_padded(graph, call, "MaxPool")


@lowers("AvgPool")
def _average_pool(graph: Builder, call: Call) -> str:
    return _auto_padded(graph, call, "AveragePool")


def _auto_padded(graph: Builder, call: Call, operator: str) -> str:
    kernel, strides, mode, format = call.values("kernel_size", "strides", "pad_mode", "format")
    check_layout(format)
    return graph.add(
        operator,
        graph.name(call.inputs[0]),
        kernel_shape=kernel[-2:],
        strides=strides[-2:],
        auto_pad=_AUTO_PAD[mode],
    )


@lowers("MaxPoolWithArgmaxV2")
def _max_pool_2d(graph: Builder, call: Call) -> list[str | None]:
    attributes = call.attributes
    pads = attributes["pads"][-2:]
    return [_max_pool_padded(graph, call, attributes["kernel_size"], pads), None]


@lowers("MaxPool3DWithArgmax")
def _max_pool_3d(graph: Builder, call: Call) -> list[str | None]:
    attributes = call.attributes
    return [_max_pool_padded(graph, call, attributes["ksize"], attributes["pads"]), None]


def _max_pool_padded(
    graph: Builder, call: Call, kernel: tuple[int, ...], pads: tuple[int, ...]
) -> str:
    axes = len(pads)
    dilations = call.attributes["dilation"][-axes:]
    windows = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel[-axes:])]
    strides = call.attributes["strides"][-axes:]
    return graph.add(
        "MaxPool",
        graph.name(call.inputs[0]),
        kernel_shape=kernel[-axes:],
        strides=strides,
        dilations=dilations,
        pads=_pads(kernel[-axes:], pads, _ends(call, windows, strides, pads, pads)),
    )


def _pads(
    kernel: tuple[int, ...], begins: tuple[int, ...], ends: tuple[int, ...]
) -> tuple[int, ...]:
    if any(pad >= size for pad, size in zip((*begins, *ends), (*kernel, *kernel))):
        # onnxruntime loads no such file.
        raise Unsupported("a pooling without ceil_mode or without dilation")
    return (*begins, *ends)


def _ends(
    call: Call,
    windows: tuple[int, ...],
    strides: tuple[int, ...],
    begins: tuple[int, ...],
    ends: tuple[int, ...],
) -> list[int]:
    """The padding at the ends with which the last windows of MindSpore's output are whole.

    It is more than was asked for where sizes are rounded up; ONNX's ceil_mode would count windows
    by another rule.
    """
    sizes, outputs = call.inputs[0].shape[2:], tensor_type(call.type).shape[2:]
    return [
        max(end, (output - 1) * stride + window - size - begin)
        for output, stride, window, size, begin, end in zip(
            outputs, strides, windows, sizes, begins, ends
        )
    ]


@lowers("AvgPool3D")
def _average_pool_3d(graph: Builder, call: Call) -> str:
    attributes = call.attributes
    if attributes["divisor_override"]:
        raise Unsupported("a pooling without divisor_override, times a number")
    kernel, strides = attributes["kernel_size"][-3:], attributes["strides"][-3:]
    begins, ends = attributes["pad_list"][::2], attributes["pad_list"][1::2]
    name = graph.name(call.inputs[0])
    last = _ends(call, kernel, strides, begins, ends)
    if attributes["count_include_pad"] and any((*begins, *ends)):
        # What is asked for counts, what comes to it does not.
        name = graph.add("Pad", name, graph.ints((0, 0, *begins, 0, 0, *ends)))
        last = [whole - asked for whole, asked in zip(last, ends)]
        begins = (0, 0, 0)
    pads = _pads(kernel, begins, last)
    return graph.add("AveragePool", name, kernel_shape=kernel, strides=strides, pads=pads)


@lowers("AdaptiveAvgPool2D")
def _adaptive_average_pool(graph: Builder, call: Call) -> str:
    return _adaptive(graph, call, "AveragePool", "ReduceMean")


@lowers("AdaptiveMaxPool2D")
def _adaptive_max_pool(graph: Builder, call: Call) -> list[str | None]:
    return [_adaptive(graph, call, "MaxPool", "ReduceMax"), None]


def _adaptive(graph: Builder, call: Call, pool: str, reduce: str) -> str:
    x = call.inputs[0]
    name = graph.name(x)
    sizes, outputs = x.shape[-2:], tensor_type(call.type).shape[-2:]
    if outputs == (1, 1):
        return graph.add(reduce, name, graph.ints((-2, -1)), keepdims=1)
    if len(x.shape) == 4 and not any(size % output for size, output in zip(sizes, outputs)):
        window = [size // output for size, output in zip(sizes, outputs)]
        return graph.add(pool, name, kernel_shape=window, strides=window)
    for axis, size, output in zip((-2, -1), sizes, outputs):
        # Of one window along an axis, in PyTorch's rounding.
        bounds = [(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]
        parts = [graph.slice(name, axis, *pair) for pair in bounds]
        parts = [graph.add(reduce, part, graph.ints([axis]), keepdims=1) for part in parts]
        name = graph.add("Concat", *parts, axis=axis)
    return name
