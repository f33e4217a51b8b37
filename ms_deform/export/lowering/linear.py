# SPDX-License-Identifier: Apache-2.0
"""Convolutions, the deformable one among them, and products of matrices."""

from __future__ import annotations

from mindspore import dtype as mstype
from onnx import TensorProto

from ms_deform.backends.aot import FORWARD_NAME
from ms_deform.export.lowering.interface import (
    Builder,
    Call,
    Unsupported,
    check_layout,
    lowers,
    tensor_type,
)
from ms_deform.geometry import TensorInfo, check_geometry

_DTYPES = {
    TensorProto.FLOAT: mstype.float32,
    TensorProto.DOUBLE: mstype.float64,
    TensorProto.FLOAT16: mstype.float16,
    TensorProto.BFLOAT16: mstype.bfloat16,
}


@lowers("Custom")
def _deform_conv(graph: Builder, call: Call) -> str:
    """Both layouts of offsets are [N, offset group, tap, (y, x)], and those of masks alike."""
    attributes = call.attributes
    name = attributes.get("reg_op_name")
    if name != FORWARD_NAME:
        raise Unsupported(f"MindSpore's own operators instead of ops.Custom {name or ''}".strip())
    input, offset, mask, weight, bias = call.inputs
    mask = mask if attributes["use_mask"] else None
    bias = bias if attributes["use_bias"] else None
    infos = (
        tensor and TensorInfo(tensor.shape, _DTYPES[tensor.dtype])
        for tensor in (input, offset, mask, weight, bias)
    )
    constants = (attributes["stride"], attributes["padding"], attributes["dilation"])
    geometry = check_geometry(*infos, constants)
    top, bottom, left, right = geometry.attributes.padding
    inputs = [
        graph.name(tensor) if tensor else "" for tensor in (input, weight, offset, bias, mask)
    ]
    while not inputs[-1]:
        inputs.pop()
    return graph.add(
        "DeformConv",
        *inputs,
        strides=geometry.attributes.stride,
        pads=(top, left, bottom, right),
        dilations=geometry.attributes.dilation,
        kernel_shape=geometry.kernel_size,
        group=geometry.groups,
        offset_group=geometry.offset_groups,
    )


@lowers("Conv2D")
def _conv2d(graph: Builder, call: Call) -> str:
    input, weight = map(graph.name, call.inputs[:2])
    attributes = call.attributes
    check_layout(attributes.get("format"))
    own = _convolution(attributes)
    if attributes["pad_mode"].lower() == "same" and set(own["dilations"]) == {1}:
        # For all sizes; onnxruntime does not take it with a dilation.
        return graph.add("Conv", input, weight, auto_pad="SAME_UPPER", **own)
    return graph.add("Conv", input, weight, pads=_pads(attributes["pad_list"]), **own)


@lowers("Conv2DTranspose", "Conv2DBackpropInput")
def _conv2d_transpose(graph: Builder, call: Call) -> str:
    input, weight = call.inputs[:2]
    attributes = call.attributes
    check_layout(attributes.get("format"))
    own = _convolution(attributes)
    pads = (0,) * 4
    if attributes["pad_mode"].lower() != "valid":
        pads = _pads(attributes["pad_list"])
    # What ONNX has to add at the end to come to MindSpore's size.
    extra = [
        out - (size - 1) * stride - dilation * (kernel - 1) - 1 + begin + end
        for out, size, stride, dilation, kernel, begin, end in zip(
            tensor_type(call.type).shape[2:],
            input.shape[2:],
            own["strides"],
            own["dilations"],
            own["kernel_shape"],
            pads[:2],
            pads[2:],
        )
    ]
    return graph.add(
        "ConvTranspose",
        graph.name(input),
        graph.name(weight),
        pads=pads,
        output_padding=extra,
        **own,
    )


def _convolution(attributes: dict[str, object]) -> dict[str, object]:
    return {
        "strides": attributes["stride"][-2:],
        "dilations": attributes["dilation"][-2:],
        "kernel_shape": attributes["kernel_size"],
        "group": attributes["group"],
    }


def _pads(sides: tuple[int, ...]) -> tuple[int, ...]:
    """ONNX has all begins first."""
    top, bottom, left, right = sides
    return (top, left, bottom, right)


@lowers("MatMul", "BatchMatMul", "MatMulExt", "BatchMatMulExt")
def _matmul(graph: Builder, call: Call) -> str:
    a, b = call.inputs[:2]
    flags = call.inputs[2:4]
    if "transpose_a" in call.attributes:
        flags = (call.attributes["transpose_a"], call.attributes["transpose_b"])
    names = [graph.name(a), graph.name(b)]
    for i, (tensor, transposed) in enumerate(zip((a, b), flags)):
        if transposed:
            axes = list(range(len(tensor.shape)))
            axes[-2:] = axes[:-3:-1]
            names[i] = graph.add("Transpose", names[i], perm=axes)
    return graph.add("MatMul", *names)


@lowers("Dense")
def _dense(graph: Builder, call: Call) -> str:
    x, weight, bias = call.inputs
    transposed = graph.add("Transpose", graph.name(weight), perm=(1, 0))
    product = graph.add("MatMul", graph.name(x), transposed)
    return product if bias is None else graph.add("Add", product, graph.name(bias))


@lowers("Einsum")
def _einsum(graph: Builder, call: Call) -> str:
    equation = call.attributes["equation"]
    return graph.add("Einsum", *map(graph.name, call.inputs[0]), equation=equation)
