# SPDX-License-Identifier: Apache-2.0
"""Every instruction set gives the right answers, and the best is chosen.

Without MindSpore, so that the sets of a machine that is not this one run in an emulator.
"""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recorded
import reference
from element_types import held_in
from geometries import GRID, Geometry, geometries
from kernel_driver import CROSS, Driver, build_driver, cross_driver
from ms_deform.install.builder import CPU_INSTRUCTION_SETS
from ms_deform.install.library import find_library
from operator_under_test import DTYPES
from reference import Gradients
from tolerances import assert_close, assert_gradients_close

MACHINES = {
    machine: isas
    for machine, isas in CPU_INSTRUCTION_SETS.items()
    if machine == platform.machine() or machine in CROSS
}
# More channels than the kernels' blocks hold, and several of their tiles.
WIDE = {
    f"{height}x{width} kernel, wide": Geometry(
        channels_in=130,
        channels_out=70,
        groups=2,
        offset_groups=2,
        size=(13, 17),
        kernel=(height, width),
        padding=(height // 2, width // 2),
    )
    for height, width in ((1, 1), (3, 3), (7, 7))
}
WIDE["depthwise, wide"] = Geometry(channels_in=131, channels_out=131, groups=131)
GEOMETRIES = {**GRID, **WIDE}

Answer = tuple[np.ndarray, Gradients]


@pytest.fixture(scope="module")
def driver_of(tmp_path_factory):
    """A function that gives the driver for a machine."""

    @cache
    def driver(machine: str) -> Driver:
        folder = tmp_path_factory.mktemp(machine)
        if machine == platform.machine():
            return Driver(build_driver(folder, find_library("cpu")))
        return cross_driver(machine, folder)

    return driver


@pytest.fixture(
    scope="module",
    params=[(machine, isa) for machine, isas in MACHINES.items() for isa in isas],
    ids="-".join,
)
def driver(request, driver_of) -> Driver:
    machine, isa = request.param
    driver = replace(driver_of(machine), isa=isa)
    told = isa_in_use(driver)
    if "is not available here" in told:
        pytest.skip(f"this machine has no {isa}")
    assert told == isa
    return driver


def isa_in_use(driver: Driver) -> str:
    return driver.run("isa").stdout.strip()


@cache
def problem(name: str, dtype: str) -> dict[str, Any]:
    return held(GEOMETRIES[name], dtype)


def held(geometry: Geometry, dtype: str) -> dict[str, Any]:
    return held_in(dtype, {**geometry.call(), "grad_output": geometry.grad_output()})


@cache
def expected(name: str, dtype: str) -> Answer:
    return by_reference(problem(name, dtype))


def by_reference(problem: dict[str, Any]) -> Answer:
    call = {name: value for name, value in problem.items() if name != "grad_output"}
    return reference.deform_conv2d(**call), reference.deform_conv2d_grad(**problem)


def assert_same(
    actual: Answer, expected: Answer, dtype: str, tolerance: float | None = None
) -> None:
    assert_close(actual[0], expected[0], dtype, "output", tolerance)
    assert_gradients_close(actual[1], expected[1], dtype, tolerance)


@pytest.mark.parametrize("dtype, tolerance", recorded.TOLERANCES.items())
@pytest.mark.parametrize("case", recorded.CASES)
def test_the_answer_is_torchvisions(driver, tmp_path, case, dtype, tolerance):
    call, grad_output, *answer = recorded.CASES[case]
    (actual,) = driver.solve([{**call, "grad_output": grad_output}], dtype, tmp_path)
    assert_same(actual, answer, dtype, tolerance)


@pytest.fixture(scope="module", params=DTYPES)
def solved(request, driver, tmp_path_factory) -> tuple[str, dict[str, Answer]]:
    """A dtype, and in it the answer to every geometry."""
    problems = [problem(name, request.param) for name in GEOMETRIES]
    answers = driver.solve(problems, request.param, tmp_path_factory.mktemp("solved"))
    return request.param, dict(zip(GEOMETRIES, answers))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_output_and_gradients_equal_the_reference(solved, name):
    dtype, answers = solved
    assert_same(answers[name], expected(name, dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=10)
@given(several=st.lists(geometries(), min_size=1, max_size=5))
def test_random_geometries_equal_the_reference(driver, tmp_path_factory, dtype, several):
    problems = [held(geometry, dtype) for geometry in several]
    folder = tmp_path_factory.mktemp("random")
    for problem, actual in zip(problems, driver.solve(problems, dtype, folder)):
        assert_same(actual, by_reference(problem), dtype)


def test_the_number_of_threads_does_not_change_a_bit(driver, tmp_path):
    problems = [problem(name, "float32") for name in WIDE]
    bits = set()
    for threads in "13":
        driver.solve(problems, "float32", tmp_path, OMP_NUM_THREADS=threads)
        bits.add((tmp_path / "answers").read_bytes())
    assert len(bits) == 1


# The first has no instruction beyond those that every machine has; the last has all.
@pytest.mark.parametrize("cpu", ("cortex-a53", "max"))
def test_random_and_hostile_calls_on_emulated_machines(driver_of, cpu):
    done = driver_of("aarch64").run("sweep", 7, 150, QEMU_CPU=cpu)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_best_instruction_set_of_the_machine_is_chosen(driver_of):
    flags = Path("/proc/cpuinfo").read_text()
    known = {"avx512": "avx512vl" in flags, "avx2": "avx2" in flags, "baseline": True, "neon": True}
    wanted = next(isa for isa in MACHINES[platform.machine()] if known[isa])
    assert isa_in_use(driver_of(platform.machine())) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_an_unknown_instruction_set_is_refused_in_words(driver_of, machine):
    refused = isa_in_use(replace(driver_of(machine), isa="mmx"))
    assert re.search(
        "MS_DEFORM_CPU_ISA=mmx is not available here; unset it or use one of: "
        f".*{list(MACHINES[machine])[-1]}$",
        refused,
    )


def test_kernels_of_different_instruction_sets_share_no_code():
    """A function that the linker could merge would run, say, AVX-512 code on any machine."""
    symbols = subprocess.run(
        ["nm", "-C", "--defined-only", find_library("cpu")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    mergeable = [line for line in symbols.splitlines() if re.match(r"\w+ [WVu] ", line)]
    assert mergeable
    isas = "|".join(MACHINES[platform.machine()])
    for line in mergeable:
        name = line.split(maxsplit=2)[2]
        in_namespace = re.search(rf"ms_deform::({isas})::", name)
        # The rest comes from entry.cc and common/, compiled for the baseline.
        from_standard_library = name.startswith(("std::", "void std::", "DW.ref", "__gnu_cxx::"))
        known = re.match(r"(typeinfo|vtable|.*ms_deform::AotExtra)", name)
        assert in_namespace or from_standard_library or known, name
