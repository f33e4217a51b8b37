# SPDX-License-Identifier: Apache-2.0
"""The CUDA library on a GPU's memory, which torch or CuPy gives; MindSpore is not needed.

Where it is missing: python -m pytest --confcutdir tests/gpu tests/gpu
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from device_memory import MEMORIES

from aot_caller import AotCaller
from benchmark.aot_library import AotLibrary
from ms_deform.install.builder import BuildError, build


@pytest.fixture(scope="session", params=list(MEMORIES))
def memory(request: pytest.FixtureRequest):
    try:
        return MEMORIES[request.param]()
    except Exception as error:  # each package has its own for a GPU that is not there
        reason, _, _ = str(error).partition("\n")
        pytest.skip(f"{request.param} has no NVIDIA GPU here: {reason}")


@pytest.fixture(scope="session")
def library(memory, tmp_path_factory: pytest.TempPathFactory) -> AotLibrary:
    try:
        return AotLibrary(build("cuda"), tmp_path_factory.mktemp("caller"))
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def caller(library: AotLibrary, memory) -> AotCaller:
    return AotCaller(library, memory)
