# SPDX-License-Identifier: Apache-2.0
"""Resizing images, and sampling them at the positions of a grid."""

from __future__ import annotations

from onnx import TensorProto

from ms_deform.export.lowering.interface import (
    Builder,
    Call,
    Unsupported,
    lowers,
    number,
    numbers,
)

_GRID_MODES = ("bilinear", "nearest")
_GRID_PADDINGS = ("zeros", "border", "reflection")


@lowers("ResizeBilinearV2")
def _bilinear(graph: Builder, call: Call) -> str:
    x, size, align_corners, half_pixel = _arguments(call)
    return _resize(graph, x, size, "linear", _coordinates(align_corners, half_pixel))


@lowers("ResizeNearestNeighborV2")
def _nearest(graph: Builder, call: Call) -> str:
    x, size, align_corners, half_pixel = _arguments(call)
    if align_corners:
        raise Unsupported("the mode nearest without align_corners")
    sizes = x.shape[2:]
    if not graph.free_sizes and all(map(_is_exact, sizes, size)):
        rounding = "round_prefer_ceil" if half_pixel else "floor"
        coordinates = _coordinates(align_corners, half_pixel)
        return _resize(graph, x, size, "nearest", coordinates, nearest_mode=rounding)
    # By other factors a runtime may round a position to the pixel beside MindSpore's.
    name = graph.name(x)
    for axis, after in enumerate(size, start=2):
        pixels = _nearest_pixels(graph, graph.name(x), axis, after, 0.5 if half_pixel else 0)
        name = graph.add("Gather", name, pixels, axis=axis)
    return name


def _nearest_pixels(graph: Builder, x: str, axis: int, after: int, offset: float) -> str:
    """floor((i + offset) * (before / after)) in float32, for each i of an axis."""
    zero, one, count = (graph.number(value, TensorProto.INT64) for value in (0, 1, after))
    positions = graph.add("Cast", graph.add("Range", zero, count, one), to=TensorProto.FLOAT)
    positions = graph.add("Add", positions, graph.number(offset, TensorProto.FLOAT))
    before = graph.add("Shape", x, start=axis, end=axis + 1)
    ratio = graph.add(
        "Div", *(graph.add("Cast", size, to=TensorProto.FLOAT) for size in (before, count))
    )
    pixels = graph.add("Floor", graph.add("Mul", positions, ratio))
    pixels = graph.add("Cast", pixels, to=TensorProto.INT64)
    return graph.add("Min", pixels, graph.add("Sub", before, one))


def _is_exact(before: int, after: int) -> bool:
    """Whether positions in the input have no rounding error: n times as many, or 1 / 2^n."""
    factor, rest = divmod(before, after)
    return after % before == 0 or (rest == 0 and factor & (factor - 1) == 0)


def _arguments(call: Call) -> tuple[object, tuple[int, ...], bool, bool]:
    """The input, the new size, and how positions are counted."""
    flags = call.inputs[2:] or map(call.attributes.get, ("align_corners", "half_pixel_centers"))
    return (call.inputs[0], numbers(call.inputs[1]), *flags)


def _coordinates(align_corners: bool, half_pixel: bool) -> str:
    if align_corners:
        return "align_corners"
    return "half_pixel" if half_pixel else "asymmetric"


def _resize(
    graph: Builder,
    x: object,
    size: tuple[int, ...],
    mode: str,
    coordinates: str,
    **attributes: object,
) -> str:
    return graph.add(
        "Resize",
        *(graph.name(x), "", "", graph.ints(size)),
        axes=(2, 3),
        mode=mode,
        coordinate_transformation_mode=coordinates,
        **attributes,
    )


@lowers("GridSampler2D")
def _grid_sample(graph: Builder, call: Call) -> str:
    x, grid, mode, padding, align_corners = call.inputs
    mode = _GRID_MODES[number(mode)]
    if graph.opset_version >= 20 and mode == "bilinear":
        mode = "linear"
    return graph.add(
        "GridSample",
        graph.name(x),
        graph.name(grid),
        mode=mode,
        padding_mode=_GRID_PADDINGS[number(padding)],
        align_corners=int(align_corners),
    )
