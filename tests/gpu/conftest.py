# SPDX-License-Identifier: Apache-2.0
"""The CUDA library on a GPU's memory, which torch or CuPy gives; MindSpore is not needed.

Where it is missing: python -m pytest --confcutdir tests/gpu tests/gpu
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from device_memory import usable_memories

from aot_caller import AotCaller, Memory
from benchmark.aot_library import AotLibrary
from kernels import Kernels
from ms_deform.install.builder import BuildError, build

MEMORIES, WHY_NOT = usable_memories()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU one test stays, to say so."""
    here = Path(__file__).parent
    if not MEMORIES:
        ours = [item for item in items if here in item.path.parents]
        for item in ours[1:]:
            items.remove(item)


@pytest.fixture(scope="session", params=list(MEMORIES) or [None])
def memory(request: pytest.FixtureRequest) -> Memory:
    if request.param is None:
        pytest.skip("; ".join(WHY_NOT))
    return MEMORIES[request.param]


@pytest.fixture(scope="session")
def library(memory, tmp_path_factory: pytest.TempPathFactory) -> AotLibrary:
    try:
        return AotLibrary(build("cuda"), tmp_path_factory.mktemp("caller"))
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def caller(library: AotLibrary, memory) -> AotCaller:
    return AotCaller(library, memory)


@pytest.fixture(scope="session")
def kernels(caller: AotCaller) -> Kernels:
    return Kernels(caller.solve, matrix_unit=True)
