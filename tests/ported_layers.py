# SPDX-License-Identifier: Apache-2.0
"""Layers of other libraries at the size of a test: how they are made and called, with what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

SIZE = (5, 6)


class Case(NamedTuple):
    layer: str
    arguments: dict[str, Any]
    inputs: tuple[tuple[int, ...], ...]  # their shapes
    output: tuple[int, ...]


STRIDED = {
    "kernel_size": (3, 2),
    "stride": (2, 1),
    "padding": (1, 2),
    "dilation": (1, 2),
    "groups": 2,
}
ALIGNMENT = {"in_channels": 8, "out_channels": 4, "kernel_size": 3, "padding": 1}


def _case(layer: str, batch: int, inputs: int, **arguments: Any) -> Case:
    out_size = (3, 8) if "stride" in arguments else SIZE
    channels = {"in_channels": 4, "out_channels": 6}
    shape = (batch, channels["in_channels"], *SIZE)
    return Case(layer, {**channels, **arguments}, (shape,) * inputs, (batch, 6, *out_size))


def _alignment(batch: int, size: tuple[int, int], **arguments: Any) -> Case:
    shapes = [(batch, channels, *size) for channels in (8, 12, 2, 2)]
    arguments = {**ALIGNMENT, **arguments}
    return Case("SecondOrderDeformableAlignment", arguments, tuple(shapes), (batch, 4, *size))


CASES = {
    "DeformConv2dPack": _case("DeformConv2dPack", 2, 1, kernel_size=3, padding=1),
    "DeformConv2dPack, strided": _case("DeformConv2dPack", 1, 1, **STRIDED, deform_groups=4),
    "ModulatedDeformConv2dPack": _case("ModulatedDeformConv2dPack", 2, 1, kernel_size=3, padding=1),
    "ModulatedDeformConv2dPack, strided": _case(
        "ModulatedDeformConv2dPack", 1, 1, **STRIDED, deform_groups=4
    ),
    "DCNv2Pack": _case("DCNv2Pack", 2, 2, kernel_size=3, padding=1, deformable_groups=2),
    "DCNv2Pack, strided": _case("DCNv2Pack", 1, 2, **STRIDED, deformable_groups=4, bias=False),
    "SecondOrderDeformableAlignment": _alignment(2, (9, 11), deform_groups=4),
    "SecondOrderDeformableAlignment, near": _alignment(
        1, SIZE, deformable_groups=2, max_residue_magnitude=2.5
    ),
}


# Those whose answers are recorded; the others are compared live alone.
RECORDED = [name for name in CASES if "strided" in name or "near" in name]


def random_parameters(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Such that outputs are about as large as inputs, and residues reach where tanh is 1."""
    rng = np.random.default_rng(seed)
    return {
        name: _rounded(rng.normal(size=shape) * 2 / math.sqrt(math.prod(shape[1:])))
        for name, shape in shapes.items()
    }


def random_call(case: Case, seed: int) -> dict[str, np.ndarray]:
    """The inputs and the gradient of the output, by the names of recorded answers."""
    rng = np.random.default_rng(seed)
    shapes = {f"input/{i}": shape for i, shape in enumerate(case.inputs)}
    return {
        name: _rounded(rng.normal(size=shape))
        for name, shape in {**shapes, "grad_output": case.output}.items()
    }


def _rounded(values: np.ndarray) -> np.ndarray:
    """To what float16 holds: small in a file, and the same in every other dtype.

    To odd multiples of 1/128, as no flow may end on a pixel, where gradients jump: far out, where
    tanh is 1, all residues are the same.
    """
    return ((np.floor(64 * values) + 0.5) / 64).astype(np.float16)
