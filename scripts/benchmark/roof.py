# SPDX-License-Identifier: Apache-2.0
"""What a machine could do at best, measured between the turns, and a call's share of it."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmark.side import ELEMENT_BYTES, PAUSE_SECONDS, Call
from ms_deform.install.builder import CPU_INSTRUCTION_SETS, find_compiler
from ms_deform.install.library import loaded_isa

PEAK_SECONDS = 0.02


class Rates(NamedTuple):
    """Arithmetic operations and bytes per second."""

    flops: float
    bytes: float | None = None  # does not limit a CPU, which works in its caches

    def least_seconds(self, call: Call) -> float:
        """What no implementation can beat: its products, or every tensor moved once."""
        products = call.row.flops(call.training) / self.flops
        return max(products, bytes_moved(call) / self.bytes) if self.bytes else products


class FmaPeak:
    """The CPU's, with the threads and the instruction set of our kernels."""

    name = "FMA peak"
    meaning = (
        "FMA peak: our share of it, counting the matrix products alone, three times as many for "
        "training. It was measured between the turns"
    )

    def __init__(self, dtype: str, threads: int) -> None:
        flags = CPU_INSTRUCTION_SETS[platform.machine()][loaded_isa("cpu")]
        source = Path(__file__).with_name("fma_peak.cc")
        with TemporaryDirectory() as folder:
            library = Path(folder, "fma_peak.so")
            options = f"-std=c++17 -O3 -fopenmp -ffp-contract=fast -shared -fPIC {flags}".split()
            subprocess.run([*find_compiler(), *options, source, "-o", library], check=True)
            loaded = ctypes.CDLL(str(library))
        # The halves are computed in float32.
        self.function = loaded.PeakDouble if dtype == "float64" else loaded.PeakFloat
        self.function.argtypes = [ctypes.c_double, ctypes.c_int]
        self.function.restype = ctypes.c_double
        self.threads = threads

    def __call__(self) -> Rates:
        time.sleep(PAUSE_SECONDS)
        return Rates(self.function(PEAK_SECONDS, self.threads))


def bytes_moved(call: Call) -> int:
    """All tensors of a call once; in training the forward's, then all again and their gradients."""
    elements = sum(array.size for array in call.arrays)  # grad_output is as large as the output
    return (3 if call.training else 1) * elements * ELEMENT_BYTES[call.dtype]
