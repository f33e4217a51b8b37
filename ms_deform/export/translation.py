# SPDX-License-Identifier: Apache-2.0
"""A graph of MindSpore as one of ONNX. Needs the package onnx."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx
from mindspore import Parameter
from onnx import helper

from ms_deform.export.lowering import LOWERINGS, Builder, Call, Tensor, Unsupported
from ms_deform.export.tracing import CONTROL_FLOW, Graph, Node, TensorType, Type, parameter_name

# What to write instead of primitives that are not in the table.
_MENDS = {
    CONTROL_FLOW: "ops.select, or conditions and loops on what Python knows when it is compiled",
    "DeformableOffsets": "ms_deform.deformable_conv2d",
    "Im2Col": "ops.conv2d with a kernel of zeros and ones",
    "MaskedSelect": "ops.select with the mask",
    "NonZero": "ops.select with the condition",
    # Its weights come from a table of 1024, and its rule changed between 2.7 and 2.10.
    "ResizeBicubic": 'ops.interpolate with mode="bilinear"',
}
_MEND = "arithmetic, reductions, reshapes, slices and ops.select, or do it outside of the network"


class Refused(NamedTuple):
    """What the file cannot hold."""

    layer: str
    what: str
    mend: str  # what to write instead


class CannotTranslate(Exception):
    """All that the file cannot hold."""

    def __init__(self, refused: Iterable[Refused]) -> None:
        self.refused = list(dict.fromkeys(refused))
        super().__init__(self.refused)

    def __str__(self) -> str:
        return "\n".join(
            f"- {layer or 'the network itself'}: {what}; write instead: {mend}"
            for layer, what, mend in self.refused
        )


class Translation(NamedTuple):
    graph: onnx.GraphProto  # without the values of parameters
    parameters: dict[str, tuple[str, TensorType]]  # by their names here: those in the network
    shapes: dict[str, tuple[int, ...]]  # of its tensors, as far as MindSpore's graph has them
    source: tuple[Node, ...]  # the nodes of MindSpore's graph
    calls: dict[str, int]  # of its nodes and what they compute, by names: which of these it is for


def translate(
    graph: Graph, input_names: Sequence[str], opset_version: int, free_sizes: bool
) -> Translation:
    """The graph in ONNX.

    free_sizes: The nodes are to be the same at all sizes, for `free_sizes.translate_for_all_sizes`.

    Raises:
        CannotTranslate: If there is something in it that ONNX, or the table, does not have.
    """
    builder = Builder(opset_version, free_sizes)
    inputs = [Tensor(name, *type) for name, type in zip(input_names, graph.inputs.values())]
    values: dict[str, object] = {**graph.constants, **dict(zip(graph.inputs, inputs))}
    parameters = {}
    for own, type in graph.parameters.items():
        name = parameter_name(own)
        unique = f"{name}.value" if name in input_names else name
        parameters[unique] = (name, type)
        values[own] = Tensor(unique, *type)
    refused = []
    for call, node in enumerate(graph.nodes):
        builder.begin(call, node.layer)
        try:
            value = _value(builder, node, tuple(map(values.get, node.inputs)))
        except Unsupported as error:
            refused.append(Refused(node.layer, _what(node.primitive), str(error)))
            value = _tensors("", node.type)  # to see what else there is
        values[node.output] = value
    builder.begin(len(graph.nodes), "")
    try:
        outputs = _named_outputs(builder, tuple(values[name] for name in graph.outputs))
    except Unsupported as error:
        refused.append(Refused("", "an output", str(error)))
    if refused:
        raise CannotTranslate(refused)
    tensors = [leaf for leaf in _leaves(tuple(values.values())) if isinstance(leaf, Tensor)]
    nodes, used = _needed(builder.nodes, {tensor.name for tensor in outputs})
    proto = helper.make_graph(
        nodes,
        "network",
        *(
            [helper.make_tensor_value_info(name, dtype, shape) for name, shape, dtype in group]
            for group in (inputs, outputs)
        ),
        [item for item in builder.constants.values() if item.name in used],
    )
    shapes = {tensor.name: tensor.shape for tensor in (*tensors, *outputs)}
    return Translation(proto, parameters, shapes, graph.nodes, builder.calls)


def _what(primitive: str) -> str:
    if primitive == CONTROL_FLOW:
        return "a condition or loop on the values of tensors"
    return f"the primitive {primitive}"


def _value(builder: Builder, node: Node, inputs: tuple[object, ...]) -> object:
    """What a node gives: tensors of the ONNX graph, and constants and tuples as Python has them."""
    primitive = node.primitive
    if primitive in ("Load", "Depend"):
        return inputs[0]
    if primitive in ("UpdateState", "Partial"):  # for the order of effects, and for control flow
        return None
    if primitive in ("MakeTuple", "make_list", "MakeList"):
        return inputs
    if primitive in ("TupleGetItem", "list_getitem", "ListGetItem"):
        return inputs[0][inputs[1]]
    if primitive not in LOWERINGS:
        raise Unsupported(_MENDS.get(primitive, _MEND))
    call = Call(node.attributes, inputs, node.type)
    return _tensors(LOWERINGS[primitive](builder, call), node.type)


def _tensors(names: object, type: Type) -> object:
    if isinstance(type, TensorType):
        return Tensor(names if isinstance(names, str) else names[0], *type)
    if type is None:
        return None
    each = [names] * len(type) if isinstance(names, str) else names
    return tuple(
        Tensor(name, *item) if isinstance(item, TensorType) else _tensors(name, item)
        for name, item in zip(each, type)
    )


def _leaves(value: object) -> Iterator[object]:
    """The items of nested tuples that are no tuples; a tensor is a leaf."""
    if type(value) is not tuple:
        yield value
    else:
        for item in value:
            yield from _leaves(item)


def _named_outputs(builder: Builder, value: object) -> list[Tensor]:
    """The outputs, under names of their own: "output", or "output_0" and so on."""
    leaves = list(_leaves(value))
    names = ["output"] if len(leaves) == 1 else [f"output_{i}" for i in range(len(leaves))]
    for name, leaf in zip(names, leaves):
        builder.rename(builder.add("Identity", builder.name(leaf)), name)
    return [Tensor(name, leaf.shape, leaf.dtype) for name, leaf in zip(names, leaves)]


def _needed(
    nodes: list[onnx.NodeProto], outputs: set[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, and all names that these use."""
    used, needed = set(outputs), []
    for node in reversed(nodes):
        if used & set(node.output):
            used.update(node.input)
            needed.append(node)
    return needed[::-1], used


def add_parameters(translation: Translation, values: Mapping[str, Parameter]) -> onnx.GraphProto:
    """The graph, with the values of the parameters that it uses.

    Raises:
        CannotTranslate: If the network does not have them.
    """
    graph = translation.graph
    used = {name for node in graph.node for name in node.input}
    needed = {own: item for own, item in translation.parameters.items() if own in used}
    lost = [name for name, _ in needed.values() if name not in values]
    if lost:
        mend = "the cell that holds it, or the parameter, as an attribute of the network"
        raise CannotTranslate(Refused("", f"the parameter {name}", mend) for name in lost)
    for unique, (name, (shape, dtype)) in needed.items():
        data = values[name].data.get_bytes()
        graph.initializer.add(name=unique, dims=shape, data_type=dtype, raw_data=data)
    return graph
