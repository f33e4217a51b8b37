# SPDX-License-Identifier: Apache-2.0
"""The wheels of scripts/build_wheels.sh in the folder MS_DEFORM_WHEELS; .ci/run names this file.

The suite proper does not collect it: to build the wheels takes longer than most of its files.
"""

from __future__ import annotations

import os
import platform
import zipfile
from pathlib import Path

import pytest

import recorded
from kernel_driver import CROSS, Driver, build_driver
from ms_deform import __version__
from ms_deform.install.builder import CPU_INSTRUCTION_SETS
from ms_deform.install.library import ABI, read_info
from tolerances import assert_close, assert_gradients_close

MACHINES = ("x86_64", "aarch64")
LIBRARY = "ms_deform/lib/libms_deform_cpu.so"


def wheel_of(machine: str) -> Path:
    (wheel,) = Path(os.environ["MS_DEFORM_WHEELS"]).glob(f"*_{machine}.whl")
    return wheel


def contents(machine: str) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel_of(machine)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module", params=MACHINES)
def machine(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def library(machine, tmp_path_factory) -> Path:
    with zipfile.ZipFile(wheel_of(machine)) as archive:
        return Path(archive.extract(LIBRARY, tmp_path_factory.mktemp(machine)))


def test_the_wheel_needs_no_newer_system_than_mindspore(machine):
    *package, platforms = wheel_of(machine).stem.split("-")
    assert package == ["ms_deform", __version__, "py3", "none"]
    assert f"manylinux_2_17_{machine}" in platforms.split(".")


def test_the_library_is_for_the_machine_of_the_wheel(machine, library):
    info = read_info(library)
    assert (info.machine, info.version, info.abi) == (machine, __version__, ABI)
    assert info.isas == tuple(CPU_INSTRUCTION_SETS[machine])


def test_the_wheel_brings_no_library_but_its_own(machine):
    shared = [name for name, data in contents(machine).items() if data.startswith(b"\x7fELF")]
    assert shared == [LIBRARY]


def test_the_wheels_differ_in_the_library_only():
    package, other = (
        {name: data for name, data in contents(machine).items() if ".dist-info/" not in name}
        for machine in MACHINES
    )
    assert package.pop(LIBRARY) != other.pop(LIBRARY)
    assert package == other


@pytest.mark.parametrize("dtype, tolerance", recorded.TOLERANCES.items())
def test_the_kernels_of_the_wheel_answer_as_torchvision(
    machine, library, monkeypatch, tmp_path, dtype, tolerance
):
    emulator = ()
    if machine != platform.machine():
        compiler, emulator, _ = CROSS[machine]
        monkeypatch.setenv("CXX", compiler)
    driver = Driver(build_driver(tmp_path, library), emulator)
    cases = recorded.CASES.values()
    problems = [{**case.call, "grad_output": case.grad_output} for case in cases]
    answers = driver.solve(problems, dtype, tmp_path)
    assert len(answers) == len(cases)
    for case, (output, gradients) in zip(cases, answers):
        assert_close(output, case.output, dtype, "output", tolerance)
        assert_gradients_close(gradients, case.gradients, dtype, tolerance)
