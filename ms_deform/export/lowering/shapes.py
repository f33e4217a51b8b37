# SPDX-License-Identifier: Apache-2.0
"""Layout: reshaping, slicing, joining, padding and gathering.

Sizes of the input are named only where MindSpore's call names them, so that a file whose sizes are
free depends on as few of them as it can.
"""

from __future__ import annotations

from onnx import TensorProto

from ms_deform.export.lowering.interface import (
    END,
    Builder,
    Call,
    Unsupported,
    from_front,
    lowers,
    number,
    numbers,
    tensor_type,
)


@lowers("Reshape", "View")
def _reshape(graph: Builder, call: Call) -> str:
    x, shape = call.inputs
    return graph.reshape(graph.name(x), numbers(shape))


@lowers("Flatten")
def _flatten(graph: Builder, call: Call) -> str:
    return graph.add("Flatten", graph.name(call.inputs[0]), axis=1)


@lowers("ExpandDims", "ExpandDimsView")
def _expand_dims(graph: Builder, call: Call) -> str:
    x, axis = call.inputs
    return graph.add("Unsqueeze", graph.name(x), graph.ints(numbers(axis)))


@lowers("Squeeze")
def _squeeze(graph: Builder, call: Call) -> str:
    x = call.inputs[0]
    (axes,) = call.values("axis")
    axes = numbers(axes) or tuple(i for i, size in enumerate(x.shape) if size == 1)
    return graph.add("Squeeze", graph.name(x), graph.ints(axes))


@lowers("Transpose", "TransposeView")
def _transpose(graph: Builder, call: Call) -> str:
    x, axes = call.inputs
    axes = [from_front(axis, len(x.shape)) for axis in numbers(axes)]
    return graph.add("Transpose", graph.name(x), perm=axes)


@lowers("Concat")
def _concat(graph: Builder, call: Call) -> str:
    tensors, axis = call.inputs
    return graph.add("Concat", *map(graph.name, tensors), axis=int(number(axis)))


@lowers("Stack", "StackExt")
def _stack(graph: Builder, call: Call) -> str:
    tensors = call.inputs[0]
    (axis,) = call.values("axis")
    axes = graph.ints(numbers(axis))
    single = (graph.add("Unsqueeze", graph.name(tensor), axes) for tensor in tensors)
    return graph.add("Concat", *single, axis=int(number(axis)))


@lowers("Unstack")
def _unstack(graph: Builder, call: Call) -> list[str]:
    axis = call.attributes["axis"]
    parts = _split(graph, graph.name(call.inputs[0]), axis, len(call.type))
    return [graph.add("Squeeze", part, graph.ints([axis])) for part in parts]


@lowers("Split")
def _split_evenly(graph: Builder, call: Call) -> list[str]:
    x, axis = call.inputs[0], call.values("axis", "output_num")[0]
    return _split(graph, graph.name(x), int(number(axis)), len(call.type))


def _split(graph: Builder, x: str, axis: int, count: int) -> list[str]:
    if count == 1:
        return [graph.add("Identity", x)]
    return graph.add("Split", x, outputs=count, axis=axis, num_outputs=count)


