# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels give the right answers: their very sources, on the emulation of a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from cuda_emulation import build_emulated
from geometries import GRID, Geometry, geometries
from kernel_driver import Driver, build_driver
from operator_under_test import DTYPES, held_in
from reference import Gradients
from tolerances import TOLERANCES, assert_close

# Below, at and above what a block of the kernels takes, on every axis of its tiles.
TILES = {
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
ALL = {**GRID, **TILES}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    folder = tmp_path_factory.mktemp("emulated")
    return Driver(build_driver(folder, build_emulated(folder)))


def problem_of(geometry: Geometry, dtype: str, seed: int = 0) -> dict[str, Any]:
    return held_in(
        dtype, {**geometry.call(seed), "grad_output": geometry.grad_output(seed)}
    )


def expected_of(problem: dict[str, Any]) -> dict[str, np.ndarray]:
    call = {name: value for name, value in problem.items() if name != "grad_output"}
    gradients = reference.deform_conv2d_grad(problem["grad_output"], **call)
    return {"output": reference.deform_conv2d(**call), **gradients._asdict()}


def assert_right(
    answer: tuple[np.ndarray, Gradients], problem: dict[str, Any], dtype: str
) -> None:
    output, gradients = answer
    expected = expected_of(problem)
    for name, value in {"output": output, **gradients._asdict()}.items():
        if value is not None:
            assert_close(value, expected[name], dtype, name, tolerance(problem, dtype, name))


def tolerance(problem: dict[str, Any], dtype: str, name: str) -> float:
    """The matrix unit takes samples rounded to the half types: one rounding more for a product."""
    rounds = dtype in ("float16", "bfloat16") and name in ("output", "weight")
    return TOLERANCES[dtype, name] * (2 if rounds else 1)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_geometry_is_right_forward_and_backward(
    emulated: Driver, tmp_path: Path, dtype: str, deterministic: bool
) -> None:
    problems = [problem_of(geometry, dtype) for geometry in ALL.values()]
    answers = emulated.solve(problems, dtype, tmp_path, deterministic)
    for name, answer, problem in zip(ALL, answers, problems):
        try:
            assert_right(answer, problem, dtype)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
