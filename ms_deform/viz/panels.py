# SPDX-License-Identifier: Apache-2.0
"""The panels of a picture, each of which can be had alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ms_deform.viz.records import Pixel, Record
from ms_deform.viz.samples import draw_samples
from ms_deform.viz.views import Scale, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.quiver import Quiver

SMALL = 7  # points
LENGTH_LABEL = "mean length of the offsets, input pixels"
MASK_LABEL = "mask"
_LONGEST_ARROW = 0.2  # inches


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
    centre of each regular grid. Where the taps would merge at the size of `ax`, an inset in a
    corner of it shows those of the first output pixel larger.

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
