# SPDX-License-Identifier: Apache-2.0
"""What deformable layers were called with, and where that makes them sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_deform.nn import DeformConv2d

Pixel = tuple[int, int]


@dataclass(frozen=True)
class Record:
    """One call of a deformable layer: what decides where it samples.

    Attributes:
        layer: The name of the layer in the network.
        input_size: Height and width of the layer's input.
        offset: [N, 2 * offset_groups * kh * kw, H_out, W_out], float32: in pixels of the layer's
            input, y before x for each tap, the taps of an offset group row by row.
        mask: [N, offset_groups * kh * kw, H_out, W_out], float32, or None.
        kernel_size: Height and width of the kernel.
        stride: Along height and width.
        padding: Above and left of the input.
        dilation: Along height and width.
        call: Which call of the layer within the block, from 0.
    """

    layer: str
    input_size: tuple[int, int]
    offset: np.ndarray
    mask: np.ndarray | None
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    call: int = 0

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
    r"""
    Collects offsets and masks of every deformable layer while a network runs.

    The dict has an entry for the name of each layer, in the network's order: the list of its calls,
    oldest first. It fills while the network runs, and stays after the block. A layer that is called
    several times, in one run or in several, has a record of each call; one that is not called, an
    empty list. A network that is itself a deformable layer goes by the name of its type.

    A record, :class:`ms_deform.viz.Record`, holds what decides where the call samples, as NumPy
    arrays and numbers:

    - **offset** - Float32, of shape
      :math:`(N, 2 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`: how far each tap is
      moved, in pixels of the layer's input, y before x for each tap.
    - **mask** - Float32, of shape :math:`(N, offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`,
      or None: the factor of each sample.
    - **layer**, **call** - The name of the layer, and which of its calls it is, from 0.
    - **input_size**, **output_size** - Height and width of the layer's input and output.
    - **kernel_size**, **stride**, **padding**, **dilation** - Along height and width; the padding
      above and left of the input.
    - **taps**, **offset_groups** - How many a kernel and a layer have.

    Within the ``with`` block MindSpore runs in PyNative mode, also where graph mode was set, which
    is back after it: in graph mode there is nothing to be seen from Python. So layers inside a
    function under ``mindspore.jit`` are not seen. Every record is a copy in the host's memory.

    Args:
        net (Cell): The network, with :class:`ms_deform.DeformConv2d` layers or what derives from
            it, such as :class:`ms_deform.ModulatedDeformConv2dPack`.

    Returns:
        A context manager that gives the dict of lists of records.

    Raises:
        ValueError: If the network has no deformable layer.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import numpy as np
        >>> from mindspore import nn, ops
        >>> from ms_deform import ModulatedDeformConv2dPack, record_offsets, viz
        >>> class Refine(nn.Cell):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.align = ModulatedDeformConv2dPack(4, 4, 3, padding=1, deform_groups=2)
        ...
        ...     def construct(self, x):
        ...         return self.align(self.align(x))
        >>> net = Refine()
        >>> with record_offsets(net) as records:
        ...     output = net(ops.ones((1, 4, 8, 10)))
        >>> first, second = records["align"]
        >>> print(first.offset.shape, first.mask.shape, first.offset_groups, second.call)
        (1, 36, 8, 10) (1, 18, 8, 10) 2 1
        >>> y, x = first.offset[:, 0::2], first.offset[:, 1::2]
        >>> print(np.hypot(y, x).max())  # a new layer samples its regular grid
        0.0
        >>> print(viz.sampling_points(first, [(0, 0)])[0, 0, 0])  # y, x of the first tap there
        [-1. -1.]
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
                call=len(records),
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