@lowers("StridedSlice")
def _strided_slice(graph: Builder, call: Call) -> str:
    x, *given = call.inputs
    begins, ends, steps = map(numbers, given[:3])
    masks = given[3:] or [call.attributes[f"{name}_mask"] for name in _MASKS]
    begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_mask = map(number, masks)
    slices, new_axes, dropped = [], [], []
    axis = position = 0  # of the input, and of the output before axes are dropped
    for i, (begin, end, step) in enumerate(zip(begins, ends, steps)):
        bit = 1 << i
        if bit & ellipsis_mask:
            taken = sum(not bit_of(j, new_axis_mask) for j in range(i + 1, len(begins)))
            position += len(x.shape) - taken - axis
            axis = len(x.shape) - taken
            continue
        if bit & new_axis_mask:
            new_axes.append(position)
            position += 1
            continue
        if bit & shrink_mask:
            # The end that is given may wrap round: of -1 it is 0.
            slices.append((axis, begin, END if begin == -1 else begin + 1, 1))
            dropped.append(position)
        else:
            begin = (END if step < 0 else 0) if bit & begin_mask else begin
            end = (-END if step < 0 else END) if bit & end_mask else end
            if (begin, step) != (0, 1) or end not in (END, x.shape[axis]):
                slices.append((axis, begin, end, step))
        axis += 1
        position += 1
    name = graph.name(x)
    if slices:
        axes, starts, stops, strides = map(graph.ints, zip(*slices))
        name = graph.add("Slice", name, starts, stops, axes, strides)
    if new_axes:
        name = graph.add("Unsqueeze", name, graph.ints(new_axes))
    return graph.add("Squeeze", name, graph.ints(dropped)) if dropped else name


_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


def bit_of(index: int, mask: int) -> bool:
    return bool(mask >> index & 1)


@lowers("Slice")
def _slice(graph: Builder, call: Call) -> str:
    x, begins, sizes = call.inputs
    slices = [
        (axis, begin, END if size == -1 else begin + size)
        for axis, (begin, size) in enumerate(zip(numbers(begins), numbers(sizes)))
        if begin != 0 or size not in (-1, x.shape[axis])
    ]
    if not slices:
        return graph.name(x)
    axes, starts, stops = map(graph.ints, zip(*slices))
    return graph.add("Slice", graph.name(x), starts, stops, axes)


@lowers("ReverseV2")
def _reverse(graph: Builder, call: Call) -> str:
    (axes,) = call.values("axis")
    axes = numbers(axes)
    starts, ends, steps = ([value] * len(axes) for value in (-1, -END, -1))
    bounds = map(graph.ints, (starts, ends, axes, steps))
    return graph.add("Slice", graph.name(call.inputs[0]), *bounds)


@lowers("Roll")
def _roll(graph: Builder, call: Call) -> str:
    x, shifts, axes = call.inputs
    name = graph.name(x)
    for shift, axis in zip(numbers(shifts), numbers(axes)):
        # Not by the axis's size, which may be free; a longer shift goes round by that.
        if abs(shift) > x.shape[axis]:
            raise Unsupported("a shift of at most the axis's size")
        if shift:
            parts = (graph.slice(name, axis, -shift, END), graph.slice(name, axis, 0, -shift))
            name = graph.add("Concat", *parts, axis=axis)
    return name


@lowers("Tile")
def _tile(graph: Builder, call: Call) -> str:
    x, repeats = call.inputs
    repeats = numbers(repeats)
    name, missing = graph.name(x), len(repeats) - len(x.shape)
    if missing > 0:
        name = graph.add("Unsqueeze", name, graph.ints(range(missing)))
    return graph.add("Tile", name, graph.ints((*(1,) * -missing, *repeats)))


@lowers("BroadcastTo", "BroadcastToView")
def _broadcast_to(graph: Builder, call: Call) -> str:
    x = call.inputs[0]
    (shape,) = call.values("shape")
    # 1 keeps a size, as -1 does in MindSpore.
    return graph.add("Expand", graph.name(x), graph.ints([abs(i) for i in numbers(shape)]))


_XY = 1  # MindSpore's number of that indexing


@lowers("Meshgrid")
def _meshgrid(graph: Builder, call: Call) -> list[str]:
    vectors, indexing = call.inputs
    order = list(range(len(vectors)))
    # "xy" swaps the first two axes of all that it gives.
    if number(indexing) == _XY:
        order[:2] = order[1::-1]
    shape = graph.ints(tensor_type(call.type).shape)
    grids = []
    for i, vector in enumerate(vectors):
        own = [1] * len(vectors)
        own[order[i]] = -1
        grids.append(graph.add("Expand", graph.reshape(graph.name(vector), own), shape))
    return grids


