# SPDX-License-Identifier: Apache-2.0
"""The panels of a picture, each of which can be had alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ms_deform.viz.records import Pixel, Record
from ms_deform.viz.views import Scale, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.quiver import Quiver

SMALL = 7  # points
LENGTH_LABEL = "mean length of the offsets, input pixels"
MASK_LABEL = "mask"
BESIDE = 1.04  # where an inset beside the axes begins, in their widths
_MARGIN = 4  # input pixels around the input, at most
_MERGE = 6.0  # points: nearer taps are taken for one at a glance
_APART = 12.0  # points: the least distance of neighbouring taps in an inset
_DOTS = (2.0, 5.5)  # points: the smallest and the largest diameter
_LONGEST_ARROW = 0.2  # inches
_INSET_COLOR = "tab:red"


def plot_sampling(
    record: Record,
    pixels: Sequence[Pixel] | None = None,
    picture: np.ndarray | None = None,
    image: int = 0,
    offset_group: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws the sampling points of output pixels, over a picture if there is one.

    Crosses are the regular grid, dots the samples: their colour is the mask. A square marks the
    centre of each regular grid. Where the taps would merge at the size of `ax`, an inset beside it
    shows those of the first output pixel larger.

    Args:
        record: A call of a layer.
        pixels: Output pixels, as (row, column). Default: the middles of the four quarters.
        picture: [H, W] or [H, W, 3], the network's input; it may have another size than the
            layer's, and is stretched over it.
        image: The image of the batch.
        offset_group: Which offset group. Default: the one with the longest offsets on average.
        ax: Where to draw. Default: a new figure.

    Returns:
        The Axes, in pixels of the layer's input.
    """
    view = View.of(record, image, offset_group)
    ax = new_figure().add_subplot() if ax is None else ax
    scale = Scale.over([view])
    dots = draw_samples(ax, view, scale, pixels, picture)
    if record.mask is not None:
        ax.figure.colorbar(dots, ax=ax, label=MASK_LABEL, shrink=0.8)
    ax.set(xlabel="x", ylabel="y", title=f"{view.title}: samples")
    return ax


def plot_offsets(
    record: Record, image: int = 0, ax: Axes | None = None, offset_group: int | None = None
) -> Axes:
    """Draws how far the samples of each output pixel are from its regular grid, and where to.

    The colour is the length of the offsets, in input pixels, as its mean over the taps. The arrows
    are the mean of the offsets themselves: where the taps move together.

    Args:
        record: A call of a layer.
        image: The image of the batch.
        ax: Where to draw. Default: a new figure.
        offset_group: Which offset group. Default: the one with the longest offsets on average.

    Returns:
        The Axes, in pixels of the layer's output.
    """
    view = View.of(record, image, offset_group)
    ax = new_figure().add_subplot() if ax is None else ax
    scale = Scale.over([view])
    heat_map, arrows = draw_offsets(ax, view, scale)
    draw_arrow_key(arrows, scale, (0.97, -0.09), labelpos="W", coordinates="axes")
    ax.set_title(f"{view.title}: offsets")
    return _finish_heat_map(ax, heat_map, LENGTH_LABEL)


def plot_masks(
    record: Record, image: int = 0, ax: Axes | None = None, offset_group: int | None = None
) -> Axes:
    """Draws the masks, as their mean over the taps of a pixel; arguments as of `plot_offsets`."""
    if record.mask is None:
        raise ValueError(
            f"plot_masks: layer {record.layer!r} has no mask; plot_offsets and plot_sampling draw "
            "layers without one"
        )
    view = View.of(record, image, offset_group)
    ax = new_figure().add_subplot() if ax is None else ax
    heat_map = draw_masks(ax, view, Scale.over([view]))
    ax.set_title(f"{view.title}: masks")
    return _finish_heat_map(ax, heat_map, f"{MASK_LABEL}, mean over the taps")


def _finish_heat_map(ax: Axes, heat_map: AxesImage, label: str) -> Axes:
    ax.figure.colorbar(heat_map, ax=ax, label=label, shrink=0.8)
    ax.set(xlabel="x of the output", ylabel="y of the output")
    return ax


def new_figure(
    size: tuple[float, float] = (6, 5), dpi: int = 100, layout: str | None = "constrained"
) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'ms_deform.viz: needs matplotlib: pip install "matplotlib>=3.7,<4" "numpy>=1.25,<2"'
        ) from error
    return Figure(figsize=size, dpi=dpi, layout=layout)


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
    down, right = (2 * place < size for place, size in zip(pixel, record.output_size))
    side = 0.45
    return 0.99 - side if right else 0.01, 0.01 if down else 0.99 - side, side


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
    style = {"color": _INSET_COLOR, "linewidth": 0.8, "zorder": 5}
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
    inset.spines[:].set_color(_INSET_COLOR)


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


def draw_offsets(ax: Axes, view: View, scale: Scale) -> tuple[AxesImage, Quiver]:
    """Lengths by colour, and directions by arrows."""
    heat_map = ax.imshow(view.mean_length, cmap="magma", vmin=0, vmax=scale.length)
    rows, columns, (y, x) = view.arrows
    arrows = ax.quiver(
        columns,
        rows,
        x,
        y,
        angles="xy",
        pivot="mid",
        scale_units="inches",
        scale=(scale.arrow or 1) / _LONGEST_ARROW,
        units="inches",
        width=0.014,
        color="white",
        edgecolor="black",
        linewidth=0.3,
    )
    return heat_map, arrows


def draw_arrow_key(
    arrows: Quiver, scale: Scale, place: tuple[float, float], **options: object
) -> None:
    """Says how long an arrow is, of a length with one digit; nothing where no sample moves."""
    if scale.arrow:
        unit = 10.0 ** math.floor(math.log10(scale.arrow))
        length = math.floor(scale.arrow / unit) * unit
        arrows.axes.quiverkey(
            arrows,
            *place,
            length,
            f"mean offset of {length:g} px",
            labelsep=0.05,
            fontproperties={"size": SMALL},
            **options,
        )


def draw_masks(ax: Axes, view: View, scale: Scale) -> AxesImage:
    low, high = scale.mask
    return ax.imshow(view.masks.mean(0), cmap="viridis", vmin=low, vmax=high)


def _quarters(record: Record) -> list[Pixel]:
    height, width = record.output_size
    rows, columns = {height // 4, 3 * height // 4}, {width // 4, 3 * width // 4}
    return [(row, column) for row in sorted(rows) for column in sorted(columns)]
