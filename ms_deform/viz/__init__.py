# SPDX-License-Identifier: Apache-2.0
"""Pictures of where deformable layers sample. They need matplotlib, the extra "viz"."""

from ms_deform.viz.layers import plot_layers
from ms_deform.viz.panels import plot_masks, plot_offsets, plot_sampling
from ms_deform.viz.records import Record, record_offsets, regular_points, sampling_points

__all__ = [
    "Record",
    "plot_layers",
    "plot_masks",
    "plot_offsets",
    "plot_sampling",
    "record_offsets",
    "regular_points",
    "sampling_points",
]
