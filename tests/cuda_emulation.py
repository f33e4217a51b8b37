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


# Threads of a block that meet at barriers, and lanes that read each other, in turns.
_MEETINGS = """
#include "cuda/device.h"

struct Arguments {
  int* sums;  // of every thread
};

static void Meet(Arguments arguments) {
  auto& values = ms_deform::cuda::SharedMemory<int[64]>();
  const int thread = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int turn = 0; turn < 3; ++turn) {
    values[thread] = thread + turn;
    __syncthreads();
    sum += values[(thread + 1) % 64] + __shfl_xor_sync(0xffffffffu, thread, 1);
    __syncthreads();
  }
  arguments.sums[thread] = sum;
}

int main() {
  int sums[64] = {};
  ms_deform::cuda::Launch(Meet, 1, 64, sizeof(int[64]), nullptr, Arguments{sums});
  for (int thread = 0; thread < 64; ++thread) {
    if (sums[thread] != 3 * ((thread + 1) % 64 + (thread ^ 1)) + 3) {
      return 1;
    }
  }
  return 0;
}
"""


def build_meetings(folder: Path, flags: Sequence[str]) -> Path:
    """A program on the emulation, which ends with 0 if its threads have met."""
    source = folder / "meetings.cc"
    source.write_text(_MEETINGS)
    program = folder / "meetings"
    includes = [f"-I{EMULATION}", f"-I{kernel_sources()}"]
    sources = [source, EMULATION / "emulation.cc"]
    command = [*find_compiler(), *_FLAGS, *flags, *includes, *sources, "-o", program]
    subprocess.run(command, check=True)
    return program
