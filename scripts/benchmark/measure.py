# SPDX-License-Identifier: Apache-2.0
"""How the benchmark measures: in turn, memory in a fresh process."""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

import ms_deform
from benchmark.devices import SIDES
from benchmark.rows import Row
from benchmark.side import OURS, Call, Side, make_call

# What --scaling changes of a row.
AXES = ("N", "HxW", "C", "threads")

TINY = Row(n=1, c=4, o=4, h=4, w=4)
# Of the largest element: sums in another order stay far below, another operator does not.
# torchvision sums float16 in float16 on a GPU.
_ON_CPU = {"float32": 1e-3, "float64": 1e-3, "float16": 4e-3, "bfloat16": 3e-2}
TOLERANCES = {"cpu": _ON_CPU, "cuda": {**_ON_CPU, "float16": 3e-2}}

Result = TypeVar("Result")


def turn(side: Side) -> float:
    """Milliseconds of a call."""
    time.sleep(side.pause_seconds)
    taken: list[float] = []
    end = time.perf_counter() + side.turn_seconds
    while not taken or time.perf_counter() < end:
        taken.append(side.seconds())
    return 1e3 * statistics.median(taken[1:] or taken)


class Contest:
    """The sides built for a call, those left out with the reason, and how far results differ."""

    def __init__(self, names: Iterable[str], call: Call) -> None:
        self.types = SIDES[call.device]
        self.sides: dict[str, Side] = {OURS: self.types[OURS](call)}
        self.sides[OURS]()
        self.left_out: dict[str, str] = {}
        self.differences: dict[str, float] = {}
        for name in names:
            why = self.types[name].unsupported(call) or self._admit(name, call)
            if why:
                self.left_out[name] = why

    def _admit(self, name: str, call: Call) -> str:
        """Takes a peer in if it runs and computes the same; else says why not."""
        try:
            side = self.types[name](call)
            side()
            difference = _difference(side.results(), self.sides[OURS].results())
        except Exception as error:  # each package has its own
            return str(error).strip().partition("\n")[0] or type(error).__name__
        if not difference <= TOLERANCES[call.device][call.dtype]:
            return f"its result differs by {difference:.1g} of the largest element"
        self.sides[name] = side
        self.differences[name] = difference
        return ""

    def round(self) -> Iterator[tuple[str, float]]:
        """Each side and its milliseconds."""
        for name, side in self.sides.items():
            yield name, turn(side)


def _difference(results: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest over the tensors, each relative to its largest element."""
    differences = [
        np.abs(result - other).max() / np.abs(other).max()
        for result, other in zip(results, expected)
    ]
    return float(np.max(differences))  # NaN if one of them is


def in_fresh_process(threads: int, function: Callable[..., Result], *arguments: object) -> Result:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # which the process inherits
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def extra_memory(name: str, row: Row, dtype: str, training: bool, threads: int) -> int:
    """Bytes that a first call takes beyond its results.

    Only in a fresh process: memory that an earlier call gave back would be taken again unseen.
    """
    side_type = SIDES["cpu"][name]
    side_type(make_call(TINY, dtype, training, threads))()  # loads code and starts threads
    call = make_call(row, dtype, training, threads)
    side = side_type(call)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = _peak_resident_bytes()
    side()
    return max(0, _peak_resident_bytes() - before - _result_bytes(call))


def scratch_bytes(row: Row, dtype: str, training: bool, threads: int) -> int:
    """What our kernels' pool holds after a call."""
    SIDES["cpu"][OURS](make_call(row, dtype, training, threads))()
    return ms_deform.scratch_bytes()


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def _result_bytes(call: Call) -> int:
    *inputs, grad_output = call.arrays
    results = [grad_output, *(inputs if call.training else [])]
    width = {"float64": 8, "float32": 4}.get(call.dtype, 2)
    return width * sum(array.size for array in results)


def scaling_points(axis: str, row: Row, threads: int) -> Iterator[tuple[str, str, Row, int]]:
    """Axis, label, row and threads: the row with one thing changed."""
    if axis == "N":
        for n in (1, 2, 4, 8, 16):
            yield axis, str(n), row._replace(n=n), threads
    elif axis == "HxW":
        for factor in (0.25, 0.5, 1, 2, 4):
            height, width = (round(size * factor**0.5) for size in (row.h, row.w))
            yield axis, f"{height}x{width}", row._replace(h=height, w=width), threads
    elif axis == "C":
        for channels in (32, 64, 128, 256, 512):
            yield axis, str(channels), row._replace(c=channels, o=channels), threads
    else:
        for count in range(1, len(os.sched_getaffinity(0)) + 1):
            yield axis, str(count), row, count


def cost(
    names: list[str], row: Row, dtype: str, training: bool, threads: int, rounds: int
) -> dict[str, float]:
    """Milliseconds of each side."""
    contest = Contest(names, make_call(row, dtype, training, threads))
    times = [dict(contest.round()) for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in times) for name in contest.sides}
