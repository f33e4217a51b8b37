# SPDX-License-Identifier: Apache-2.0
"""The backends: what computes a call on which of MindSpore's device targets.

- ``aot``: this project's C++ and CUDA kernels, as ``ops.Custom`` AOT operators.
- ``composition``: MindSpore's own ``DeformableOffsets`` and ``Conv2D``, on every device target.
- ``aclnn``: CANN's ``aclnnDeformableConv2d`` in graph mode, for inference; on Ascend 950 for all.
- ``aicpu``: this project's kernels on the AICPU of an Ascend device, as a CANN vendor package.

To add a backend: a module here with the functions of `interface.Backend`, and its row in the table.
One that runs kernels of this project also has a folder in ``aot_kernels`` and a target in
``install/builder.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from mindspore import log

from ms_deform.backends import aclnn, aicpu, aot, composition
from ms_deform.backends.ai_core_layout import Target
from ms_deform.backends.interface import Backend, Call
from ms_deform.install import ai_core
from ms_deform.install.aicpu_operators import FORWARD
from ms_deform.install.cann import aicpu_package

if TYPE_CHECKING:
    from mindspore import nn

# Device target: its backends, the default first.
BACKENDS: dict[str, dict[str, Backend]] = {
    "CPU": {"aot": aot, "composition": composition},
    "GPU": {"aot": aot, "composition": composition},
    "Ascend": {"composition": composition, "aclnn": aclnn, "aicpu": aicpu},
}
# The default for layers that are not being trained, where it is another one; for the rest as well,
# where its `trains` says so.
INFERENCE_DEFAULTS = {"Ascend": "aclnn"}

# What `set_backend` was called with last, or what an export computes with.
_asked: str | Backend | None = None


class set_backend:
    """
    Chooses what computes deformable convolutions, from now on or within a ``with`` block.

    Without it, on a CPU and a GPU this project's kernels do ("aot"), and on Ascend MindSpore's own
    operators ("composition"), or in graph mode "aclnn", for layers that are not being trained and
    where CANN has its gradient (Ascend 950). Where CANN has no gradient at all (310P, 310B) layers
    that are trained take "aicpu", once its package is installed.

    Note:
        Calls take what holds when they are traced: set it before a graph is compiled.

    Args:
        name (Union[str, None]): "aot", "composition", "aclnn" or "aicpu"; None is the default of
            the device target.
        soc (str, optional): With "composition": the Ascend SoC, such as "Ascend910B4", that calls
            are laid out for, on any device target. Default: ``None`` , the device's own.

    Raises:
        ValueError: If there is no backend of that name, or no such SoC. That a backend does not
            serve the device target is said by the call that needs it.

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

    def __init__(self, name: str | None, soc: str | None = None) -> None:
        global _asked
        check_name("set_backend: 'name'", name)
        if soc is not None and name != "composition":
            raise ValueError(f"set_backend: 'soc' goes with \"composition\", got {name!r}")
        asked = name
        if soc is not None:
            asked = composition.LaidOut(Target(check_soc("set_backend: 'soc'", soc)))
        self._before, _asked = _asked, asked

    def __enter__(self) -> set_backend:
        return self

    def __exit__(self, *error: object) -> None:
        global _asked
        _asked = self._before


def check_name(what: str, name: str | None) -> None:
    names = dict.fromkeys(name for row in BACKENDS.values() for name in row)
    if name is not None and name not in names:
        raise ValueError(f"{what} must be one of {', '.join(names)}, or None, got {name!r}")


def check_soc(what: str, soc: str) -> ai_core.Product:
    product = ai_core.product_of(soc)
    if product is None:
        products = ", ".join(product.name for product in ai_core.PRODUCTS)
        raise ValueError(f"{what} must be a SoC of {products}, such as Ascend910B4, got {soc!r}")
    return product


def asked_backend() -> str | Backend | None:
    """What `set_backend` was called with last, or before the ``with`` block that ended."""
    return _asked


@contextmanager
def forced_backend(net: nn.Cell, backend: str | Backend) -> Iterator[None]:
    """All deformable layers of the network on one backend, whatever they were told."""
    global _asked
    layers = [(cell, cell.backend) for _, cell in net.cells_and_names() if hasattr(cell, "backend")]
    before, _asked = _asked, backend
    for cell, _ in layers:
        cell.backend = None
    try:
        yield
    finally:
        _asked = before
        for cell, name in layers:
            cell.backend = name


def choose_backend(call: Call, asked: str | None) -> Backend:
    """The backend that computes a call.

    Args:
        call: The call.
        asked: The name that the call's layer was given, which is stronger than `set_backend`.

    Raises:
        RuntimeError: If the device target has no backend, or none of that name.
        NotImplementedError: If the backend does not take the call, and no other one stands in.
    """
    row = BACKENDS.get(call.device_target)
    if row is None:
        raise RuntimeError(
            f"{call.caller}: there is no backend for device target {call.device_target!r}, "
            f"expected one of {', '.join(BACKENDS)}; choose one with mindspore.set_device, for "
            'example mindspore.set_device("CPU")'
        )
    name = asked or _asked or _default(call)
    backend = row.get(name) if isinstance(name, str) else name
    if backend is None:
        raise RuntimeError(
            f"{call.caller}: backend {name!r} does not serve device target "
            f"{call.device_target!r}, expected one of {', '.join(row)}; choose one with "
            f"ms_deform.set_backend, or another device with mindspore.set_device"
        )
    chosen = _without_obstacle(call, name, backend)
    why_off = composition.off_ai_core(call) if chosen is composition else None
    if why_off:
        _log_once(
            f"deform_conv2d: {why_off}; CANN computes it on the AICPU then, if at all. In training "
            "this project's own AICPU kernels stand in, once they are installed: "
            "python -m ms_deform build --aicpu, then python -m ms_deform install-aicpu"
        )
    return chosen


def _default(call: Call) -> str:
    """The name of the default for the call."""
    row = BACKENDS[call.device_target]
    for_inference = INFERENCE_DEFAULTS.get(call.device_target)
    if for_inference is not None and (not call.training or row[for_inference].trains()):
        return for_inference
    name = next(iter(row))
    if name != "composition" or composition.obstacle(call) or aicpu.obstacle(call):
        return name
    leaves_ai_core = composition.off_ai_core(call) is not None
    return "aicpu" if leaves_ai_core and aicpu_package(FORWARD.name) else name


def _without_obstacle(call: Call, name: str, backend: Backend) -> Backend:
    """The backend, or what stands in for it where it does not take the call."""
    why_not = backend.obstacle(call)
    if why_not is None:
        return backend
    stand_in = getattr(backend, "STAND_IN", None)
    if stand_in is None:
        raise NotImplementedError(
            f"{call.caller}: the backend {name!r} {why_not}; change that, or choose another "
            "backend with ms_deform.set_backend"
        )
    _log_once(f"deform_conv2d: the {stand_in} instead of {name}, which {why_not}")
    return _without_obstacle(call, stand_in, BACKENDS[call.device_target][stand_in])


@cache
def _log_once(text: str) -> None:
    log.warning(text)
