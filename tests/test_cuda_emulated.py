# SPDX-License-Identifier: Apache-2.0
"""What only the CUDA kernels promise, on the emulation of a GPU: their very sources.

test_kernel_answers.py and others prove their answers as those of every other library.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from aot_caller import AotCaller, HostMemory
from benchmark.aot_library import AotLibrary
from cuda_emulation import build_emulated, build_meetings
from element_types import ELEMENT_BYTES
from geometries import CUDA_BLOCKS, GRID, Geometry
from kernel_driver import Driver, build_driver
from kernels import Answer, by_reference, cuda_kernels, problem_of
from test_kernels_alone import SANITIZERS

GEOMETRIES = [*GRID.values(), *CUDA_BLOCKS.values()]


@pytest.fixture(scope="module")
def caller(emulated_cuda: Path) -> AotCaller:
    return AotCaller(AotLibrary(emulated_cuda, emulated_cuda.parent), HostMemory())


@pytest.fixture(scope="module")
def deterministic(caller: AotCaller):
    """A function that gives the answers to every geometry in a dtype."""

    @cache
    def solve(dtype: str) -> list[Answer]:
        problems = [problem_of(geometry, dtype) for geometry in GEOMETRIES]
        return caller.solve(problems, dtype, deterministic=True)

    return solve


@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
def test_deterministic_gradients_equal_the_reference(
    emulated_cuda: Path, deterministic, dtype: str
) -> None:
    for geometry, answer in zip(GEOMETRIES, deterministic(dtype)):
        expected = by_reference(problem_of(geometry, dtype))
        cuda_kernels(emulated_cuda).assert_right(answer, expected, dtype)


# The matrix unit takes the halves, and threads the rest.
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_order_of_threads_and_blocks_does_not_matter(
    caller: AotCaller, deterministic, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    ascending = deterministic(dtype)
    monkeypatch.setenv("MS_EMULATION_ORDER", "descending")
    problems = [problem_of(geometry, dtype) for geometry in GEOMETRIES]
    descending = caller.solve(problems, dtype, deterministic=True)
    for (output, gradients), (other_output, other_gradients) in zip(ascending, descending):
        np.testing.assert_array_equal(output, other_output)
        for one, other in zip(gradients, other_gradients):
            assert one is other is None or np.array_equal(one, other)


@pytest.mark.long
def test_halves_are_right_on_a_gpu_without_a_matrix_unit_for_them(tmp_path: Path) -> None:
    kernels = cuda_kernels(build_emulated(tmp_path, ["-D__CUDA_ARCH__=600"]))
    for dtype in ("float16", "bfloat16"):
        problems = [problem_of(geometry, dtype) for geometry in GEOMETRIES]
        for answer, problem in zip(kernels.solve(problems, dtype), problems):
            kernels.assert_right(answer, by_reference(problem), dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["grad_output", "mask", "weight"])
def test_a_deterministic_gradient_of_what_is_not_finite_is_nan(
    caller: AotCaller, name: str, value: float
) -> None:
    problem = problem_of(Geometry(), "float32")
    problem[name].flat[3] = value
    grad_output = problem.pop("grad_output")
    gradients = caller.gradients(problem, grad_output, "float32", deterministic=True)
    assert np.isnan(gradients.input).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_deterministic_gradient_is_as_exact_at_any_scale(
    caller: AotCaller, dtype: str, scale: float
) -> None:
    problem = problem_of(Geometry(), dtype)
    grad_output = problem.pop("grad_output")
    exact = caller.gradients(problem, grad_output, dtype, deterministic=True).input
    # A power of two: the values below are exactly the same, but for their exponents.
    factor = 2.0 ** np.round(np.log2(scale))
    scaled = caller.gradients(problem, grad_output * factor, dtype, deterministic=True).input
    assert np.array_equal(scaled, exact * factor)


@pytest.mark.parametrize("optimisation", ["-O0", "-O2", "-O3"])
def test_threads_meet_however_the_emulation_is_compiled(tmp_path: Path, optimisation: str) -> None:
    subprocess.run([build_meetings(tmp_path, [optimisation])], check=True, timeout=60)


@pytest.mark.long
def test_random_and_hostile_calls_are_clean_under_sanitizers(tmp_path: Path) -> None:
    library = build_emulated(tmp_path, SANITIZERS)
    done = Driver(build_driver(tmp_path, library, SANITIZERS)).run("sweep", 7, 8)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("allocate", r"CUDA: cannot allocate \d+ bytes of scratch: out of memory"),
        ("launch", "CUDA: packing the weights: invalid configuration argument"),
    ],
)
def test_what_cuda_refuses_reaches_the_caller(
    caller: AotCaller, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    problem = problem_of(Geometry(), "float32")
    del problem["grad_output"]
    monkeypatch.setenv("MS_EMULATION_FAIL", what)
    with pytest.raises(RuntimeError, match=message) as raised:
        caller.forward(problem, "float32")
    assert caller.library.last_error() == str(raised.value)
    monkeypatch.delenv("MS_EMULATION_FAIL")
    caller.forward(problem, "float32")


def test_scratch_is_kept_for_the_next_call_and_given_back(caller: AotCaller) -> None:
    problem = problem_of(Geometry(), "float32")
    grad_output = problem.pop("grad_output")
    caller.library.release_scratch()
    assert caller.library.scratch_bytes() == 0
    caller.gradients(problem, grad_output, "float32")
    held = caller.library.scratch_bytes()
    assert held > 0
    caller.gradients(problem, grad_output, "float32")
    assert caller.library.scratch_bytes() == held
    caller.library.release_scratch()
    assert caller.library.scratch_bytes() == 0
