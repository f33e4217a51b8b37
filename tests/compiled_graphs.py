# SPDX-License-Identifier: Apache-2.0
"""What a compiled graph holds: the nodes of a MindIR file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import mindspore as ms
from mindspore import nn
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto

Shape = tuple[int, ...]
_INTEGERS = (AttributeProto.INT64, AttributeProto.INT32, AttributeProto.BOOL)


class Node(NamedTuple):
    operator: str
    attributes: dict[str, int]  # those that are one integer
    inputs: list[Shape | None]  # None for what is no tensor


def compiled_nodes(net: nn.Cell, *inputs: ms.Tensor) -> list[Node]:
    """The nodes of the graph that a call of the network compiles."""
    ms.export(net, *inputs, file_name="compiled", file_format="MINDIR")
    return nodes_of("compiled.mindir")


def nodes_of(path: str | Path) -> list[Node]:
    model = ModelProto()
    model.ParseFromString(Path(path).read_bytes())
    primitives = {
        primitive.name: (
            primitive.op_type,
            {a.name: a.i for a in primitive.attribute if a.type in _INTEGERS},
        )
        for primitive in model.primitives
    }
    graph = model.graph
    shapes = {item.name: tuple(item.tensor[0].dims) for item in graph.input if item.tensor}
    shapes.update({item.name: tuple(item.dims) for item in graph.parameter})
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "shape" and attribute.type == AttributeProto.TENSORS:
                shapes[node.output[0]] = tuple(attribute.tensors[0].dims)
    return [
        Node(*primitives[node.op_type.partition("REF::")[2]], [*map(shapes.get, node.input)])
        for node in graph.node
        if node.op_type.startswith("REF::")
    ]
