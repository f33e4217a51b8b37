# SPDX-License-Identifier: Apache-2.0
"""Where the panels of a picture of several rows are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ms_deform.viz.panels import SMALL, new_figure
from ms_deform.viz.records import Record
from ms_deform.viz.samples import BESIDE, limits, taps_merge
from ms_deform.viz.views import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

TEXT = 8  # points
# Inches. A README shows the picture about 830 pixels wide.
_WIDTH = 8.3
_LEFT, _RIGHT, _GAP = 0.35, 0.1, 0.4
_TOP, _BETWEEN, _BOTTOM = 0.25, 0.46, 1.0
_KEY, _BAR = 0.62, 0.42  # above the figure's lower edge
_LARGEST_PANEL = 3.0
_SHAPES = (0.5, 1.3)  # the smallest and the largest height of a panel by its width
_DPI = 200


class Sheet:
    """A figure with a row of panels for each view, and keys below.

    The columns are samples, with place for insets beside them where taps would merge, offsets, and
    masks where a view has any. All panels are equally wide.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self.views = views
        self.masks = any(view.masks is not None for view in views)
        self.insets = False  # Whether they are needed is asked of the panels without them.
        self.insets = any(taps_merge(view, self._points_per_pixel(view.record)) for view in views)
        self.heights = [self._panel * _shape(view.record) for view in views]
        x, y, panel, height = self._place(0, 1 + self.masks)[0], *self._place(0, 0)[1:]
        self.size = x + panel + _RIGHT, y + height + _TOP
        self.figure = new_figure(self.size, _DPI, None)

    @property
    def _panel(self) -> float:
        """The width of a panel."""
        panels = 2 + self.masks + BESIDE * self.insets
        free = _WIDTH - _LEFT - _RIGHT - (1 + self.masks) * _GAP
        return min(_LARGEST_PANEL, free / panels)

    def _points_per_pixel(self, record: Record) -> float:
        """How many points an input pixel takes in a panel of samples."""
        height, width = _span(record)
        return 72 * self._panel * min(1 / width, _shape(record) / height)

    def _place(self, row: int, column: int) -> tuple[float, float, float, float]:
        """x and y from the left and from below, width and height."""
        insets = BESIDE * self.insets if column else 0
        below = self.heights[row + 1 :]
        return (
            _LEFT + (column + insets) * self._panel + column * _GAP,
            _BOTTOM + sum(below) + len(below) * _BETWEEN,
            self._panel,
            self.heights[row],
        )

    def place_of_key(self, column: int) -> tuple[float, float]:
        return self._place(0, column)[0] + 0.2, _KEY

    def add_panel(self, row: int, column: int) -> Axes:
        ax = self._add_axes(*self._place(row, column))
        ax.tick_params(labelsize=SMALL)
        ax.locator_params(integer=True)
        return ax

    def add_note(self, row: int, column: int, text: str) -> None:
        """A text in the place of a panel."""
        ax = self._add_axes(*self._place(row, column))
        ax.set_axis_off()
        ax.text(0.5, 0.5, text, ha="center", va="center", color="0.5", fontsize=TEXT)

    def add_colour_bar(self, column: int, drawn: ScalarMappable, label: str) -> None:
        """Below a column, for all its rows."""
        bar = self._add_axes(self._place(0, column)[0], _BAR, self._panel, 0.08)
        self.figure.colorbar(drawn, cax=bar, orientation="horizontal")
        bar.tick_params(labelsize=SMALL)
        bar.set_xlabel(label, fontsize=SMALL)

    def add_legend(self) -> None:
        """What the marks in the column of samples are."""
        from matplotlib.lines import Line2D

        marks = [("+", "black", "tap of the regular grid"), ("s", "black", "centre of the grid")]
        if self.masks:
            marks.append(("o", "tab:green", "sample, in the colour of its mask"))
        if any(view.masks is None for view in self.views):
            marks.append(("o", "tab:orange", "sample without a mask" if self.masks else "sample"))
        handles = [
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                markersize=5,
                color="black",
                markerfacecolor=colour,
                label=label,
            )
            for marker, colour, label in marks
        ]
        self.figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(_LEFT / self.size[0], (_KEY + 0.08) / self.size[1]),
            borderaxespad=0,
            fontsize=SMALL,
            frameon=False,
        )

    def _add_axes(self, x: float, y: float, width: float, height: float) -> Axes:
        across, up = self.size
        return self.figure.add_axes((x / across, y / up, width / across, height / up))


def _span(record: Record) -> tuple[float, float]:
    """Height and width of what a panel of samples shows, in input pixels."""
    shown = limits(record)
    return abs(np.subtract(*shown["ylim"])), abs(np.subtract(*shown["xlim"]))


def _shape(record: Record) -> float:
    height, width = _span(record)
    return float(np.clip(height / width, *_SHAPES))
