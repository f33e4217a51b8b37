# SPDX-License-Identifier: Apache-2.0
"""From a call to the backend that computes it, and to that backend's primitives."""

from __future__ import annotations

from functools import cache, lru_cache

from mindspore import dtype as mstype
from mindspore import log
from mindspore.common.dtype import Type

from ms_deform.backends import EXPORT, aclnn, aicpu, asked_backend, choose_backend, composition
from ms_deform.backends.aot import forward_primitive
from ms_deform.export import onnx as onnx_export
from ms_deform.geometry import Geometry, TensorInfo, check_geometry


def usable_backend(device_target: str, asked: str | None, training: bool) -> str:
    """The chosen backend, or the composition where MindSpore's mode is in aclnn's way."""
    name = choose_backend(device_target, asked or asked_backend(), training)
    why_not = aclnn.mode_obstacle() if name == "aclnn" else None
    return name if why_not is None else _composition_instead(why_not)


# Bounded: data of ever new sizes must not fill the memory. The constants' text is a part of the key
# because 1, 1.0 and True are equal, and only one of them is a stride.
@lru_cache(maxsize=4096)
def primitives_of(
    backend: str,
    device_target: str,
    deterministic: bool,
    casts: bool,
    constants_text: str,
    tensors: tuple[tuple[object, Type] | None, ...],
    constants: tuple[object, ...],
) -> tuple[str, tuple[object, ...]]:
    """The backend that computes the call, after all its checks, and what that backend needs."""
    infos = [tensor and TensorInfo(*tensor) for tensor in tensors]
    if casts:
        infos = [info and info._replace(dtype=mstype.float32) for info in infos]
    geometry = check_geometry(*infos, *constants)
    input, offset, weight, _, _ = infos
    if backend in ("composition", "aclnn"):
        return _of_mindspore_and_cann(backend, device_target, geometry, input, offset, weight)
    if backend == "aicpu":
        aicpu.check_dtype(input.dtype)
        primitive = aicpu.forward_primitive(geometry.use_bias)
        return backend, (primitive, aicpu.geometry_tensor(geometry))
    name = onnx_export.operator_name(geometry, input, offset, weight) if backend == EXPORT else None
    return backend, (forward_primitive(device_target, geometry, deterministic, name),)


def _of_mindspore_and_cann(
    backend: str,
    device_target: str,
    geometry: Geometry,
    input: TensorInfo,
    offset: TensorInfo,
    weight: TensorInfo,
) -> tuple[str, tuple[object, ...]]:
    """The composition, or aclnn where that can be."""
    composition.check_limits(device_target, input, offset, weight)
    channels = input.shape[1], offset.shape[1]
    composed = composition.primitives(geometry, *channels, weight.shape)
    if backend == "composition":
        return backend, composed
    why_not = aclnn.obstacle(input, offset, weight)
    if why_not is not None:
        return _composition_instead(why_not), composed
    return backend, (aclnn.primitive(*composed), aclnn.constants(geometry, input, offset, weight))


@cache
def _composition_instead(why_not: str) -> str:
    log.warning(f"deform_conv2d: the composition instead of aclnnDeformableConv2d: {why_not}")
    return "composition"
