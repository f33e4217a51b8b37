# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels are asked, on a GPU and on its emulation, and how far they may be off."""

from __future__ import annotations

from typing import Any

import numpy as np

import reference
from element_types import held_in
from geometries import Geometry
from reference import Gradients
from tolerances import TOLERANCES, assert_close

# Below, at and above what a block of the kernels takes, on every axis of its tiles.
BLOCKS = {
    "64 channels to 64": Geometry(batch=1, channels_in=64, channels_out=64, size=(3, 9)),
    "136 channels to 129": Geometry(batch=1, channels_in=136, channels_out=129, size=(3, 9)),
    "72 channels to 65, no mask": Geometry(
        batch=1, channels_in=72, channels_out=65, size=(8, 9), kernel=(1, 1), use_mask=False
    ),
    "16 offset groups": Geometry(
        batch=1, channels_in=128, channels_out=16, size=(5, 7), offset_groups=16
    ),
    "8 groups of 8": Geometry(batch=1, channels_in=64, channels_out=64, groups=8, size=(5, 7)),
    "24 channels in 3 groups, 1 offset group": Geometry(channels_in=24, channels_out=6, groups=3),
    "48 channels, 3 groups, 2 offset groups": Geometry(
        channels_in=48, channels_out=6, groups=3, offset_groups=2
    ),
    "5x5 kernel: more rows than a plan": Geometry(
        batch=1, channels_in=16, channels_out=8, kernel=(5, 5), padding=(2, 2), size=(6, 7)
    ),
}


def problem_of(geometry: Geometry, dtype: str, seed: int = 0) -> dict[str, Any]:
    """A call and grad_output, in values that dtype holds."""
    return held_in(dtype, {**geometry.call(seed), "grad_output": geometry.grad_output(seed)})


def assert_right(
    output: np.ndarray, gradients: Gradients, problem: dict[str, Any], dtype: str, name: str = ""
) -> None:
    call = {key: value for key, value in problem.items() if key != "grad_output"}
    exact = reference.deform_conv2d_grad(problem["grad_output"], **call)
    expected = {"output": reference.deform_conv2d(**call), **exact._asdict()}
    for what, value in {"output": output, **gradients._asdict()}.items():
        if value is not None:
            title = f"{name}: {what}" if name else what
            try:
                assert_close(value, expected[what], dtype, what, _tolerance(dtype, what))
            except AssertionError as error:
                raise AssertionError(f"{title}: {error}") from None


def _tolerance(dtype: str, what: str) -> float:
    """The matrix unit takes samples rounded to the half types: one rounding more in a product."""
    rounded = dtype in ("float16", "bfloat16") and what in ("output", "weight")
    return TOLERANCES[dtype, what] * (2 if rounded else 1)
