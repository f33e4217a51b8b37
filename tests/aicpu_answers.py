# SPDX-License-Identifier: Apache-2.0
"""Checks what the AICPU kernels answer against the reference."""

from __future__ import annotations

from geometries import Geometry
from kernel_driver import Driver
from kernels import Problem, by_reference, problem_of
from tolerances import assert_close, assert_gradients_close


def problems(shapes: list[Geometry], dtype: str) -> list[Problem]:
    return [problem_of(shape, dtype, seed) for seed, shape in enumerate(shapes)]


def assert_solved(driver: Driver, calls: list[Problem], dtype: str, **environment: str) -> None:
    answers = driver.solve(calls, dtype, **environment)
    assert len(answers) == len(calls)
    for call, (output, gradients) in zip(calls, answers):
        expected_output, expected = by_reference(call)
        assert_close(output, expected_output, dtype, "output")
        # The gradient of bias is MindSpore's sum.
        without_bias = (item._replace(bias=None) for item in (gradients, expected))
        assert_gradients_close(*without_bias, dtype)
