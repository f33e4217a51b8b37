# SPDX-License-Identifier: Apache-2.0
"""Pictures of where deformable layers sample. They need matplotlib, the extra "viz"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_deform.nn import DeformConv2d

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Pixel = tuple[int, int]


@dataclass(frozen=True)
class Record:
    """One call of a deformable layer: what decides where it samples.

    Attributes:
        layer: The name of the layer in the network.
        input_size: Height and width of the layer's input.
        offset: [N, 2 * offset_groups * kh * kw, H_out, W_out], float32.
        mask: [N, offset_groups * kh * kw, H_out, W_out], float32, or None.
        kernel_size: Height and width of the kernel.
        stride: Along height and width.
        padding: Above and left of the input.
        dilation: Along height and width.
    """

    layer: str
    input_size: tuple[int, int]
    offset: np.ndarray
    mask: np.ndarray | None
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def taps(self) -> int:
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def offset_groups(self) -> int:
        return self.offset.shape[1] // (2 * self.taps)

    @property
    def output_size(self) -> tuple[int, int]:
        return self.offset.shape[2:]


@contextmanager
def record_offsets(net: nn.Cell) -> Iterator[dict[str, list[Record]]]:
    """
    Collects offsets and masks of every deformable layer while a network runs.

    Within the ``with`` block MindSpore runs in PyNative mode, whatever was set: in graph mode there
    is nothing to be seen from Python. Layers inside a function under ``mindspore.jit`` are not
    seen.

    Args:
        net (Cell): The network, with :class:`ms_deform.DeformConv2d`,
            :class:`ms_deform.DeformConv2dPack` or :class:`ms_deform.ModulatedDeformConv2dPack`
            layers.

    Returns:
        A context manager of a dict that fills while the network runs: for the name of each layer
        the list of its calls, as :class:`ms_deform.viz.Record`.

    Raises:
        ValueError: If the network has no deformable layer.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> from mindspore import nn, ops
        >>> from ms_deform import ModulatedDeformConv2dPack, record_offsets
        >>> net = nn.SequentialCell(ModulatedDeformConv2dPack(3, 4, 3, padding=1), nn.ReLU())
        >>> with record_offsets(net) as records:
        ...     output = net(ops.ones((1, 3, 8, 8)))
        >>> records["0"][0].offset.shape
        (1, 18, 8, 8)
    """
    layers = {
        name or type(cell).__name__: cell
        for name, cell in net.cells_and_names()
        if isinstance(cell, DeformConv2d)
    }
    if not layers:
        raise ValueError(
            "record_offsets: 'net' has no deformable layer: no DeformConv2d, DeformConv2dPack or "
            "ModulatedDeformConv2dPack of ms_deform"
        )
    records: dict[str, list[Record]] = {name: [] for name in layers}
    # Around this block another one may be recording the same layers.
    outer = {name: vars(layer).get("deform_conv") for name, layer in layers.items()}
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for name, layer in layers.items():
        object.__setattr__(layer, "deform_conv", _recording(name, layer, records[name]))
    try:
        yield records
    finally:
        ms.set_context(mode=mode)
        for name, layer in layers.items():
            if outer[name] is None:
                object.__delattr__(layer, "deform_conv")
            else:
                object.__setattr__(layer, "deform_conv", outer[name])


def _recording(name: str, layer: DeformConv2d, records: list[Record]) -> Callable[..., Tensor]:
    """The layer's `deform_conv` that takes notes."""
    original = layer.deform_conv

    def deform_conv(
        input: Tensor, offset: Tensor, mask: Tensor | None, *parameters: Tensor | None
    ) -> Tensor:
        records.append(
            Record(
                layer=name,
                input_size=tuple(input.shape[2:]),
                offset=_array(offset),
                mask=None if mask is None else _array(mask),
                kernel_size=layer.kernel_size,
                stride=layer.stride,
                padding=(layer.padding[0], layer.padding[len(layer.padding) // 2]),
                dilation=layer.dilation,
            )
        )
        return original(input, offset, mask, *parameters)

    return deform_conv


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.astype(ms.float32).asnumpy()


def sampling_points(record: Record, pixels: Sequence[Pixel], image: int = 0) -> np.ndarray:
    """Where the taps of output pixels sample, y and x in pixels of the layer's input.

    Args:
        record: A call of a layer.
        pixels: Output pixels, as (row, column).
        image: The image of the batch.

    Returns:
        [len(pixels), offset_groups, kh * kw, 2]
    """
    rows, columns = _rows_and_columns(record, pixels)
    offset = record.offset[image].reshape(record.offset_groups, record.taps, 2, *record.output_size)
    # Indexing with two arrays leaves their axis last.
    return regular_points(record, pixels)[:, None] + np.moveaxis(offset[..., rows, columns], -1, 0)


def regular_points(record: Record, pixels: Sequence[Pixel]) -> np.ndarray:
    """Where the taps of output pixels would sample without offsets: [len(pixels), kh * kw, 2]."""
    taps = np.stack(np.divmod(np.arange(record.taps), record.kernel_size[1]), axis=1)
    corners = np.stack(_rows_and_columns(record, pixels), axis=1) * record.stride - record.padding
    return corners[:, None] + taps * record.dilation


def _rows_and_columns(record: Record, pixels: Sequence[Pixel]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array(pixels, dtype=int).reshape(-1, 2)
    if np.any(found < 0) or np.any(found >= record.output_size):
        raise ValueError(
            f"viz: 'pixels' must lie in the layer's output of size {record.output_size}, got "
            f"{list(pixels)}"
        )
    return found[:, 0], found[:, 1]


def plot_sampling(
    record: Record,
    pixels: Sequence[Pixel] | None = None,
    picture: np.ndarray | None = None,
    image: int = 0,
    offset_group: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draws the sampling points of output pixels, over a picture if there is one.

    Crosses are the regular grid, dots the samples: their colour is the mask. A square marks the
    centre of each regular grid.

    Args:
        record: A call of a layer.
        pixels: Output pixels, as (row, column). Default: the middles of the four quarters.
        picture: [H, W] or [H, W, 3], the network's input; it may have another size than the
            layer's, and is stretched over it.
        image: The image of the batch.
        offset_group: Which offset group.
        ax: Where to draw. Default: a new figure.

    Returns:
        The Axes, in pixels of the layer's input.
    """
    ax = _figure().add_subplot() if ax is None else ax
    pixels = _quarters(record) if pixels is None else pixels
    height, width = record.input_size
    ax.add_patch(_frame(height, width))
    if picture is not None:
        ax.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), cmap="gray", alpha=0.7)
    regular = regular_points(record, pixels)
    points = sampling_points(record, pixels, image)[:, offset_group]
    for grid, moved in zip(regular, points):
        ax.plot(*np.stack([grid, moved], axis=1).T[::-1], color="0.5", linewidth=0.7, zorder=2)
        ax.plot(*grid.mean(0)[::-1], "s", color="black", markersize=6, zorder=3)
    crosses = regular.reshape(-1, 2)
    ax.scatter(crosses[:, 1], crosses[:, 0], marker="+", color="black", linewidth=0.7, zorder=3)
    masks = _masks(record, pixels, image, offset_group)
    dots = ax.scatter(
        *points.reshape(-1, 2).T[::-1],
        **({"color": "tab:orange"} if masks is None else {"c": masks, "cmap": "viridis"}),
        vmin=None if masks is None else 0,
        s=32,
        edgecolor="black",
        linewidth=0.6,
        zorder=4,
    )
    if masks is not None:
        ax.figure.colorbar(dots, ax=ax, label="mask", shrink=0.8)
    ax.set(xlabel="x", ylabel="y", title=f"{record.layer}: samples", aspect="equal")
    # Samples may lie far outside; the picture stays readable.
    ax.set(xlim=(-1 - width / 8, width * 9 / 8), ylim=(height * 9 / 8, -1 - height / 8))
    return ax


def plot_offsets(record: Record, image: int = 0, ax: Axes | None = None) -> Axes:
    """Draws the length of the offsets, in input pixels, as its mean over the taps of a pixel."""
    offset = record.offset[image].reshape(-1, 2, *record.output_size)
    length = np.sqrt((offset**2).sum(1)).mean(0)
    return _heat_map(length, f"{record.layer}: offsets", "mean length, input pixels", ax, "magma")


def plot_masks(record: Record, image: int = 0, ax: Axes | None = None) -> Axes:
    """Draws the masks, as their mean over the taps of a pixel."""
    if record.mask is None:
        raise ValueError(
            f"plot_masks: layer {record.layer!r} has no mask; plot_offsets and plot_sampling draw "
            "layers without one"
        )
    return _heat_map(record.mask[image].mean(0), f"{record.layer}: masks", "mean", ax, "viridis")


def plot_layers(
    records: dict[str, list[Record]],
    picture: np.ndarray | None = None,
    image: int = 0,
    file_name: str | Path | None = None,
) -> Figure:
    """Draws samples, offsets and masks of the last call of every layer, a row each.

    Args:
        records: What `record_offsets` collected.
        picture: As for `plot_sampling`.
        image: The image of the batch.
        file_name: A PNG to write, if any.

    Returns:
        The Figure.
    """
    called = [calls[-1] for calls in records.values() if calls]
    if not called:
        raise ValueError("plot_layers: 'records' holds no call; run the network in record_offsets")
    figure = _figure(rows=len(called))
    panels = figure.subplots(len(called), 3, squeeze=False)
    for record, (samples, offsets, masks) in zip(called, panels):
        plot_sampling(record, picture=picture, image=image, ax=samples)
        plot_offsets(record, image, offsets)
        if record.mask is None:
            masks.set_axis_off()
        else:
            plot_masks(record, image, masks)
    if file_name is not None:
        figure.savefig(file_name)
    return figure


def _figure(rows: int | None = None) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'ms_deform.viz: needs matplotlib: pip install "matplotlib>=3.7,<4" "numpy>=1.25,<2"'
        ) from error
    size = (6, 5) if rows is None else (15, 4.5 * rows)
    return Figure(figsize=size, dpi=100, layout="constrained")


def _frame(height: int, width: int) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, -0.5), width, height, fill=False, color="0.6")


def _quarters(record: Record) -> list[Pixel]:
    height, width = record.output_size
    rows, columns = {height // 4, 3 * height // 4}, {width // 4, 3 * width // 4}
    return [(row, column) for row in sorted(rows) for column in sorted(columns)]


def _masks(
    record: Record, pixels: Sequence[Pixel], image: int, offset_group: int
) -> np.ndarray | None:
    """The mask of every drawn sample, in the order of the points."""
    if record.mask is None:
        return None
    rows, columns = _rows_and_columns(record, pixels)
    masks = record.mask[image].reshape(record.offset_groups, record.taps, *record.output_size)
    return masks[offset_group][:, rows, columns].T.ravel()


def _heat_map(values: np.ndarray, title: str, label: str, ax: Axes | None, cmap: str) -> Axes:
    ax = _figure().add_subplot() if ax is None else ax
    drawn: AxesImage = ax.imshow(values, cmap=cmap)
    ax.set(xlabel="x of the output", ylabel="y of the output", title=title)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    return ax
