# SPDX-License-Identifier: Apache-2.0
"""The backends: what computes a call on which of MindSpore's device targets.

- ``aot``: this project's C++ and CUDA kernels, as ``ops.Custom`` AOT operators.
- ``composition``: MindSpore's own ``DeformableOffsets`` and ``Conv2D``, on every device target.
- ``aclnn``: CANN's ``aclnnDeformableConv2d``, for inference in graph mode.
- ``aicpu``: this project's kernels on the AICPU of an Ascend device, as a CANN vendor package.

To add a backend: a module here that makes its primitives, and its name in the table. One that runs
kernels of this project also has a folder in ``aot_kernels`` and a target in ``builder.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ms_deform.install.library import LIBRARY_TARGETS

if TYPE_CHECKING:
    from mindspore import nn

# Device target: its backends, the default first.
BACKENDS = {
    "CPU": ("aot", "composition"),
    "GPU": ("aot", "composition"),
    "Ascend": ("composition", "aclnn", "aicpu"),
}
NAMES = tuple(dict.fromkeys(name for names in BACKENDS.values() for name in names))

# Not for users: the forward operator of "aot" under names that `export_onnx` makes nodes from.
EXPORT = "onnx"

_asked: str | None = None


class set_backend:
    """
    Chooses what computes deformable convolutions, from now on or within a ``with`` block.

    Without it, on a CPU and a GPU this project's kernels do ("aot"), and on Ascend MindSpore's own
    operators ("composition"), or "aclnn" for layers that are not being trained, in graph mode.

    Note:
        Calls take what holds when they are traced: set it before a graph is compiled.

    Args:
        name (Union[str, None]): "aot", "composition", "aclnn" or "aicpu"; None is the default of
            the device target.

    Raises:
        ValueError: If there is no backend of that name. That it does not serve the device target is
            said by the call that needs it.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> from mindspore import ops
        >>> import ms_deform
        >>> input, offset = ops.ones((1, 1, 3, 3)), ops.zeros((1, 18, 3, 3))
        >>> with ms_deform.set_backend("composition"):
        ...     output = ms_deform.deform_conv2d(input, offset, ops.ones((1, 1, 3, 3)), padding=1)
        >>> print(output.sum())
        49.0
    """

    def __init__(self, name: str | None) -> None:
        global _asked
        check_name("set_backend: 'name'", name)
        self._before, _asked = _asked, name

    def __enter__(self) -> set_backend:
        return self

    def __exit__(self, *error: object) -> None:
        global _asked
        _asked = self._before


def check_name(what: str, name: str | None) -> None:
    if name is not None and name not in NAMES:
        raise ValueError(f"{what} must be one of {', '.join(NAMES)}, or None, got {name!r}")


def asked_backend() -> str | None:
    """What `set_backend` was called with last, or before the ``with`` block that ended."""
    return _asked


@contextmanager
def forced_backend(net: nn.Cell, name: str) -> Iterator[None]:
    """All deformable layers of the network on one backend, whatever they were told."""
    global _asked
    layers = [(cell, cell.backend) for _, cell in net.cells_and_names() if hasattr(cell, "backend")]
    before, _asked = _asked, name
    for cell, _ in layers:
        cell.backend = None
    try:
        yield
    finally:
        _asked = before
        for cell, backend in layers:
            cell.backend = backend


def choose_backend(device_target: str, asked: str | None, training: bool) -> str:
    """The backend of a call on a device target; RuntimeError where there is none."""
    if device_target not in BACKENDS:
        raise RuntimeError(
            f"deform_conv2d: there is no backend for device target {device_target!r}, expected one "
            f"of {', '.join(BACKENDS)}; choose one with mindspore.set_device, for example "
            'mindspore.set_device("CPU")'
        )
    if asked == EXPORT and device_target in LIBRARY_TARGETS:
        return EXPORT
    if asked is not None and asked not in BACKENDS[device_target]:
        raise RuntimeError(
            f"deform_conv2d: backend {asked!r} does not serve device target {device_target!r}, "
            f"expected one of {', '.join(BACKENDS[device_target])}; choose one with "
            f"ms_deform.set_backend, or another device with mindspore.set_device"
        )
    if asked is None and device_target == "Ascend" and not training:
        return "aclnn"
    return asked or BACKENDS[device_target][0]
