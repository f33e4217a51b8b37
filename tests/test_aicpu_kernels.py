# SPDX-License-Identifier: Apache-2.0
"""The AICPU kernels, built natively and for aarch64 on a test double of CANN's SDK."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicpu_answers import assert_solved, problems
from aicpu_sdk_builds import build_aicpu_driver
from element_types import held_in
from geometries import GRID
from kernel_driver import CROSS, Driver, missing_tools
from ms_deform.install.builder import find_compiler
from random_geometries import geometries

DTYPES = ("float32", "float16")
WAYS = ("plain", "dynamic", "session", "cached", "block")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")


def builds() -> list[Any]:
    others = ["sanitized"] if missing_tools("aarch64") else ["sanitized", "aarch64"]
    return ["native", *(pytest.param(other, marks=pytest.mark.long) for other in others)]


@pytest.fixture(scope="session", params=builds())
def driver(request, tmp_path_factory) -> Driver:
    folder = tmp_path_factory.mktemp(f"aicpu-{request.param}")
    if request.param != "aarch64":
        flags = SANITIZERS if request.param == "sanitized" else ()
        return Driver(build_aicpu_driver(folder, find_compiler(), flags))
    compiler, emulator, _ = CROSS["aarch64"]
    return Driver(build_aicpu_driver(folder, [compiler]), emulator)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_and_gradients_equal_the_reference_in_each_way_of_calling(driver, dtype, way):
    assert_solved(driver, problems(list(GRID.values()), dtype), dtype, MS_DEFORM_TEST_CALL=way)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=3)
@given(shapes=st.lists(geometries(), min_size=12, max_size=12))
def test_random_geometries_equal_the_reference(driver, dtype, shapes):
    assert_solved(driver, problems(shapes, dtype), dtype)


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_of_no_images_needs_no_addresses(driver, way):
    geometry = GRID["no bias"]
    call = {**geometry.call(), "grad_output": geometry.grad_output()}
    for name in ("input", "offset", "mask", "grad_output"):
        call[name] = call[name][:0]
    ((output, gradients),) = driver.solve(
        [held_in("float32", call)], "float32", MS_DEFORM_TEST_CALL=way
    )
    assert output.size == gradients.input.size == gradients.offset.size == gradients.mask.size == 0
    np.testing.assert_array_equal(gradients.weight, np.zeros(call["weight"].shape))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_stands_for_an_absent_mask_or_bias_is_not_read(driver, dtype, way):
    """The driver fills it with NaN."""
    calls = problems([GRID["neither mask nor bias"], GRID["no bias"]], dtype)
    assert calls[0].get("mask") is None and calls[0].get("bias") is None
    for output, gradients in driver.solve(calls, dtype, MS_DEFORM_TEST_CALL=way):
        assert np.isfinite(output).all()
        for name in ("input", "offset", "weight"):
            assert np.isfinite(getattr(gradients, name)).all(), name


def test_hostile_offsets_touch_only_their_own_samples(driver):
    call = GRID["no bias"].call()
    offset = call["offset"].reshape(2, -1, 2, *call["offset"].shape[2:])
    offset[0, 0, :, 0, 0] = (np.inf, 0)
    offset[0, 1, :, 0, 1] = (0, -np.inf)
    offset[0, 2, :, 1, 0] = (1e30, -1e30)
    offset[0, 3, :, 1, 1] = (2.0**31, 2.0**33)
    problem = held_in("float32", {**call, "grad_output": GRID["no bias"].grad_output()})
    assert_solved(driver, [problem], "float32")


def test_a_nan_offset_makes_its_pixel_nan_and_no_other(driver):
    geometry = GRID["neither mask nor bias"]
    call = held_in("float32", {**geometry.call(), "grad_output": geometry.grad_output()})
    call["offset"][0, 0, 2, 3] = np.nan
    ((output, gradients),) = driver.solve([call], "float32")
    where = np.zeros(output.shape, bool)
    where[0, :, 2, 3] = True
    np.testing.assert_array_equal(np.isnan(output), where)
    assert np.isfinite(gradients.input).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_do_not_depend_on_the_number_of_threads(driver, dtype):
    calls = problems([GRID["37 channels to 19"], GRID["129 pixels"]], dtype)
    one, three = (
        driver.solve(calls, dtype, MS_DEFORM_TEST_THREADS=threads) for threads in ("1", "3")
    )
    for (output, gradients), (output_again, gradients_again) in zip(one, three):
        np.testing.assert_array_equal(output, output_again)
        for name in ("input", "offset", "mask", "weight"):
            np.testing.assert_array_equal(
                getattr(gradients, name), getattr(gradients_again, name), err_msg=name
            )


@pytest.mark.parametrize("way", WAYS)
def test_bad_calls_are_refused_with_a_line(driver, way):
    """Of a kernel's status the device sees only that it is not 0."""
    done = driver.run("refuse", MS_DEFORM_TEST_CALL=way)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(":") for line in done.stdout.splitlines())
    assert len(lines) > 20
    assert lines.pop("none") == " 0 0 0"
    assert set(lines.values()) == {" -1 -1 -1"}
    # A line for each of the three operators, with its name and a reason.
    logged = done.stderr.splitlines()
    assert len(logged) == 3 * len(lines)
    assert all(re.match(r"\[ERROR\] MsDeformAicpu\w+: .{10}", line) for line in logged)
    assert any("'geometry' must be 10 int64 numbers" in line for line in logged)
    assert any("'weight' has no data" in line for line in logged)
