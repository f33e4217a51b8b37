# SPDX-License-Identifier: Apache-2.0
"""One library, several instruction sets: each gives the right answers, and the best is chosen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ms_deform.library import find_library, loaded_isa, read_info

FOLDER = Path(__file__).parent
ISAS = read_info(find_library("cpu")).isas
NUMERICAL_TESTS = ("test_torchvision_recorded.py", "test_border.py", "test_blocking.py")


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_right_answers(isa):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *NUMERICAL_TESTS],
        cwd=FOLDER,
        env={**os.environ, "MS_DEFORM_CPU_ISA": isa},
        capture_output=True,
        text=True,
    )
    if "is not available here" in done.stdout:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)


def test_the_best_instruction_set_of_the_machine_is_chosen():
    flags = Path("/proc/cpuinfo").read_text()
    wanted = "avx512" if "avx512vl" in flags else "avx2" if "avx2" in flags else "baseline"
    assert loaded_isa("cpu") == wanted


def test_an_unknown_instruction_set_is_refused_in_words():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ms_deform.library import loaded_isa; print(loaded_isa('cpu'))",
        ],
        env={**os.environ, "MS_DEFORM_CPU_ISA": "mmx"},
        capture_output=True,
        text=True,
    )
    assert "MS_DEFORM_CPU_ISA=mmx is not available here; unset it or use one of" in (
        done.stdout + done.stderr
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
    for line in mergeable:
        name = line.split(maxsplit=2)[2]
        in_namespace = re.search(rf"ms_deform::({'|'.join(ISAS)})::", name)
        # The rest comes from entry.cc and common/, compiled for the baseline.
        from_standard_library = name.startswith(("std::", "void std::", "DW.ref", "__gnu_cxx::"))
        known = re.match(r"(typeinfo|vtable|.*ms_deform::AotExtra)", name)
        assert in_namespace or from_standard_library or known, name
