# SPDX-License-Identifier: Apache-2.0
"""Builds the CUDA library with the emulation of tests/cuda_emulation in CUDA's place."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ms_deform import __version__
from ms_deform.install.builder import CUDA_DTYPES, find_compiler, kernel_sources
from ms_deform.install.library import ABI, library_path

EMULATION = Path(__file__).with_name("cuda_emulation")
_FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",  # those that ask nvcc to unroll
    f"-D_GLIBCXX_USE_CXX11_ABI={ABI}",
    f"-DMS_DEFORM_VERSION={__version__}",
    "-DMS_DEFORM_ISAS=emulated",
    "-DMS_DEFORM_SOURCES=0000000000000000",
)


def build_emulated(folder: Path, flags: Sequence[str] = ()) -> Path:
    """The library, in folder: the sources of aot_kernels/cuda as they are, compiled as C++."""
    sources = kernel_sources()
    kernels = sources / "cuda" / "kernels.cu"
    units = [
        (kernels, f"kernels-{dtype}", [f"-DMS_DEFORM_DTYPE_{dtype.upper()}"])
        for dtype in CUDA_DTYPES
    ]
    units += [
        (source, f"{source.parent.name}-{source.stem}", [])
        for source in (
            *sources.glob("common/*.cc"),
            *sources.glob("cuda/*.cc"),
            EMULATION / "emulation.cc",
        )
    ]

    def compile_unit(unit: tuple[Path, str, list[str]]) -> Path:
        source, name, defines = unit
        built = folder / f"{name}.o"
        # Its own headers first: they stand in for those of the same name.
        command = [*find_compiler(), *_FLAGS, *defines, *flags, f"-I{EMULATION}", f"-I{sources}"]
        subprocess.run([*command, "-x", "c++", "-c", source, "-o", built], check=True)
        return built

    with ThreadPoolExecutor() as threads:
        objects = list(threads.map(compile_unit, units))
    library = library_path("cuda", folder)
    link = [*find_compiler(), "-shared", *flags, *objects, "-o", library]
    subprocess.run(link, check=True)
    return library
