# SPDX-License-Identifier: Apache-2.0
"""The threads of the test double do what CANN's do, and the kernels bear it.

As published in hicann/runtime at 681ef761, src/aicpu_sched/aicpu_sharder/aicpu_sharder.cc, behind
ParallelFor of hicann/opbase v9.0.0, aicpu_common/context/common/cpu_kernel_utils.cc.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aicpu_sdk_builds import build_parallel_driver
from ms_deform.install.builder import find_compiler


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    return build_parallel_driver(tmp_path_factory.mktemp("double"), find_compiler())


def run(driver: Path, cores: int, total: int, per_unit: int) -> list[str]:
    environment = {**os.environ, "MS_DEFORM_TEST_THREADS": str(cores)}
    command = [driver, str(total), str(per_unit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def parallel_for(driver: Path, cores: int, total: int, per_unit: int) -> str:
    return run(driver, cores, total, per_unit)[0]


@pytest.mark.parametrize("total", [0, -1])
def test_nothing_to_do_is_no_error(driver, total):
    assert parallel_for(driver, 4, total, 1) == "0"


def test_there_are_at_most_two_parts_for_a_core_and_none_is_empty(driver):
    # The example of the published source: 118 units on 13 cores are 24 parts of 5.
    parts = [f"{begin}:{min(begin + 5, 118)}" for begin in range(0, 118, 5)]
    assert parallel_for(driver, 13, 118, 2) == " ".join(["0", *parts])
    assert parallel_for(driver, 2, 5, 1) == "0 0:2 2:4 4:5"


def test_a_part_has_at_least_the_units_asked_for(driver):
    assert parallel_for(driver, 8, 10, 4) == "0 0:4 4:8 8:10"


def test_an_exception_is_swallowed_in_a_thread_and_not_in_the_caller(driver):
    assert parallel_for(driver, 2, 2, 1) == "0 0:1 1:2"
    assert parallel_for(driver, 1, 2, 1) == "thrown 0:2"
    assert parallel_for(driver, 2, 2, 2) == "thrown 0:2"


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_what_a_unit_of_a_kernel_throws_is_the_kernels_status_all_the_same(driver, cores):
    assert run(driver, cores, 8, 1)[-1] == "kernel 2"
    assert run(driver, cores, 0, 1)[-1] == "kernel 0"
