# SPDX-License-Identifier: Apache-2.0
"""The CUDA library on a GPU's memory, which torch or CuPy gives; MindSpore is not needed.

Where it is missing: python -m pytest --confcutdir tests/gpu tests/gpu
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from device_memory import usable_memory

from aot_caller import AotCaller, Memory
from benchmark.aot_library import AotLibrary
from kernels import Kernels
from ms_deform.install.builder import BuildError, build, find_nvcc
from ms_deform.install.library import LibraryError, library_path, read_info

MEMORY, WHY_NOT = usable_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU one test stays, to say so."""
    here = Path(__file__).parent
    if MEMORY is None:
        ours = [item for item in items if here in item.path.parents]
        for item in ours[1:]:
            items.remove(item)


@pytest.fixture(scope="session")
def memory() -> Memory:
    if MEMORY is None:
        pytest.skip("; ".join(WHY_NOT))
    return MEMORY


@pytest.fixture(scope="session")
def library(memory, tmp_path_factory: pytest.TempPathFactory) -> AotLibrary:
    try:
        find_nvcc()
    except BuildError as error:
        pytest.skip(str(error))
    architectures = built_for() or [memory.architecture()]
    return AotLibrary(build("cuda", architectures=architectures), tmp_path_factory.mktemp("caller"))


def built_for() -> list[str]:
    """The GPUs of the library in place, which the tests bring up to date and not to another one."""
    try:
        isas = read_info(library_path("cuda")).isas
    except LibraryError:
        return []
    return [isa for isa in isas if isa.startswith("sm_")]


@pytest.fixture(scope="session")
def caller(library: AotLibrary, memory) -> AotCaller:
    return AotCaller(library, memory)


@pytest.fixture(scope="session")
def kernels(caller: AotCaller) -> Kernels:
    return Kernels(caller.solve, matrix_unit=True)