@lowers("LinSpace")
def _linspace(graph: Builder, call: Call) -> str:
    """Of its number as one constant, which may follow from a free size."""
    dtype = tensor_type(call.type).dtype
    start, stop = (graph.cast(item, dtype) for item in call.inputs[:2])
    count, zero, one = (
        graph.number(value, TensorProto.INT64) for value in (number(call.inputs[2]), 0, 1)
    )
    positions = graph.add("Cast", graph.add("Range", zero, count, one), to=dtype)
    parts = graph.add("Cast", graph.add("Max", graph.add("Sub", count, one), one), to=dtype)
    step = graph.add("Div", graph.add("Sub", stop, start), parts)
    return graph.add("Add", start, graph.add("Mul", positions, step))


@lowers("Gather")
def _gather(graph: Builder, call: Call) -> str:
    x, indices, axis = call.inputs[:3]
    if any(numbers(call.inputs[3:4])) or call.attributes.get("batch_dims"):
        raise Unsupported("ops.gather without batch_dims, or ops.gather_elements")
    return graph.add("Gather", graph.name(x), graph.name(indices), axis=int(number(axis)))


@lowers("GatherD")
def _gather_elements(graph: Builder, call: Call) -> str:
    x, axis, indices = call.inputs
    return graph.add("GatherElements", graph.name(x), graph.name(indices), axis=number(axis))


@lowers("GatherNd")
def _gather_nd(graph: Builder, call: Call) -> str:
    x, indices = call.inputs
    return graph.add("GatherND", graph.name(x), graph.cast(indices, TensorProto.INT64))


@lowers("Pad")
def _pad(graph: Builder, call: Call) -> str:
    begins, ends = zip(*call.attributes["paddings"])
    return _padded(graph, call, begins, ends)


@lowers("PadV3")
def _pad_last_axes(graph: Builder, call: Call) -> str:
    """Its paddings are those of the last axes, the last axis first, as PyTorch's are."""
    x, paddings, value = call.inputs
    paddings, rank = numbers(paddings), len(x.shape)
    half = len(paddings) // 2
    pairs = zip(paddings[::2], paddings[1::2])
    if not call.attributes["paddings_contiguous"]:
        pairs = zip(paddings[:half], paddings[half:])
    kept = ((0, 0),) * (rank - half)
    begins, ends = zip(*kept, *reversed(tuple(pairs)))
    modes = {"circular": "wrap"}
    mode = call.attributes["mode"]
    return _padded(graph, call, begins, ends, modes.get(mode, mode), value)


@lowers("MirrorPad")
def _mirror_pad(graph: Builder, call: Call) -> str:
    if call.attributes["mode"] != "REFLECT":
        raise Unsupported("the mode REFLECT")
    paddings = numbers(call.inputs[1])
    return _padded(graph, call, paddings[::2], paddings[1::2], "reflect")


def _padded(
    graph: Builder,
    call: Call,
    begins: tuple[int, ...],
    ends: tuple[int, ...],
    mode: str = "constant",
    value: object = None,
) -> str:
    inputs = [graph.name(call.inputs[0]), graph.ints((*begins, *ends))]
    if value is not None:
        inputs.append(graph.cast(value, tensor_type(call.type).dtype))
    return graph.add("Pad", *inputs, mode=mode)


@lowers("DepthToSpace")
def _depth_to_space(graph: Builder, call: Call) -> str:
    size = call.attributes["block_size"]
    return graph.add("DepthToSpace", graph.name(call.inputs[0]), blocksize=size, mode="DCR")


@lowers("SpaceToDepth")
def _space_to_depth(graph: Builder, call: Call) -> str:
    size = call.attributes["block_size"]
    return graph.add("SpaceToDepth", graph.name(call.inputs[0]), blocksize=size)
