# SPDX-License-Identifier: Apache-2.0
"""The kernels, devices and modes that tests run over here, which tests take long, and seeds."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")  # MindSpore warns of every empty batch and every recompile

import hypothesis
import mindspore as ms
import numpy as np
import pytest

import gpu_stand_in
from cuda_emulation import build_emulated
from kernel_driver import Driver, build_driver, cross_driver
from kernels import Kernels, cpu_targets, cuda_kernels, emulated_kernels, native_kernels
from ms_deform import backends
from ms_deform.backends import set_backend
from ms_deform.install.library import LIBRARY_TARGETS, LibraryError, find_library

MISSING = pytest.StashKey[list[str]]()
ON_GPU_STAND_IN = gpu_stand_in.VARIABLE in os.environ
MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}

hypothesis.settings.register_profile(
    "ms_deform", deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.load_profile("ms_deform")


def pytest_collection_finish() -> None:
    """MindSpore collects garbage with every graph it drops; spare it the modules and the tests."""
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests that take long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what takes long, unless asked for all, and what cannot run here."""
    run_long = config.getoption("--all")
    left_out = [
        item
        for item in items
        if missing_packages(item)
        or not runs_on_device(item)
        or (item.get_closest_marker("long") and not run_long)
    ]
    config.stash[MISSING] = sorted(set().union(*map(missing_packages, items)))
    items[:] = [item for item in items if item not in set(left_out)]
    config.hook.pytest_deselected(items=left_out)


def missing_packages(item: pytest.Item) -> set[str]:
    names = {name for mark in item.iter_markers("needs") for name in mark.args}
    return {name for name in names if find_spec(name) is None}


def runs_on_device(item: pytest.Item) -> bool:
    """On the stand-in for a GPU only what is for a GPU runs, and has all its kernels there."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if item.get_closest_marker("gpu"):
        return "GPU" in usable_device_targets() and params.get("device") != "CPU"
    if not ON_GPU_STAND_IN:
        return True
    # MindSpore's own kernels of the composition have no stand-in.
    suits = params.get("device") == "GPU" and params.get("backend") != "composition"
    return suits and not item.get_closest_marker("not_on_gpu_stand_in")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    missing = ", ".join(config.stash[MISSING])
    return [f"left out: tests that need {missing} (extras demo and bench)"] if missing else []


@cache
def usable_device_targets() -> list[str]:
    """The CPU, without whose library no test can run, and a GPU where MindSpore has one."""
    usable = []
    for target in reversed(LIBRARY_TARGETS):
        try:
            ms.set_context(device_target=target)
            find_library(LIBRARY_TARGETS[target])
            usable.insert(0, target)
        except (LibraryError, RuntimeError, ValueError):
            if target == "CPU":
                raise
    return usable


# These outlive a test function, as Hypothesis asks of fixtures it cannot reset.
@pytest.fixture(scope="session", params=usable_device_targets())
def device(request: pytest.FixtureRequest) -> str:
    ms.set_context(device_target=request.param)
    return request.param


@contextmanager
def in_mode(name: str) -> Iterator[str]:
    before = ms.get_context("mode")
    ms.set_context(mode=MODES[name])
    yield name
    ms.set_context(mode=before)


@pytest.fixture(scope="module", params=list(MODES))
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    with in_mode(request.param) as name:
        yield name


@pytest.fixture
def graph_mode() -> Iterator[str]:
    with in_mode("graph") as name:
        yield name


@pytest.fixture
def pynative() -> Iterator[str]:
    """For tests that look at calls from Python."""
    with in_mode("pynative") as name:
        yield name


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the choice of a backend writes to MindSpore's log."""
    lines: list[str] = []
    monkeypatch.setattr(backends.log, "warning", lines.append)
    backends._log_once.cache_clear()
    return lines


@pytest.fixture(scope="module", params=["aot", "composition"])
def backend(request: pytest.FixtureRequest, device: str) -> Iterator[str]:
    with set_backend(request.param):
        yield request.param


@pytest.fixture(scope="session")
def kernels_of(request: pytest.FixtureRequest, driver_of) -> Callable[[str, str], Kernels]:
    def kernels(machine: str, isa: str) -> Kernels:
        if machine == platform.machine():
            return native_kernels(isa)
        if machine == "cuda":
            return cuda_kernels(request.getfixturevalue("emulated_cuda"))
        return emulated_kernels(driver_of(machine), isa)

    return kernels


@pytest.fixture(scope="module", params=[*cpu_targets(), ("cuda", "emulated")], ids="-".join)
def kernels(request: pytest.FixtureRequest, kernels_of) -> Kernels:
    """Every library of kernels that runs here without MindSpore, in every instruction set."""
    return kernels_of(*request.param)


@pytest.fixture(scope="module", params=cpu_targets(), ids="-".join)
def cpu_kernels(request: pytest.FixtureRequest, kernels_of) -> Kernels:
    return kernels_of(*request.param)


@pytest.fixture(scope="session")
def driver_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Driver]:
    """A function that gives the driver with the CPU library for a machine."""

    @cache
    def driver(machine: str) -> Driver:
        folder = tmp_path_factory.mktemp(machine)
        if machine == platform.machine():
            return Driver(build_driver(folder, find_library("cpu")))
        return cross_driver(machine, folder)

    return driver


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
