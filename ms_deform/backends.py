# SPDX-License-Identifier: Apache-2.0
"""The table of backends: which library serves which of MindSpore's device targets.

To add a backend: a folder in ``aot_kernels`` that exports the functions named in ``primitives.py``,
a target in ``builder.py`` that builds it, and a line here.
"""

from __future__ import annotations

from typing import NamedTuple


class Backend(NamedTuple):
    """Kernels for one device target."""

    name: str
    library_target: str  # what ``builder.build`` and ``library.find_library`` call the library


# Key: MindSpore's device target.
BACKENDS = {
    "CPU": Backend(name="CPU", library_target="cpu"),
    "GPU": Backend(name="GPU", library_target="cuda"),
}


def backend_for(device_target: str) -> Backend:
    """The backend of a device target; RuntimeError where there is none."""
    if device_target not in BACKENDS:
        raise RuntimeError(
            f"deform_conv2d: there is no backend for device target {device_target!r}, expected one "
            f"of {', '.join(BACKENDS)}; choose one with mindspore.set_device, for example "
            'mindspore.set_device("CPU")'
        )
    return BACKENDS[device_target]
