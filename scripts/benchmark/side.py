# SPDX-License-Identifier: Apache-2.0
"""One implementation of deformable convolution, as the benchmark sees it.

A side is built for a call, with its weights packed where its interface does that at load time.
Calling it runs the operator, and its training step if asked for, until the results are there.
Packages are imported in the constructors, after the benchmark has set what they read when they are
loaded.
"""

from __future__ import annotations

import time
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from benchmark.rows import Arrays, Row, make_arrays

OURS = "ms_deform"
PASSES = ("forward", "training")
ELEMENT_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
DTYPES = tuple(ELEMENT_BYTES)
# Longer than the idle threads of any side spin, lest they take cycles of the side that follows.
PAUSE_SECONDS = 0.05


class Call(NamedTuple):
    """What a side is built for."""

    row: Row
    arrays: Arrays
    dtype: str
    training: bool
    threads: int
    device: str


def make_call(row: Row, dtype: str, training: bool, threads: int, device: str = "cpu") -> Call:
    """The halves' arrays are float32, which NumPy has for both; each side rounds them alike."""
    arrays = _arrays(row, np.float64 if dtype == "float64" else np.float32)
    if device == "cuda" and dtype == "float16":
        # torchvision computes coordinates in float16, which holds these exactly, up to 512 pixels.
        arrays = arrays._replace(offset=np.round(arrays.offset * 4) / 4)
    return Call(row, arrays, dtype, training, threads, device)


_arrays = lru_cache(maxsize=1)(make_arrays)  # the passes of a row have the same


class Side:
    """One implementation, built for one call."""

    modules: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = DTYPES
    trains = False
    by_default = True
    # Short calls are repeated in a turn: the first warms the caches and the threads that the pause
    # has let go cold, and the median of the others counts.
    pause_seconds = PAUSE_SECONDS
    turn_seconds = 0.1

    @classmethod
    def versions(cls) -> dict[str, str]:
        """The versions of the modules it needs; ImportError where one is missing."""
        for module in cls.modules:
            import_module(module)
        return {module: version(module) for module in cls.modules}

    @classmethod
    def unsupported(cls, call: Call) -> str:
        """Why it cannot run the call, or nothing."""
        if call.training and not cls.trains:
            return "has no training"
        if call.dtype not in cls.dtypes:
            return f"has no {call.dtype}"
        return ""

    def __init__(self, call: Call) -> None:
        raise NotImplementedError

    def __call__(self) -> None:
        raise NotImplementedError

    def seconds(self) -> float:
        """What a call takes."""
        start = time.perf_counter()
        self()
        return time.perf_counter() - start

    def results(self) -> list[np.ndarray]:
        """Of the latest call: the output, and the gradients in the order of Arrays if training."""
        raise NotImplementedError
