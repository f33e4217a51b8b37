# SPDX-License-Identifier: Apache-2.0
"""The graph of a network as MindSpore compiles it for inference, read from its MindIR.

MindIR holds all that another format needs: primitives with their attributes, constants, the names
of parameters, the shape and the dtype of every node, and the layer that each node belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Union

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, TensorProto

# What a condition or a loop on the values of tensors is made of: calls of functions of the graph.
CONTROL_FLOW = "control flow"
_SWITCHES = ("Switch", "SwitchLayer")
_REFERENCE = "REF::"
_BFLOAT16 = TensorProto.BFLOAT16
_NUMPY_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
}
_INTEGERS = (
    AttributeProto.UINT8,
    AttributeProto.INT8,
    AttributeProto.UINT16,
    AttributeProto.INT16,
    AttributeProto.INT32,
    AttributeProto.INT64,
    AttributeProto.UINT32,
    AttributeProto.UINT64,
)


class TensorType(NamedTuple):
    shape: tuple[int, ...]
    dtype: int  # MindIR numbers dtypes as ONNX does


class Constant(NamedTuple):
    """A tensor whose values the graph holds; those of bfloat16 as float32."""

    array: np.ndarray
    dtype: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


# None for what is no tensor; a tuple has one for each item.
Type = Union[TensorType, tuple, None]


class Node(NamedTuple):
    primitive: str
    attributes: dict[str, object]
    inputs: tuple[str, ...]
    output: str
    type: Type
    layer: str  # its name in the network, as its parameters have it; empty for the network itself


class Graph(NamedTuple):
    inputs: dict[str, TensorType]
    parameters: dict[str, TensorType]
    constants: dict[str, object]  # numbers, strings, None, `Constant`, and tuples of them
    nodes: tuple[Node, ...]  # each after those that it needs
    outputs: tuple[str, ...]


class _Fresh(nn.Cell):
    """A network that nothing was compiled for yet, and that takes what an error leaves behind."""

    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)  # parameters keep their names
        self.net = net

    def construct(self, *inputs: Tensor) -> object:
        return self.net(*inputs)


@contextmanager
def inference(net: nn.Cell) -> Iterator[None]:
    """The network as for inference; afterwards each of its cells is as it was."""
    before = [(cell, cell.training, cell.phase) for _, cell in net.cells_and_names()]
    net.set_train(False)
    try:
        yield
    finally:
        for cell, training, phase in before:
            cell.add_flags(training=training)
            cell.phase = phase


def trace(net: nn.Cell, inputs: tuple[Tensor, ...]) -> Graph:
    """The graph that a call of the network with these inputs compiles."""
    model = ModelProto()

    def take(exported: ModelProto) -> None:
        model.CopyFrom(exported)
        exported.Clear()  # so that no parameters are written

    jit_syntax_level = ms.get_context("jit_syntax_level")
    try:
        with TemporaryDirectory() as folder:
            file_name = str(Path(folder, "net"))
            fresh = _Fresh(net)
            ms.export(fresh, *inputs, file_name=file_name, file_format="MINDIR", custom_func=take)
    finally:
        # An error in ms.export leaves its own there, with which fewer networks compile.
        ms.set_context(jit_syntax_level=jit_syntax_level)
    return _read(model)


def _read(model: ModelProto) -> Graph:
    primitives = {
        primitive.name: (primitive.op_type, _attributes(primitive.attribute))
        for primitive in model.primitives
    }
    constants, nodes = {}, []
    # Of functions, and of what chooses between them: the layer that they belong to.
    layers = {
        function.name: next(filter(None, (_layer(node.domain) for node in function.node)), "")
        for function in model.functions
    }
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = _value(attributes["value"])
            continue
        name = node.op_type.partition(_REFERENCE)[2]
        primitive, own = primitives.get(name, (CONTROL_FLOW, {}))
        layer = _layer(node.domain)
        if primitive in _SWITCHES:
            primitive = CONTROL_FLOW
            layers[node.output[0]] = layer
        elif primitive == CONTROL_FLOW:
            layer = layers.get(name, layer)
        nodes.append(
            Node(
                primitive=primitive,
                attributes=own,
                inputs=tuple(node.input),
                output=node.output[0],
                type=_type(attributes["shape"]) if "shape" in attributes else None,
                layer=layer,
            )
        )
    return Graph(
        inputs={item.name: _tensor_type(item.tensor[0]) for item in model.graph.input},
        parameters={item.name: _tensor_type(item) for item in model.graph.parameter},
        constants=constants,
        nodes=tuple(nodes),
        outputs=tuple(item.name for item in model.graph.output),
    )


def parameter_name(name: str) -> str:
    """Of a parameter of the graph: its name in the network."""
    return name.rpartition(":")[2]


def _layer(scope: str) -> str:
    """Of "Default/net-Net/head-Sequential/0-Conv2d/Conv2D-op0", where net is ours: "head.0"."""
    cells = scope.split("/")[2:-1]
    return ".".join(cell.rpartition("-")[0] for cell in cells)


def _attributes(attributes: list[AttributeProto]) -> dict[str, object]:
    return {attribute.name: _value(attribute) for attribute in attributes}


def _value(attribute: AttributeProto) -> object:
    kind = attribute.type
    if kind in (AttributeProto.TUPLE, AttributeProto.LIST):
        return tuple(map(_value, attribute.values))
    if kind in (AttributeProto.TENSORS, AttributeProto.TENSOR):
        return _constant(attribute.tensors[0] if attribute.tensors else attribute.t)
    if kind == AttributeProto.BOOL:
        return bool(attribute.ints[0] if attribute.ints else attribute.i)
    if kind in _INTEGERS:
        return attribute.ints[0] if attribute.ints else attribute.i
    if kind == AttributeProto.FLOAT:
        return attribute.floats[0] if attribute.floats else attribute.f
    if kind == AttributeProto.DOUBLE:
        return attribute.doubles[0] if attribute.doubles else attribute.d
    if kind == AttributeProto.STRING:
        return (attribute.strings[0] if attribute.strings else attribute.s).decode()
    return None


def _constant(tensor: TensorProto) -> Constant:
    shape = tuple(tensor.dims)
    if tensor.data_type == _BFLOAT16:
        bits = np.frombuffer(tensor.raw_data, np.uint16).astype(np.uint32) << 16
        return Constant(bits.view(np.float32).reshape(shape), _BFLOAT16)
    shape, dtype = _tensor_type(tensor)
    return Constant(np.frombuffer(tensor.raw_data, _NUMPY_TYPES[dtype]).reshape(shape), dtype)


def _type(attribute: AttributeProto) -> Type:
    if attribute.type in (AttributeProto.TUPLE, AttributeProto.LIST):
        return tuple(map(_type, attribute.values))
    return _tensor_type(attribute.tensors[0]) if attribute.tensors else None


def _tensor_type(tensor: TensorProto) -> TensorType:
    dtype = tensor.data_type
    return TensorType(
        tuple(tensor.dims), TensorProto.DOUBLE if dtype == TensorProto.FLOAT64 else dtype
    )
