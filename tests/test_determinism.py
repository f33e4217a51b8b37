# SPDX-License-Identifier: Apache-2.0
"""The same bits on every run and for every number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Channels beyond one block and one slab, several tiles and images: enough to keep 8 threads busy.
PROGRAM = """
import hashlib, mindspore as ms, numpy as np
from geometries import Geometry
from operator_under_test import cells_of, tensors, to_tensor
ms.set_context(mode=ms.{mode}_MODE)
geometry = Geometry(
    batch=3, channels_in=140, channels_out=72, size=(23, 31), kernel=(3, 3), groups=2,
    offset_groups=1)
call = geometry.call()
_, net = cells_of(call)
for _ in range(3):
    output, gradients = net(
        *tensors(call, "float32"), to_tensor(geometry.grad_output(), "float32"))
    print(*(hashlib.sha256(t.asnumpy().tobytes()).hexdigest() for t in (output, *gradients)))
"""


@pytest.mark.parametrize("mode", ("GRAPH", "PYNATIVE"))
def test_output_and_gradients_do_not_depend_on_threads_or_run(mode):
    runs = []
    for threads in (1, 2, 3, 8):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(mode=mode)],
            cwd=Path(__file__).parent,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        runs += done.stdout.strip().splitlines()
    assert len(runs) == 12
    assert len(set(runs)) == 1
