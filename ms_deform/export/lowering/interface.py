# SPDX-License-Identifier: Apache-2.0
"""What a lowering is: it adds the nodes of ONNX that compute one primitive of MindSpore."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple, Optional, Union

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ms_deform.export.tracing import Constant, TensorType, Type

END = np.iinfo(np.int64).max  # as the end of a slice
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Unsupported(Exception):
    """The file cannot hold a node; the text is what to write instead."""


class Tensor(NamedTuple):
    """A tensor that the file computes, or takes."""

    name: str | None  # None: an output that its lowering does not compute
    shape: tuple[int, ...]
    dtype: int


class Call(NamedTuple):
    """A node of MindSpore's graph whose inputs are known."""

    attributes: dict[str, object]
    inputs: tuple[object, ...]  # `Tensor`, `Constant`, numbers, strings, None, and tuples of them
    type: Type

    def values(self, *names: str) -> tuple[object, ...]:
        """What follows the first input: attributes of older primitives, inputs of newer ones."""
        if names[0] in self.attributes:
            return tuple(self.attributes.get(name) for name in names)
        return self.inputs[1 : len(names) + 1] + (None,) * (len(names) + 1 - len(self.inputs))


# The names of what the nodes give: one, or one for each output, None for one that they do not.
Result = Union[str, Sequence[Optional[str]]]
Lowering = Callable[["Builder", Call], Result]
LOWERINGS: dict[str, Lowering] = {}


def lowers(*primitives: str) -> Callable[[Lowering], Lowering]:
    """Puts a lowering into the table, under the names of the primitives that it is for."""

    def register(lowering: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(primitives, lowering))
        return lowering

    return register


class Builder:
    """Collects nodes and constants of an ONNX graph.

    Names are counted within each call, so that what is the same in two graphs has the same names.
    """

    def __init__(self, opset_version: int, free_sizes: bool) -> None:
        self.opset_version = opset_version
        self.free_sizes = free_sizes  # whether the nodes have to be right for other sizes, too
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.calls: dict[str, int] = {}  # of nodes, by their names: which call they belong to
        self.begin(0, "")

    def begin(self, call: int, layer: str) -> None:
        """What is added from now on belongs to this call, in this layer."""
        self._call, self._layer, self._count = call, layer, count()

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: object) -> Result:
        """Adds a node, and gives the name of its output, or a list of names."""
        name = self._next(f"{self._layer}/{operator}" if self._layer else operator)
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.calls.update(dict.fromkeys((name, *names), self._call))
        self.nodes.append(helper.make_node(operator, inputs, names, name, **attributes))
        return names[0] if outputs == 1 else names

    def rename(self, node: str, name: str) -> None:
        """Gives the node that was added last, and its output, a name of their own."""
        self.nodes[-1].name = self.nodes[-1].output[0] = name
        self.calls[name] = self.calls.pop(node)

    def constant(self, array: np.ndarray) -> str:
        return self._keep(numpy_helper.from_array(np.ascontiguousarray(array)))

    def ints(self, values: Sequence[int]) -> str:
        """A vector of int64, as sizes, axes and the like are."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, dtype: int) -> str:
        return self._keep(helper.make_tensor("", dtype, (), [value]))

    def _keep(self, tensor: onnx.TensorProto) -> str:
        tensor.name = self._next("constant")
        self.constants[tensor.name] = tensor
        return tensor.name

    def _next(self, what: str) -> str:
        return f"{what}_{self._call}_{next(self._count)}"

    def name(self, value: object) -> str:
        """The name of a tensor; a constant one is put into the graph."""
        if isinstance(value, Tensor):
            if value.name is None:
                raise Unsupported("only its first output can be computed by ONNX; use that alone")
            return value.name
        if isinstance(value, Constant):
            if value.dtype == TensorProto.BFLOAT16:
                flat = value.array.ravel()
                return self._keep(helper.make_tensor("", value.dtype, value.shape, flat))
            return self.constant(value.array)
        return self.number(value, dtype_of(value))

    def cast(self, value: object, dtype: int) -> str:
        """The name of a tensor or number in a dtype."""
        if isinstance(value, (bool, int, float)):
            return self.number(value, dtype)
        name = self.name(value)
        return name if value.dtype == dtype else self.add("Cast", name, to=dtype)

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", name, self.ints(shape))

    def slice(self, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
        return self.add("Slice", name, *(self.ints([i]) for i in (start, end, axis, step)))


def dtype_of(value: object) -> int:
    if isinstance(value, bool):
        return TensorProto.BOOL
    if isinstance(value, int):
        return TensorProto.INT64
    if isinstance(value, float):
        return TensorProto.FLOAT
    return value.dtype


def numbers(value: object) -> tuple[int, ...]:
    """Ints that the graph holds, whether as a number, a tuple or a tensor."""
    if isinstance(value, Constant):
        return tuple(value.array.ravel().tolist())
    items = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, (bool, int, float)) for item in items):
        raise Unsupported("its sizes, axes or indices must be known when the graph is compiled")
    return items


def number(value: object) -> float:
    return numbers(value)[0]


def check_layout(format: object) -> None:
    """Of a primitive's format, a name or MindSpore's number of it: ONNX has channels first."""
    if format not in (None, 0, "NCHW", "NCDHW"):
        raise Unsupported("channels first, with a transpose where it is needed")


def tensor_type(type: Type) -> TensorType:
    """The type of the first or only output."""
    return type if isinstance(type, TensorType) else type[0]


def from_front(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis
