# SPDX-License-Identifier: Apache-2.0
"""The kernels that this machine can run without MindSpore, and what they are asked.

A problem holds deform_conv2d's arguments and grad_output, its arrays in float64; the answer is the
output and every gradient.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import reference
from aot_caller import AotCaller, HostMemory
from benchmark.aot_library import AotLibrary
from element_types import held_in, rounded
from geometries import Geometry
from kernel_driver import CROSS, Driver, missing_tools
from ms_deform.install.builder import CPU_INSTRUCTION_SETS, build
from ms_deform.install.library import find_library, loaded_isa
from reference import Gradients
from tolerances import assert_close, assert_gradients_close

Problem = dict[str, Any]
Answer = tuple[np.ndarray, Gradients]


@dataclass(frozen=True)
class Kernels:
    """The kernels of one library, in one instruction set."""

    solve: Callable[[Sequence[Problem], str], list[Answer]]
    matrix_unit: bool = False

    def answer(self, call: dict[str, Any], grad_output: np.ndarray, dtype: str) -> Answer:
        """The answer to a call whose values are rounded to the dtype first."""
        problem = {
            name: rounded(value, dtype) if isinstance(value, np.ndarray) else value
            for name, value in {**call, "grad_output": grad_output}.items()
        }
        (answer,) = self.solve([problem], dtype)
        return answer

    def assert_right(
        self, actual: Answer, expected: Answer, dtype: str, tolerance: float | None = None
    ) -> None:
        """Compares the output and every gradient."""
        assert_close(actual[0], expected[0], dtype, "output", tolerance, self.matrix_unit)
        assert_gradients_close(actual[1], expected[1], dtype, tolerance, self.matrix_unit)


# A loaded library has chosen its instruction set, so each of them gets a copy. All stay to the end:
# the loader knows a library by its inode, which a new file may get from a deleted one.
_copies = TemporaryDirectory()


@cache
def _copy(isa: str) -> tuple[Path, str]:
    """A copy of the CPU library that was told to use the instruction set, and its answer."""
    folder = Path(_copies.name, isa)
    folder.mkdir()
    copy = Path(shutil.copy(find_library("cpu"), folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MS_DEFORM_LIBRARY_DIR", str(folder))
        patch.setenv("MS_DEFORM_CPU_ISA", isa)
        return copy, loaded_isa("cpu")


def isas_here() -> list[str]:
    """The instruction sets that this machine has, the best first."""
    return [isa for isa in CPU_INSTRUCTION_SETS[platform.machine()] if _copy(isa)[1] == isa]


def cpu_targets() -> list[Any]:
    """(machine, instruction set) of all that run here, as parameters of tests.

    An emulated machine takes a minute for what a real one does in a second.
    """
    here = platform.machine()
    emulated = [
        (machine, isa)
        for machine in CROSS
        if machine != here and not missing_tools(machine)
        for isa in CPU_INSTRUCTION_SETS[machine]
    ]
    return [
        *((here, isa) for isa in isas_here()),
        *(pytest.param(target, marks=pytest.mark.long) for target in emulated),
    ]


def native_kernels(isa: str) -> Kernels:
    library, _ = _copy(isa)
    return Kernels(AotCaller(AotLibrary(library, Path(_copies.name)), HostMemory()).solve)


def kernels_of_wide_vectors(folder: Path) -> Kernels:
    """Those of AVX-512 without its instructions: the compiler makes its vectors of smaller ones."""
    isas = CPU_INSTRUCTION_SETS[platform.machine()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            CPU_INSTRUCTION_SETS,
            platform.machine(),
            {list(isas)[-1]: "-D__AVX512F__ -Wno-psabi"},
        )
        library = build("cpu", directory=folder, extra_flags=("-O1",))
    return Kernels(AotCaller(AotLibrary(library, folder), HostMemory()).solve)


def cuda_kernels(library: Path) -> Kernels:
    """Those of a library on the emulation of a GPU."""
    caller = AotCaller(AotLibrary(library, library.parent), HostMemory())
    return Kernels(caller.solve, matrix_unit=True)


def emulated_kernels(driver: Driver, isa: str) -> Kernels:
    """Those of another machine."""
    return Kernels(replace(driver, isa=isa).solve)


def problem_of(geometry: Geometry, dtype: str, seed: int = 0) -> Problem:
    """In values that dtype holds."""
    return held_in(dtype, {**geometry.call(seed), "grad_output": geometry.grad_output(seed)})


def by_reference(problem: Problem) -> Answer:
    call = {name: value for name, value in problem.items() if name != "grad_output"}
    return reference.deform_conv2d(**call), reference.deform_conv2d_grad(**problem)
