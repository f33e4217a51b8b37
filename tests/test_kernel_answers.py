# SPDX-License-Identifier: Apache-2.0
"""Every library of kernels gives the reference's answers and torchvision's, without MindSpore."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recorded
from element_types import ELEMENT_BYTES, rounded
from finite_differences import assert_gradients_match_differences
from geometries import CUDA_BLOCKS, GRID, Geometry
from kernels import Answer, Kernels, Problem, by_reference, problem_of
from random_geometries import geometries

GEOMETRIES = {**GRID, **CUDA_BLOCKS}


@cache
def problem(name: str, dtype: str) -> Problem:
    return problem_of(GEOMETRIES[name], dtype)


@cache
def expected(name: str, dtype: str) -> Answer:
    return by_reference(problem(name, dtype))


@pytest.fixture(scope="module", params=ELEMENT_BYTES)
def solved(request: pytest.FixtureRequest, kernels: Kernels) -> tuple[str, dict[str, Answer]]:
    """A dtype, and in it the answer to every geometry."""
    answers = kernels.solve([problem(name, request.param) for name in GEOMETRIES], request.param)
    return request.param, dict(zip(GEOMETRIES, answers))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_output_and_gradients_equal_the_reference(
    kernels: Kernels, solved: tuple[str, dict[str, Answer]], name: str
) -> None:
    dtype, answers = solved
    kernels.assert_right(answers[name], expected(name, dtype), dtype)


def assert_several_right(kernels: Kernels, several: list[Geometry], dtype: str) -> None:
    problems = [problem_of(geometry, dtype, seed) for seed, geometry in enumerate(several)]
    answers = kernels.solve(problems, dtype)
    assert len(answers) == len(problems)
    for actual, asked in zip(answers, problems):
        kernels.assert_right(actual, by_reference(asked), dtype)


@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
@settings(max_examples=40)
@given(several=st.lists(geometries(), min_size=1, max_size=5))
def test_random_geometries_equal_the_reference(
    cpu_kernels: Kernels, dtype: str, several: list[Geometry]
) -> None:
    assert_several_right(cpu_kernels, several, dtype)


@pytest.mark.parametrize("kernels", [("cuda", "emulated")], indirect=True, ids="-".join)
@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
@settings(max_examples=6)
@given(several=st.lists(geometries(), min_size=1, max_size=5))
def test_random_geometries_equal_the_reference_on_the_emulation_of_a_gpu(
    kernels: Kernels, dtype: str, several: list[Geometry]
) -> None:
    assert_several_right(kernels, several, dtype)


@pytest.mark.parametrize("dtype, tolerance", recorded.TOLERANCES.items())
@pytest.mark.parametrize("case", recorded.CASES)
def test_the_answer_is_the_recorded_one_of_torchvision(
    kernels: Kernels, case: str, dtype: str, tolerance: float
) -> None:
    call, grad_output, *answer = recorded.CASES[case]
    actual = kernels.answer(call, grad_output, dtype)
    kernels.assert_right(actual, answer, dtype, tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_halves_are_rounded_once_to_the_nearest(kernels: Kernels, dtype: str) -> None:
    """A product of two halves is exact in float32, so that only the output's rounding is left."""
    rng = np.random.default_rng(0)
    call = {
        "input": rounded(rng.normal(size=(1, 1, 30, 40)), dtype),
        "offset": np.zeros((1, 2, 30, 40)),
        "weight": rounded(rng.normal(size=(1, 1, 1, 1)), dtype),
    }
    ones = np.ones_like(call["input"])
    output, gradients = kernels.answer(call, ones, dtype)
    np.testing.assert_array_equal(output, rounded(call["input"] * call["weight"], dtype))
    np.testing.assert_array_equal(gradients.input, ones * call["weight"])


@pytest.mark.parametrize(
    "name",
    ["torchvision's own", "more groups than offset groups", "no mask", "four-sided padding"],
)
def test_gradients_equal_finite_differences(cpu_kernels: Kernels, name: str) -> None:
    grad_output = GRID[name].grad_output()
    assert_gradients_match_differences(
        forward=lambda call: cpu_kernels.answer(call, grad_output, "float64")[0],
        gradients=lambda call: cpu_kernels.answer(call, grad_output, "float64")[1],
        call=GRID[name].call(),
        grad_output=grad_output,
    )
