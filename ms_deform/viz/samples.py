# SPDX-License-Identifier: Apache-2.0
"""The panel of sampling points, and its inset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ms_deform.viz.records import Pixel, Record
from ms_deform.viz.views import Scale, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

BESIDE = 1.04  # where an inset beside the axes begins, in their widths
_CORNER, _EDGE = 0.45, 0.01  # the side of an inset in the axes, and what is left at its outside
_MARGIN = 4  # input pixels around the input, at most
_MERGE = 6.0  # points: nearer taps are taken for one at a glance
_APART = 12.0  # points: the least distance of neighbouring taps in an inset
_DOTS = (2.0, 5.5)  # points: the smallest and the largest diameter
_INSET_COLOUR = "tab:red"


def draw_samples(
    ax: Axes,
    view: View,
    scale: Scale,
    pixels: Sequence[Pixel] | None = None,
    picture: np.ndarray | None = None,
    beside: bool = False,
) -> PathCollection:
    """The samples over the picture, with an inset beside the axes or in them where taps merge."""
    pixels = _quarters(view.record) if pixels is None else pixels
    ax.set(**limits(view.record), aspect="equal")
    points = _points_per_pixel(ax)
    dots = _draw_points(ax, view, scale, pixels, picture, points)
    if len(pixels) and taps_merge(view, points):
        x, y, side = (BESIDE, 0, 1) if beside else _far_corner(view.record, pixels[0])
        inset = ax.inset_axes((x, y, side, side), xticks=[], yticks=[], zorder=6)
        inset.set(**_window(ax, view, pixels[0], side * points), aspect="equal")
        points *= side * np.ptp(ax.get_xlim()) / np.ptp(inset.get_xlim())
        _draw_points(inset, view, scale, pixels, picture, points)
        _tie(ax, inset, x, y, side)
    return dots


def limits(record: Record) -> dict[str, tuple[float, float]]:
    """What is shown of the plane. Samples may lie far outside; the picture stays readable."""
    height, width = record.input_size
    above, left = (1 + min(side / 8, _MARGIN) for side in record.input_size)
    return {"xlim": (-left, width - 1 + left), "ylim": (height - 1 + above, -above)}


def taps_merge(view: View, points: float) -> bool:
    """Whether neighbouring taps merge where an input pixel takes so many points of the figure."""
    return view.spacing * points < _MERGE


def _points_per_pixel(ax: Axes) -> float:
    """How many points of the figure a pixel of the axes' limits takes."""
    box = ax.get_window_extent()
    width, height = (abs(high - low) for low, high in (ax.get_xlim(), ax.get_ylim()))
    return min(box.width / width, box.height / height) * 72 / ax.figure.dpi


def _far_corner(record: Record, pixel: Pixel) -> tuple[float, float, float]:
    """Where the inset of an output pixel goes: x, y and side as fractions of the axes."""
    is_above, is_left = (2 * place < size for place, size in zip(pixel, record.output_size))
    far = 1 - _EDGE - _CORNER
    return far if is_left else _EDGE, _EDGE if is_above else far, _CORNER


def _window(ax: Axes, view: View, pixel: Pixel, points: float) -> dict[str, tuple[float, float]]:
    """The limits of an inset around an output pixel that gives the axes' limits so many points.

    All samples of the output pixel are in it, unless its taps would come near to merging there.
    """
    regular, samples = view.regular([pixel])[0], view.samples([pixel])[0]
    centre = regular.mean(0)
    size = np.array([np.ptp(ax.get_ylim()), np.ptp(ax.get_xlim())])
    reach = 2.3 * np.abs(np.concatenate([regular, samples]) - centre) / size
    least, most = 5 * view.spacing / size.min(), view.spacing * points / _APART
    share = min(max(np.nan_to_num(reach, nan=0, posinf=1).max(), least), most)
    (y, x), (height, width) = centre, share * size / 2
    return {"xlim": (x - width, x + width), "ylim": (y + height, y - height)}


def _tie(ax: Axes, inset: Axes, x: float, y: float, side: float) -> None:
    """Frames what an inset shows, and joins the frame's side that faces it to the inset's."""
    from matplotlib.patches import ConnectionPatch, Rectangle

    (left, right), (bottom, top) = inset.get_xlim(), inset.get_ylim()
    style = {"color": _INSET_COLOUR, "linewidth": 0.8, "zorder": 5}
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **style))
    on_the_right = x > 0.5
    for corner, height in ((top, y + side), (bottom, y)):
        line = ConnectionPatch(
            (right if on_the_right else left, corner),
            (x if on_the_right else x + side, height),
            coordsA=ax.transData,
            coordsB=ax.transAxes,
            **style,
        )
        ax.add_artist(line)
    inset.spines[:].set_color(_INSET_COLOUR)


def _draw_points(
    ax: Axes,
    view: View,
    scale: Scale,
    pixels: Sequence[Pixel],
    picture: np.ndarray | None,
    points: float,
) -> PathCollection:
    """Picture, regular grids and samples, as large as a pixel's size in points allows."""
    from matplotlib.patches import Rectangle

    height, width = view.record.input_size
    ax.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, color="0.6"))
    if picture is not None:
        ax.imshow(
            picture,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            cmap="gray",
            alpha=0.7,
            # As the caller set them: an image would fit them to itself.
            aspect=ax.get_aspect(),
        )
    size = float(np.clip(view.spacing * points * 0.45, *_DOTS))
    regular, samples = view.regular(pixels), view.samples(pixels)
    for grid, moved in zip(regular, samples):
        ax.plot(*np.stack([grid, moved], axis=1).T[::-1], color="0.5", linewidth=0.7, zorder=2)
        ax.plot(*grid.mean(0)[::-1], "s", color="black", markersize=size, zorder=3)
    crosses = regular.reshape(-1, 2)
    ax.scatter(*crosses.T[::-1], marker="+", color="black", s=size**2, linewidth=size / 8, zorder=3)
    masks = view.masks_of(pixels)
    low, high = scale.mask
    colours = (
        {"color": "tab:orange"}
        if masks is None
        else {"c": masks.ravel(), "cmap": "viridis", "vmin": low, "vmax": high}
    )
    return ax.scatter(
        *samples.reshape(-1, 2).T[::-1],
        **colours,
        s=size**2,
        edgecolor="black",
        linewidth=size / 10,
        zorder=4,
    )


def _quarters(record: Record) -> list[Pixel]:
    height, width = record.output_size
    rows, columns = {height // 4, 3 * height // 4}, {width // 4, 3 * width // 4}
    return [(row, column) for row in sorted(rows) for column in sorted(columns)]
