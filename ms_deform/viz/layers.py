# SPDX-License-Identifier: Apache-2.0
"""The picture of all layers: a row for each, in the same scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ms_deform.viz.panels import (
    LENGTH_LABEL,
    MASK_LABEL,
    draw_arrow_key,
    draw_masks,
    draw_offsets,
)
from ms_deform.viz.records import Record
from ms_deform.viz.samples import draw_samples
from ms_deform.viz.sheet import TEXT, Sheet
from ms_deform.viz.views import Scale, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 64  # matplotlib draws 2^16 pixels at most


def plot_layers(
    records: dict[str, list[Record]],
    picture: np.ndarray | None = None,
    image: int = 0,
    file_name: str | Path | None = None,
    *,
    offset_group: int | None = None,
    call: int | str = -1,
) -> Figure:
    """Draws samples, offsets and masks of every layer, a row each, in the same scales.

    The panels are those of `plot_sampling`, `plot_offsets` and `plot_masks`. A title says which
    call is drawn of a layer that was called several times, and which offset group of several.

    Args:
        records: What `record_offsets` collected. Layers without a call are left out.
        picture: As for `plot_sampling`.
        image: The image of the batch.
        file_name: A PNG to write, if any; or what else matplotlib writes.
        offset_group: Which offset group. Default: of each layer the one with the longest offsets on
            average.
        call: Which call of each layer, counted as in its list of records, or "all" for a row each.
            Default: the last one.

    Returns:
        The Figure.
    """
    rows = [row for calls in records.values() for row in _rows(calls, image, offset_group, call)]
    if not rows:
        raise ValueError("plot_layers: 'records' holds no call; run the network in record_offsets")
    if len(rows) > _MOST_ROWS:
        raise ValueError(
            f"plot_layers: 'records' and 'call' ask for {len(rows)} rows, expected at most "
            f"{_MOST_ROWS}; draw one layer, as records={{name: records[name]}}, or one call"
        )
    figure = _draw([view for view, _ in rows], [title for _, title in rows], picture)
    if file_name is not None:
        figure.savefig(file_name)
    return figure


def _rows(
    calls: Sequence[Record], image: int, offset_group: int | None, call: int | str
) -> list[tuple[View, str]]:
    """The views of a layer that are asked for, with their titles."""
    if not calls:
        return []
    if call == "all":
        chosen = calls
    elif isinstance(call, int) and -len(calls) <= call < len(calls):
        chosen = [calls[call]]
    else:
        raise ValueError(
            f"plot_layers: 'call' must be \"all\" or one of the {len(calls)} calls of layer "
            f"{calls[0].layer!r}, {-len(calls)} to {len(calls) - 1}, got {call!r}"
        )
    views = [View.of(record, image, offset_group) for record in chosen]
    return [(view, _title(view, len(calls))) for view in views]


def _draw(views: Sequence[View], titles: Sequence[str], picture: np.ndarray | None) -> Figure:
    scale, sheet = Scale.over(views), Sheet(views)
    for row, (view, title) in enumerate(zip(views, titles)):
        samples, offsets = (sheet.add_panel(row, column) for column in (0, 1))
        samples.set_title(title, loc="left", fontsize=TEXT)
        draw_samples(samples, view, scale, picture=picture, beside=True)
        lengths, arrows = draw_offsets(offsets, view, scale)
        if view.masks is not None:
            masks = draw_masks(sheet.add_panel(row, 2), view, scale)
        elif sheet.masks:
            sheet.add_note(row, 2, "no mask")
    sheet.add_legend()
    sheet.add_colour_bar(1, lengths, LENGTH_LABEL)
    draw_arrow_key(arrows, scale, sheet.place_of_key(1), labelpos="E", coordinates="inches")
    if sheet.masks:
        sheet.add_colour_bar(2, masks, f"{MASK_LABEL} (map: mean over the taps)")
    return sheet.figure


def _title(view: View, calls: int) -> str:
    record = view.record
    (kh, kw), (height, width) = record.kernel_size, record.input_size
    which = f" · call {record.call} of 0 to {calls - 1}" if calls > 1 else ""
    return f"{view.title}{which} · kernel {kh} x {kw} · input {height} x {width}"
