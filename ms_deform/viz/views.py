# SPDX-License-Identifier: Apache-2.0
"""The numbers that a picture shows, and the scales that its rows share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ms_deform.viz.records import Pixel, Record, regular_points, sampling_points

_ARROWS = 10  # along the longer side of the output


@dataclass(frozen=True)
class View:
    """One image and one offset group of a call of a layer.

    Attributes:
        record: The call.
        image: The image of the batch.
        group: The offset group.
        longest: Whether it was chosen for its offsets, which are longer on average than others'.
    """

    record: Record
    image: int
    group: int
    longest: bool

    @classmethod
    def of(cls, record: Record, image: int = 0, offset_group: int | None = None) -> View:
        _check_index("image", image, len(record.offset), f"images for layer {record.layer!r}")
        groups = record.offset_groups
        if offset_group is None:
            offsets = record.offset[image].reshape(groups, -1, 2, *record.output_size)
            means = _lengths(offsets).mean((1, 2, 3))
            return cls(record, image, int(means.argmax()), bool(np.any(means != means[0])))
        _check_index("offset_group", offset_group, groups, f"groups of layer {record.layer!r}")
        return cls(record, image, offset_group, False)

    @property
    def offsets(self) -> np.ndarray:
        """[taps, 2, H_out, W_out], y before x."""
        record = self.record
        shape = (record.offset_groups, record.taps, 2, *record.output_size)
        return record.offset[self.image].reshape(shape)[self.group]

    @property
    def masks(self) -> np.ndarray | None:
        """[taps, H_out, W_out]"""
        record = self.record
        if record.mask is None:
            return None
        shape = (record.offset_groups, record.taps, *record.output_size)
        return record.mask[self.image].reshape(shape)[self.group]

    @property
    def mean_length(self) -> np.ndarray:
        """The lengths of the offsets, as their mean over the taps: [H_out, W_out]."""
        return _lengths(self.offsets).mean(0)

    @property
    def arrows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the taps move together: their mean offset [2, rows, columns] at some output pixels.

        Returns:
            The rows and the columns of the output, and the mean offsets there, y before x.
        """
        size = self.record.output_size
        step = -(-max(size) // _ARROWS)
        rows, columns = (np.arange(min(step, side) // 2, side, step) for side in size)
        return rows, columns, self.offsets.mean(0)[:, rows[:, None], columns]

    @property
    def spacing(self) -> int:
        """The distance of neighbouring taps of the regular grid, in input pixels."""
        distances = zip(self.record.dilation, self.record.kernel_size)
        return min((distance for distance, taps in distances if taps > 1), default=1)

    def regular(self, pixels: Sequence[Pixel]) -> np.ndarray:
        """[len(pixels), taps, 2], y before x."""
        return regular_points(self.record, pixels)

    def samples(self, pixels: Sequence[Pixel]) -> np.ndarray:
        """[len(pixels), taps, 2], y before x."""
        return sampling_points(self.record, pixels, self.image)[:, self.group]

    def masks_of(self, pixels: Sequence[Pixel]) -> np.ndarray | None:
        """[len(pixels), taps]"""
        if self.masks is None:
            return None
        rows, columns = np.transpose(pixels)
        return self.masks[:, rows, columns].T

    @property
    def title(self) -> str:
        """The layer, and which offset group of several."""
        groups = self.record.offset_groups
        if groups == 1:
            return self.record.layer
        why = " (longest offsets)" if self.longest else ""
        return f"{self.record.layer} · offset group {self.group} of 0 to {groups - 1}{why}"


@dataclass(frozen=True)
class Scale:
    """What colours and arrows stand for, in all rows of a picture.

    Attributes:
        length: The longest mean length of offsets, in input pixels.
        arrow: The longest mean offset that an arrow shows, in input pixels; 0 if none is longer.
        mask: The smallest and the largest mask, or 0 and 1 if they lie between.
    """

    length: float
    arrow: float
    mask: tuple[float, float]

    @classmethod
    def over(cls, views: Sequence[View]) -> Scale:
        masks = [view.masks for view in views if view.masks is not None]
        return cls(
            length=_largest([view.mean_length for view in views]) or 1.0,
            arrow=_largest([_lengths(view.arrows[-1]) for view in views]),
            mask=(-_largest([-mask for mask in masks]), max(1.0, _largest(masks))),
        )


def _lengths(offsets: np.ndarray) -> np.ndarray:
    """[..., 2, H, W] to [..., H, W]."""
    return np.hypot(offsets[..., 0, :, :], offsets[..., 1, :, :])


def _largest(arrays: Sequence[np.ndarray]) -> float:
    """The largest finite number, or 0 if that is larger: training may have diverged."""
    return max((float(array[np.isfinite(array)].max(initial=0)) for array in arrays), default=0.0)


def _check_index(name: str, index: int, count: int, of_what: str) -> None:
    if not 0 <= index < count:
        raise ValueError(
            f"viz: '{name}' must be one of the {count} {of_what}, 0 to {count - 1}, got {index}"
        )
