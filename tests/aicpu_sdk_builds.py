# SPDX-License-Identifier: Apache-2.0
"""Builds the AICPU kernels with the test double of CANN's SDK."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ms_deform.install.aicpu_package import KERNEL_FLAGS, kernel_files
from ms_deform.install.builder import kernel_sources

TESTS = Path(__file__).parent
SDK = TESTS / "aicpu_sdk"
INCLUDE = SDK / "include"


def build_aicpu_driver(folder: Path, compiler: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """Compiles aicpu_driver.cc with the kernels and the double, by the kernels' own flags."""
    driver = folder / "aicpu_driver"
    includes = [f"-I{path}" for path in (kernel_sources(), INCLUDE, TESTS)]
    sources = [*kernel_files(), SDK / "sdk.cc", TESTS / "aicpu_driver.cc"]
    strict = ["-Wpedantic", "-Werror", "-pthread"]
    command = [*compiler, *KERNEL_FLAGS, *strict, *flags, *includes, *sources, "-o", driver]
    subprocess.run(command, check=True)
    return driver


def build_sdk(folder: Path, compiler: Sequence[str]) -> Path:
    """A folder with include and lib, as MS_DEFORM_AICPU_SDK names one."""
    (folder / "include").symlink_to(INCLUDE)
    (folder / "lib").mkdir()
    objects = []
    for name in ("sdk", "run_cpu_kernel"):
        objects.append(folder / f"{name}.o")
        flags = ["-std=c++14", "-fPIC", f"-I{INCLUDE}", "-D_GLIBCXX_USE_CXX11_ABI=1"]
        source = SDK / f"{name}.cc"
        subprocess.run([*compiler, *flags, "-c", source, "-o", objects[-1]], check=True)
    context = folder / "lib" / "libcpu_kernels_context.a"
    subprocess.run(["ar", "rcs", context, *objects], check=True)
    subprocess.run(["ar", "rcs", folder / "lib" / "libascend_protobuf.a"], check=True)
    return folder
