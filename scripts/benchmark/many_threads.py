# SPDX-License-Identifier: Apache-2.0
"""How the CPU kernels would scale to many threads, from the times of their pieces on one.

A library that is built for it (aot_kernels/cpu/piece_times.h) cuts a call's work as that many
threads would share it, does all of it on one and keeps the time of every piece. Here the pieces are
given to threads as the kernels do: the thread that is free first takes the next piece, and at a
barrier it waits until all pieces before are done. It leaves out what threads share beside the work:
caches, memory bandwidth, and a clock that falls with the number of busy cores.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from benchmark.aot_library import AotLibrary, constants_of, functions_of
from benchmark.side import Call
from ms_deform.install.builder import build
from ms_deform.install.library import find_library

THREADS = (1, 2, 4, 8, 16, 32, 64)
# Measured with two threads: until a sleeping thread has woken up, and how much later each further
# one does; a barrier, and what each thread's arrival adds to it. In seconds.
WAKE, WAKE_NEXT = 10e-6, 1e-6
BARRIER, ARRIVAL = 0.3e-6, 0.1e-6


class Piece(NamedTuple):
    barriers: int  # that its call passed before it
    seconds: float


class Run(NamedTuple):
    """A call's pieces, what it took beside them, and for how many threads it was cut."""

    pieces: list[Piece]
    rest: float  # seconds
    threads: int  # fewer than asked for if the call is small


class Prediction(NamedTuple):
    seconds: float
    serial: float  # seconds of one thread alone, and of barriers


class KernelCall:
    """The functions of a call on arrays of its dtype, by any library."""

    def __init__(self, call: Call) -> None:
        arrays = {name: _stored(a, call.dtype) for name, a in call.arrays._asdict().items()}
        self.dtype = call.dtype
        self.constants = constants_of(call.row)
        self.arrays = {
            function: [
                *(arrays[name] for name in inputs),
                *(np.zeros_like(arrays[name]) for name in results),
            ]
            for function, (inputs, results) in functions_of(call.training).items()
        }

    def run(self) -> None:
        """All functions, of the library in use."""
        for function in self.arrays:
            self.seconds(_library(), function)

    def seconds(self, library: AotLibrary, function: str) -> float:
        arrays = self.arrays[function]
        addresses = [array.ctypes.data for array in arrays]
        shapes = [array.shape for array in arrays]
        start = time.perf_counter()
        library(function, addresses, shapes, self.dtype, self.constants)
        return time.perf_counter() - start


def _stored(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # NumPy has none
        return (array.view(np.uint32) >> 16).astype(np.uint16)
    return array.astype(dtype)


def predict(call: KernelCall, counts: Sequence[int], rounds: int) -> dict[int, Prediction]:
    """For these numbers of threads, in turn: the least of the rounds for each function, summed."""
    library = _modelled_library()
    predicted: dict[int, list[list[Prediction]]] = {count: [] for count in counts}
    for _ in range(rounds + 1):
        for count in counts:
            set_threads(count)
            predicted[count].append([_predict(call, name, library) for name in call.arrays])
    return {count: _sum_of_least(runs) for count, runs in predicted.items()}


def _predict(call: KernelCall, function: str, library: _ModelledLibrary) -> Prediction:
    call.seconds(library, function)
    return schedule(library.latest_run())


def _sum_of_least(runs: list[list[Prediction]]) -> Prediction:
    """Of all runs but the first, which takes the scratch and warms the caches."""
    return Prediction(*map(sum, zip(*map(min, zip(*runs[1:])))))


def measure(call: KernelCall, counts: Sequence[int], rounds: int) -> dict[int, float]:
    """The seconds on these numbers of threads, as `predict` has them."""
    taken: dict[int, list[list[float]]] = {count: [] for count in counts}
    for _ in range(rounds + 1):
        for count in counts:
            set_threads(count)
            taken[count].append([call.seconds(_library(), name) for name in call.arrays])
    return {count: sum(map(min, zip(*runs[1:]))) for count, runs in taken.items()}


def threads_here() -> list[int]:
    """Those of THREADS that this machine can run at a time."""
    return [count for count in THREADS if count <= len(os.sched_getaffinity(0))]


def schedule(run: Run) -> Prediction:
    """The time of a call on the threads that it was cut for."""
    free = [WAKE + WAKE_NEXT * (thread - 1) if thread else 0.0 for thread in range(run.threads)]
    cost = BARRIER + ARRIVAL * run.threads if run.threads > 1 else 0.0
    barriers = 0
    passed = done = 0.0  # when the latest barrier could be passed, and all pieces so far were done
    for piece in run.pieces:
        if piece.barriers > barriers:
            barriers, passed = piece.barriers, done + cost
        thread = free.index(min(free))
        free[thread] = max(free[thread], passed) + piece.seconds
        done = max(done, free[thread])
    return Prediction(run.rest + max(free) + cost, run.rest + cost * (barriers + 1))


class _ModelledLibrary(AotLibrary):
    def latest_run(self) -> Run:
        count, nanoseconds, threads = (ctypes.c_int64() for _ in range(3))
        times = self._own("piece_times", ctypes.POINTER(ctypes.c_int64))(ctypes.byref(count))
        self._own("call_time", None)(ctypes.byref(nanoseconds), ctypes.byref(threads))
        table = np.ctypeslib.as_array(times, (count.value, 2)).tolist()
        pieces = [Piece(barriers, 1e-9 * taken) for barriers, taken in table]
        in_pieces = sum(piece.seconds for piece in pieces)
        return Run(pieces, 1e-9 * nanoseconds.value - in_pieces, threads.value)


def set_threads(count: int) -> None:
    """As OMP_NUM_THREADS, for the calls that this thread makes from now on."""
    ctypes.CDLL("libgomp.so.1").omp_set_num_threads(count)


@cache
def _folder() -> Path:
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def _modelled_library() -> _ModelledLibrary:
    library = build("cpu", directory=_folder(), extra_flags=["-DMS_DEFORM_PIECE_TIMES"])
    return _ModelledLibrary(library, _folder())


@cache
def _library() -> AotLibrary:
    return AotLibrary(find_library("cpu"), _folder())
