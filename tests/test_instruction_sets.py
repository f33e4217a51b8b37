# SPDX-License-Identifier: Apache-2.0
"""The best instruction set is chosen, all are clean of each other, and threads change no bit.

test_kernel_answers.py and others prove the answers of every instruction set.
"""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geometries import Geometry
from kernel_driver import Driver, missing_tools
from kernels import cpu_targets, problem_of
from ms_deform.install.builder import CPU_INSTRUCTION_SETS
from ms_deform.install.library import find_library

HERE = platform.machine()


def isa_in_use(driver: Driver) -> str:
    return driver.run("isa").stdout.strip()


# Channels beyond a block and a slab, several tiles and images, work for more than 8 threads; and
# one image with many offset groups, of which threads share the bands of the input's gradient.
SHARED = {
    "groups": Geometry(
        batch=3, channels_in=140, channels_out=72, size=(23, 31), kernel=(3, 3), groups=2
    ),
    "offset groups": Geometry(
        batch=1, channels_in=60, channels_out=40, size=(45, 50), kernel=(3, 3), offset_groups=6
    ),
}


@pytest.mark.parametrize("geometry", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("target", cpu_targets(), ids="-".join)
def test_the_number_of_threads_does_not_change_a_bit(driver_of, target, geometry):
    machine, isa = target
    driver = replace(driver_of(machine), isa=isa)
    assert isa_in_use(driver) == isa
    problem = problem_of(geometry, "float32")
    bits = set()
    # So many threads take their time where an emulator runs them.
    many = ("16", "64") if machine == HERE else ()
    for threads in ("1", "2", "3", "8", *many):
        ((output, gradients),) = driver.solve([problem], "float32", OMP_NUM_THREADS=threads)
        bits.add(b"".join(array.tobytes() for array in (output, *gradients)))
    assert len(bits) == 1


@pytest.mark.parametrize("target", cpu_targets(), ids="-".join)
def test_what_an_earlier_call_left_in_the_scratch_is_not_read(driver_of, target):
    """Groups of 3 channels leave places in their blocks that no product writes."""
    machine, isa = target
    earlier, problem = (
        problem_of(Geometry(batch=1, channels_out=6, size=(150, 120), **channels), "float32")
        for channels in ({"channels_in": 64}, {"channels_in": 9, "groups": 3})
    )
    for name in ("input", "weight", "grad_output"):
        earlier[name] = np.full_like(earlier[name], np.nan)
    driver = replace(driver_of(machine), isa=isa)
    # One thread for each of two bands, and more threads than bands.
    for threads in "13":
        _, (_, gradients) = driver.solve([earlier, problem], "float32", OMP_NUM_THREADS=threads)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


# The first has no instruction beyond those that every machine has; the last has all.
@pytest.mark.long
@pytest.mark.skipif(
    HERE != "aarch64" and bool(missing_tools("aarch64")), reason=missing_tools("aarch64")
)
@pytest.mark.parametrize("cpu", ("cortex-a53", "max"))
def test_random_and_hostile_calls_on_emulated_machines(driver_of, cpu):
    done = driver_of("aarch64").run("sweep", 7, 150, QEMU_CPU=cpu)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_best_instruction_set_of_the_machine_is_chosen(driver_of):
    flags = Path("/proc/cpuinfo").read_text()
    known = {"avx512": "avx512vl" in flags, "avx2": "avx2" in flags, "baseline": True, "neon": True}
    wanted = next(isa for isa in CPU_INSTRUCTION_SETS[HERE] if known[isa])
    assert isa_in_use(driver_of(HERE)) == wanted


def test_an_unknown_instruction_set_is_refused_in_words(driver_of):
    refused = isa_in_use(replace(driver_of(HERE), isa="mmx"))
    assert re.search(
        "MS_DEFORM_CPU_ISA=mmx is not available here; unset it or use one of: "
        f".*{list(CPU_INSTRUCTION_SETS[HERE])[-1]}$",
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
    isas = "|".join(CPU_INSTRUCTION_SETS[HERE])
    for line in mergeable:
        name = line.split(maxsplit=2)[2]
        in_namespace = re.search(rf"ms_deform::({isas})::", name)
        # The rest comes from entry.cc and common/, compiled for the baseline.
        from_standard_library = name.startswith(("std::", "void std::", "DW.ref", "__gnu_cxx::"))
        known = re.match(r"(typeinfo|vtable|.*ms_deform::AotExtra)", name)
        assert in_namespace or from_standard_library or known, name
