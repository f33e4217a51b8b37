# SPDX-License-Identifier: Apache-2.0
"""Deformable convolution for MindSpore, with torchvision's arguments and results."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ms_deform._version import __version__

if TYPE_CHECKING:
    from ms_deform.backends import set_backend
    from ms_deform.determinism import set_deterministic
    from ms_deform.errors import last_error
    from ms_deform.export.mindir import export_mindir
    from ms_deform.export.onnx import export_onnx
    from ms_deform.memory import release_scratch, scratch_bytes
    from ms_deform.nn import DeformConv2d
    from ms_deform.ops import deform_conv2d
    from ms_deform.port.basicsr import DCNv2Pack, SecondOrderDeformableAlignment
    from ms_deform.port.mmcv import DeformConv2dPack, ModulatedDeformConv2dPack
    from ms_deform.port.packed import deformable_conv2d, pack_offset, unpack_offset
    from ms_deform.viz import record_offsets

__all__ = [
    "DCNv2Pack",
    "DeformConv2d",
    "DeformConv2dPack",
    "ModulatedDeformConv2dPack",
    "SecondOrderDeformableAlignment",
    "__version__",
    "deform_conv2d",
    "deformable_conv2d",
    "export_mindir",
    "export_onnx",
    "last_error",
    "pack_offset",
    "record_offsets",
    "release_scratch",
    "scratch_bytes",
    "set_backend",
    "set_deterministic",
    "unpack_offset",
]

# Imported at first use: the package build and `python -m ms_deform` must work without MindSpore.
_HOMES = {
    "DCNv2Pack": "ms_deform.port.basicsr",
    "DeformConv2d": "ms_deform.nn",
    "DeformConv2dPack": "ms_deform.port.mmcv",
    "ModulatedDeformConv2dPack": "ms_deform.port.mmcv",
    "SecondOrderDeformableAlignment": "ms_deform.port.basicsr",
    "deform_conv2d": "ms_deform.ops",
    "deformable_conv2d": "ms_deform.port.packed",
    "export_mindir": "ms_deform.export.mindir",
    "export_onnx": "ms_deform.export.onnx",
    "last_error": "ms_deform.errors",
    "pack_offset": "ms_deform.port.packed",
    "record_offsets": "ms_deform.viz",
    "release_scratch": "ms_deform.memory",
    "scratch_bytes": "ms_deform.memory",
    "set_backend": "ms_deform.backends",
    "set_deterministic": "ms_deform.determinism",
    "unpack_offset": "ms_deform.port.packed",
}


def __getattr__(name: str) -> object:
    if name == "viz":
        return import_module("ms_deform.viz")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
