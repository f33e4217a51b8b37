# SPDX-License-Identifier: Apache-2.0
"""Builds kernel_driver.cc for this machine or another one, and speaks to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from element_types import decoded, encoded
from ms_deform.install.builder import build, find_compiler, kernel_sources
from ms_deform.install.library import ABI
from reference import Gradients

# The compiler and the emulator of a machine that is not this one, and the Debian packages.
CROSS = {
    "aarch64": (
        "aarch64-linux-gnu-g++",
        ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
        "g++-aarch64-linux-gnu qemu-user",
    )
}
_INPUTS = ("input", "offset", "mask", "weight", "bias", "grad_output")


@dataclass(frozen=True)
class Driver:
    """A driver that is built, with what runs it on this machine."""

    path: Path
    emulator: tuple[str, ...] = ()
    isa: str = ""  # the instruction set to use; empty: the best

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.emulator, self.path, *map(str, arguments)],
            env={**os.environ, "MS_DEFORM_CPU_ISA": self.isa, **environment},
            capture_output=True,
            text=True,
        )

    def solve(
        self,
        problems: Sequence[dict[str, Any]],
        dtype: str,
        deterministic: bool = False,
        **environment: str,
    ) -> list[tuple[np.ndarray, Gradients]]:
        """The outputs and gradients of calls, in float64.

        A problem holds deform_conv2d's arguments and grad_output, in values that dtype holds.
        """
        with TemporaryDirectory() as folder:
            asked, answered = Path(folder, "problems"), Path(folder, "answers")
            asked.write_bytes(b"".join(_described(problem, dtype) for problem in problems))
            options = ["deterministic"] if deterministic else []
            done = self.run("solve", asked, answered, *options, **environment)
            assert done.returncode == 0, done.stderr
            values = decoded(answered.read_bytes(), dtype)
        answers = []
        for problem in problems:
            answer, values = _answer(problem, values)
            answers.append(answer)
        assert values.size == 0, f"{values.size} elements too many"
        return answers


def build_driver(folder: Path, library: Path | None = None, flags: Sequence[str] = ()) -> Path:
    """Compiles the driver into folder, with the library or with one built there by the flags."""
    library = library or build("cpu", directory=folder, extra_flags=flags)
    driver = folder / "kernel_driver"
    source = Path(__file__).with_name("kernel_driver.cc")
    own = ["-std=c++17", "-O1", f"-D_GLIBCXX_USE_CXX11_ABI={ABI}", "-Wall", "-Wextra", "-Werror"]
    command = [*find_compiler(), *own, *flags, f"-I{kernel_sources()}", source, library]
    subprocess.run([*command, f"-Wl,-rpath,{library.parent}", "-o", driver], check=True)
    return driver


def missing_tools(machine: str) -> str:
    """What this machine lacks to build and run the driver for another one; empty if nothing."""
    compiler, emulator, packages = CROSS[machine]
    missing = [tool for tool in (compiler, emulator[0]) if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)} (Debian: apt-get install {packages})" if missing else ""


def cross_driver(machine: str, folder: Path) -> Driver:
    """The driver for another machine."""
    compiler, emulator, _ = CROSS[machine]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", compiler)
        return Driver(build_driver(folder, flags=["-Werror"]), emulator)


def _described(problem: dict[str, Any], dtype: str) -> bytes:
    constants = [
        problem.get("stride", (1, 1)),
        problem.get("padding", (0, 0)),
        problem.get("dilation", (1, 1)),
    ]
    if len(constants[1]) == 2:
        constants[1] = tuple(np.repeat(constants[1], 2))
    arrays = [problem.get(name) for name in _INPUTS]
    shapes = ["-" if array is None else _listed(array.shape) for array in arrays]
    line = " ".join([dtype, *map(_listed, constants), *shapes])
    data = b"".join(encoded(array, dtype) for array in arrays if array is not None)
    return line.encode() + b"\n" + data


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _answer(problem: dict[str, Any], values: np.ndarray) -> tuple[tuple, np.ndarray]:
    """The first answer of those in values, and the rest of them."""
    arrays = []
    for name in ("grad_output", "input", "offset", "mask", "weight"):
        shape = problem[name].shape if name in problem else (1,)
        arrays.append(values[: np.prod(shape)].reshape(shape))
        values = values[arrays[-1].size :]
    channels = len(problem["weight"])
    output, input, offset, mask, weight = arrays
    if "mask" not in problem:
        assert mask == 0
        mask = None
    bias = values[:channels] if "bias" in problem else None
    return (output, Gradients(input, offset, mask, weight, bias)), values[channels:]
