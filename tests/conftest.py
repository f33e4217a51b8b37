# SPDX-License-Identifier: Apache-2.0
"""The device and the mode every numerical test runs in, and seeds."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")  # MindSpore warns of every empty batch and every recompile

import hypothesis
import mindspore as ms
import numpy as np
import pytest

from cuda_emulation import build_emulated
from ms_deform.backends import set_backend
from ms_deform.install.library import LIBRARY_TARGETS, LibraryError, find_library

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}

hypothesis.settings.register_profile(
    "ms_deform", deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.load_profile("ms_deform")


def pytest_collection_finish() -> None:
    """MindSpore collects garbage with every graph it drops; spare it the modules and the tests."""
    gc.freeze()


# Both fixtures outlive a test function, as Hypothesis asks of fixtures it cannot reset.
@pytest.fixture(scope="session", params=list(LIBRARY_TARGETS))
def device(request: pytest.FixtureRequest) -> str:
    try:
        ms.set_context(device_target=request.param)
        find_library(LIBRARY_TARGETS[request.param])
    except (LibraryError, RuntimeError, ValueError) as error:
        reason, _, _ = str(error).partition(".")
        pytest.skip(f"MindSpore cannot use a {request.param} here: {reason}")
    return request.param


@pytest.fixture(scope="module", params=list(MODES))
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[request.param])
    yield request.param
    ms.set_context(mode=before)


@pytest.fixture(scope="module", params=["aot", "composition"])
def backend(request: pytest.FixtureRequest, device: str) -> Iterator[str]:
    with set_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def seeds() -> None:
    np.random.seed(0)
    ms.set_seed(0)


@pytest.fixture(scope="session")
def emulated_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CUDA library on the emulation of a GPU, under the name of the real one."""
    return build_emulated(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that make MindSpore write files: it leaves graphs of failures where it runs."""
    monkeypatch.chdir(tmp_path)
