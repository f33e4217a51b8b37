# SPDX-License-Identifier: Apache-2.0
"""Files whose inputs have free sizes. Needs the package onnx.

MindSpore's graph of one size says nothing of others: a 64 in it may be a number of channels, or the
height of the image. The network is therefore compiled at several sizes, each translated by itself.
The graphs have the same nodes; a constant that differs is written as what it is at all of the
sizes: the size of a tensor, or what follows from one. What differs in another way is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations_with_replacement, count, zip_longest
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from mindspore import Tensor, ops
from onnx import TensorProto, helper, numpy_helper

from ms_deform.export.translation import CannotTranslate, Refused, Translation

Sizes = tuple[int, ...]  # one for each trace
_FROM_SIZES = "what follows from the size of a tensor in the same way at all sizes"
_LEAVE_OUT = "a layer that does not depend on the size, or leave the axis out of dynamic_axes"
_MOST_PARTS = 64


class FreeAxes:
    """The axes of inputs whose sizes are free: names by axes, by the names of the inputs.

    Raises:
        ValueError: If there is no such input or axis.
    """

    def __init__(
        self,
        names: Sequence[str],
        inputs: Sequence[Tensor],
        axes: Mapping[str, Mapping[int, str]],
    ) -> None:
        self._names = tuple(names)
        self._inputs = tuple(inputs)
        self._axes = {name: dict(axes.get(name, {})) for name in names}
        self._check(axes)
        self.sizes = {}  # of the named axes in the inputs that were given
        for name, tensor in zip(names, inputs):
            for axis, title in self._axes[name].items():
                if self.sizes.setdefault(title, tensor.shape[axis]) != tensor.shape[axis]:
                    raise ValueError(
                        f"export_onnx: axes of one name in 'dynamic_axes' must have one size, got "
                        f"{self.sizes[title]} and {tensor.shape[axis]} for {title!r}"
                    )

    def _check(self, asked: Mapping[str, Mapping[int, str]]) -> None:
        ranks = {name: len(tensor.shape) for name, tensor in zip(self._names, self._inputs)}
        for name, axes in asked.items():
            if name not in ranks:
                raise ValueError(
                    f"export_onnx: 'dynamic_axes' must name inputs, which are {', '.join(ranks)}, "
                    f"got {name!r}"
                )
            for axis, title in axes.items():
                if axis not in range(ranks[name]) or not isinstance(title, str):
                    raise ValueError(
                        f"export_onnx: 'dynamic_axes' must have, for {name}, names for axes from 0 "
                        f'to {ranks[name] - 1}, such as {{0: "batch"}}, got {{{axis!r}: {title!r}}}'
                    )

    def multiples(self, which: int) -> dict[str, int]:
        """By other factors for each axis, so that no axis is taken for another."""
        return {
            title: size * _FACTORS[i % len(_FACTORS)][which]
            for i, (title, size) in enumerate(self.sizes.items())
        }

    def beside_multiples(self, which: int) -> dict[str, int]:
        """Larger sizes that leave another rest in strides of 2 and 3, or of 4 and 3."""
        return {
            title: size + _distance(multiple - size, which + 1)
            for (title, size), multiple in zip(self.sizes.items(), self.multiples(which).values())
        }

    def inputs(self, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """Inputs of these sizes; their values do not matter."""
        return tuple(
            ops.zeros(
                tuple(
                    sizes[self._axes[name][axis]] if axis in self._axes[name] else size
                    for axis, size in enumerate(tensor.shape)
                ),
                tensor.dtype,
            )
            for name, tensor in zip(self._names, self._inputs)
        )


def _distance(least: int, unit: int) -> int:
    """The least multiple of the unit, from here on, by a number without the factors 2 and 3."""
    return next(i for i in count(least) if i % unit == 0 and math.gcd(i // unit, 6) == 1)


# Of each axis, in two traces: at least 2, so that what is left after all strides differs, too.
_FACTORS = ((2, 3), (3, 2), (2, 5), (5, 2), (3, 4), (4, 3))


def translate_for_all_sizes(
    free: FreeAxes, translate: Callable[[tuple[Tensor, ...]], Translation]
) -> Translation:
    """The translation for all sizes of the axes.

    Raises:
        CannotTranslate: If something depends on a size in a way that the file cannot hold.
    """
    traces = [(free.sizes, translate(free.inputs(free.sizes)))]
    for sizes in map(free.beside_multiples, range(2)):
        with suppress(Exception), _unheard():  # what a network raises at sizes it does not take
            traces.append((sizes, translate(free.inputs(sizes))))
    for sizes in map(free.multiples, range(2 if len(traces) < 3 else 0)):
        try:
            traces.append((sizes, translate(free.inputs(sizes))))
        except CannotTranslate:
            raise
        except Exception as error:
            listed = ", ".join(f"{title} = {size}" for title, size in sizes.items())
            reason = str(error).strip().partition("\n")[0]
            what = f"it does not compile with {listed}: {reason}"
            raise CannotTranslate([Refused("", what, _LEAVE_OUT)]) from None
    return traces[0][1]._replace(graph=_Merger(free, *zip(*traces)).graph())


@contextmanager
def _unheard() -> Iterator[None]:
    """Without what MindSpore prints and writes into the folder where an error is no news."""
    before = os.environ.get("MS_OM_PATH")
    printed = os.dup(2)
    try:
        with TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            os.environ["MS_OM_PATH"] = folder
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(printed, 2)
        os.close(printed)
        os.environ.pop("MS_OM_PATH")
        if before is not None:
            os.environ["MS_OM_PATH"] = before


class _Merger:
    """One graph of those of several sizes."""

    def __init__(
        self, free: FreeAxes, sizes: Sequence[Mapping[str, int]], traces: Sequence[Translation]
    ) -> None:
        self._titles = {tuple(each[title] for each in sizes): title for title in free.sizes}
        self._traces = traces
        self._graph = traces[0].graph
        self._constants = [
            {tensor.name: tensor for tensor in trace.graph.initializer} for trace in traces
        ]
        self._nodes: list[onnx.NodeProto] = []
        self._added: dict[str, onnx.TensorProto] = {}
        self._count = count()
        self._refused: list[Refused] = []
        # Of what has been computed: where sizes that differ between the traces are found.
        self._known: dict[Sizes, tuple[str, int]] = {}

    def graph(self) -> onnx.GraphProto:
        self._check_sources()
        for item in self._graph.input:
            self._know(item.name)
        calls = [self._by_call(trace) for trace in self._traces]
        broken = set()
        for call, nodes in calls[0].items():
            others = [each.get(call, []) for each in calls[1:]]
            if all(self._is_same(nodes, other, broken) for other in others):
                for same in zip(nodes, *others):
                    self._merge(call, same)
            else:
                broken.add(call)
                self._refuse(call, "what computes it depends on the size", _LEAVE_OUT)
        if self._refused:
            raise CannotTranslate(self._refused)
        return self._whole()

    def _check_sources(self) -> None:
        """That MindSpore's graphs have the same primitives."""
        for nodes in zip_longest(*(trace.source for trace in self._traces)):
            if len({node and node.primitive for node in nodes}) > 1:
                layer = next(node.layer for node in nodes if node)
                what = "it has another graph at another size"
                raise CannotTranslate([Refused(layer, what, _LEAVE_OUT)])

    @staticmethod
    def _by_call(trace: Translation) -> dict[int, list[onnx.NodeProto]]:
        calls = {}
        for node in trace.graph.node:
            calls.setdefault(trace.calls[node.name], []).append(node)
        return calls

    def _is_same(
        self, nodes: list[onnx.NodeProto], others: list[onnx.NodeProto], broken: set[int]
    ) -> bool:
        """Whether they are the same nodes, but for what they take from broken calls."""
        calls = self._traces[0].calls
        return len(nodes) == len(others) and all(
            node.op_type == other.op_type
            and len(node.input) == len(other.input)
            and all(
                name == theirs or calls.get(name) in broken
                for name, theirs in zip(node.input, other.input)
            )
            for node, other in zip(nodes, others)
        )

    def _refuse(self, call: int, why: str, mend: str) -> None:
        source = self._traces[0].source
        layer, what = "", "an output"
        if call < len(source):
            layer, what = source[call].layer, f"the primitive {source[call].primitive}"
        self._refused.append(Refused(layer, f"{what}: {why}", mend))

    def _merge(self, call: int, nodes: tuple[onnx.NodeProto, ...]) -> None:
        """Adds the node that stands for those of all traces."""
        node = nodes[0]
        if any(other.attribute != node.attribute for other in nodes):
            self._refuse(call, f"attributes of its {node.op_type} depend on the size", _LEAVE_OUT)
        merged = onnx.NodeProto()
        merged.CopyFrom(node)
        for i, name in enumerate(node.input):
            if not self._is_fixed(name):
                expressed = self._expressed(node.op_type, name)
                if expressed is None:
                    self._refuse(
                        call, f"a constant of its {node.op_type} depends on the size", _FROM_SIZES
                    )
                else:
                    merged.input[i] = expressed
        self._nodes.append(merged)
        for name in node.output:
            self._know(name)

    def _whole(self) -> onnx.GraphProto:
        graph = onnx.GraphProto()
        graph.CopyFrom(self._graph)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        constants = {**self._constants[0], **self._added}
        graph.initializer.extend(item for name, item in constants.items() if name in used)
        for items in (graph.input, graph.output):
            for item in items:
                for axis, dimension in enumerate(item.type.tensor_type.shape.dim):
                    sizes = tuple(trace.shapes[item.name][axis] for trace in self._traces)
                    if len(set(sizes)) > 1:
                        dimension.Clear()
                        dimension.dim_param = self._titles.get(sizes, "")
        return graph

    def _know(self, name: str) -> None:
        """That a tensor is computed, so that its sizes can be used from now on."""
        shapes = [trace.shapes.get(name) for trace in self._traces]
        if None in shapes:
            return
        for axis, sizes in enumerate(zip(*shapes)):
            if len(set(sizes)) > 1:
                self._known.setdefault(sizes, (name, axis))

    def _is_fixed(self, name: str) -> bool:
        """Whether it is no constant, or the same one at all sizes."""
        first, *others = (constants.get(name) for constants in self._constants)
        return all(other == first for other in others)

    def _expressed(self, operator: str, name: str) -> str | None:
        """The name of what computes a constant that differs; None if it is not known how."""
        arrays = [numpy_helper.to_array(constants[name]) for constants in self._constants]
        first, shapes = arrays[0], [array.shape for array in arrays]
        dtype = self._constants[0][name].data_type
        if len(set(shapes)) == 1:
            if dtype == TensorProto.INT64 and first.ndim == 1:
                return self._vector(
                    [*zip(*(array.tolist() for array in arrays))], operator == "Reshape"
                )
            return (
                self._scalar([array.item() for array in arrays], first) if first.size == 1 else None
            )
        if len(set(map(len, shapes))) > 1:
            return None
        if first.ndim == 1 and all(
            np.array_equal(array, np.arange(array.size)) for array in arrays
        ):
            end = self._size(tuple(array.size for array in arrays))
            if end is None:
                return None
            end = self._add("Squeeze", end, self._ints(0))
            positions = self._add("Range", self._constant(0), end, self._constant(1))
            return self._add("Cast", positions, to=dtype)
        if all((array == first.flat[0]).all() for array in arrays):
            shape = self._vector([*zip(*shapes)], False)
            return shape and self._add("Expand", self._constant(first.flat[0]), shape)
        return None

    def _vector(self, items: list[Sizes], may_infer: bool) -> str | None:
        """A vector of sizes; `may_infer`: one of them may be -1, as in a Reshape."""
        differ = [i for i, sizes in enumerate(items) if len(set(sizes)) > 1]
        may_infer = may_infer and all(-1 not in sizes for sizes in items)
        names = [self._ints(sizes[0]) if i not in differ else None for i, sizes in enumerate(items)]
        for i in differ:
            if may_infer and len(differ) == 1:
                names[i] = self._ints(-1)
                break
            names[i] = self._size(items[i])
            if names[i] is None:
                if not may_infer:
                    return None
                names[i], may_infer = self._ints(-1), False
        return names[0] if len(names) == 1 else self._add("Concat", *names, axis=0)

    def _scalar(self, values: list[float], like: np.ndarray) -> str | None:
        """A number: n, n / 2, 1 / n or 2 / n of a size n."""
        for numerator, divisor in ((None, 1), (None, 2), (1, None), (2, None)):
            if numerator is not None and 0 in values:
                continue
            wholes = [value * divisor if divisor else numerator / value for value in values]
            sizes = tuple(map(round, wholes))
            back = [size / divisor if divisor else numerator / size for size in sizes if size]
            if [*np.array(back).astype(like.dtype)] != [*np.array(values).astype(like.dtype)]:
                continue
            size = self._size(sizes)
            if size is None:
                continue
            size = self._add("Cast", size, to=helper.np_dtype_to_tensor_dtype(like.dtype))
            size = self._add("Reshape", size, self._ints(*like.shape))
            if divisor == 1:
                return size
            other = self._constant(np.array(numerator or divisor, like.dtype))
            return self._add("Div", *((other, size) if numerator else (size, other)))
        return None

    def _size(self, sizes: Sizes) -> str | None:
        """The name of a vector of one size, as far as it follows from known ones."""
        if sizes in self._known:
            return self._shape_of(sizes)
        for known in self._known:
            factor = sizes[0] // known[0] if known[0] else 0
            if factor > 1 and all(size == factor * of for size, of in zip(sizes, known)):
                return self._add("Mul", self._shape_of(known), self._ints(factor))
        for known in self._known:
            for parts in range(2, _MOST_PARTS + 1):
                for added in (0, parts - 1):  # rounded down or up
                    if all(size == (of + added) // parts for size, of in zip(sizes, known)):
                        whole = self._add("Add", self._shape_of(known), self._ints(added))
                        return self._add("Div", whole, self._ints(parts))
        for known in self._known:
            if len({size - of for size, of in zip(sizes, known)}) == 1:
                added = self._ints(sizes[0] - known[0])
                return self._add("Add", self._shape_of(known), added)
        for pair in combinations_with_replacement(self._known, 2):
            factor = sizes[0] // max(1, pair[0][0] * pair[1][0])
            if factor and all(size == factor * a * b for size, a, b in zip(sizes, *pair)):
                area = self._add("Mul", *map(self._shape_of, pair))
                return self._add("Mul", area, self._ints(factor))
        return None

    def _shape_of(self, sizes: Sizes) -> str:
        name, axis = self._known[sizes]
        return self._add("Shape", name, start=axis, end=axis + 1)

    def _add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"size_{next(self._count)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def _ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, array: np.ndarray) -> str:
        name = f"size_{next(self._count)}"
        self._added[name] = numpy_helper.from_array(np.asarray(array), name)
        return name
