# SPDX-License-Identifier: Apache-2.0
"""Times calls on data too small to matter, and writes microseconds a call into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

import mindspore as ms
from mindspore import nn

import operator_under_test
from geometries import GRID
from kernels import problem_of

MODES = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
ROUNDS, CALLS = 5, 20


def microseconds(cell: nn.Cell, *tensors: ms.Tensor) -> float:
    """A call's shortest time, after one that compiles the graph."""
    cell(*tensors)
    return 1e6 / CALLS * min(_seconds(cell, tensors) for _ in range(ROUNDS))


def _seconds(cell: nn.Cell, tensors: tuple[ms.Tensor, ...]) -> float:
    ms.runtime.synchronize()
    begin = perf_counter()
    for _ in range(CALLS):
        cell(*tensors)
    ms.runtime.synchronize()
    return perf_counter() - begin


def main(file: Path) -> None:
    ms.set_context(device_target="GPU")
    problem = problem_of(GRID["1x1 everything"], "float32")
    grad_output = operator_under_test.to_tensor(problem.pop("grad_output"), "float32")
    tensors = operator_under_test.tensors(problem, "float32")
    times = {}
    for mode, value in MODES.items():
        ms.set_context(mode=value)
        forward, with_gradients = operator_under_test.cells_of(problem)
        times[f"{mode}, forward"] = microseconds(forward, *tensors)
        times[f"{mode}, training"] = microseconds(with_gradients, *tensors, grad_output)
    file.write_text(json.dumps(times))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
