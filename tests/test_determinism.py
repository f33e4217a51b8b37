# SPDX-License-Identifier: Apache-2.0
"""MindSpore gives the same bits on every run, in both modes, and for every number of threads.

test_instruction_sets.py proves the threads' part for each instruction set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Channels beyond one block and one slab, several tiles and images: enough to keep 8 threads busy.
PROGRAM = """
import hashlib, mindspore as ms
from geometries import Geometry
from operator_under_test import OperatorAndGradients, Operator, tensors, to_tensor
geometry = Geometry(
    batch=3, channels_in=140, channels_out=72, size=(23, 31), kernel=(3, 3), groups=2,
    offset_groups=1)
call = geometry.call()
for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
    ms.set_context(mode=mode)
    net = OperatorAndGradients(Operator(call["stride"], call["padding"], call["dilation"]))
    for _ in range(3):
        output, gradients = net(
            *tensors(call, "float32"), to_tensor(geometry.grad_output(), "float32"))
        print(*(hashlib.sha256(t.asnumpy().tobytes()).hexdigest() for t in (output, *gradients)))
"""


def test_output_and_gradients_do_not_depend_on_threads_or_run():
    runs = []
    for threads in (1, 8):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=Path(__file__).parent,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        runs += done.stdout.strip().splitlines()
    assert len(runs) == 12
    assert len(set(runs)) == 1
    assert len(set(runs[0].split())) == 6
