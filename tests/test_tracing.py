# SPDX-License-Identifier: Apache-2.0
"""``ms.jit`` by tracing, in a program of its own: MindSpore's tracer wants the source of every
frame on the stack, pytest's too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TRACED = """
import mindspore as ms, numpy as np
from networks import paired
from test_compilation import arguments, square_of_convolution
ms.set_context(mode=ms.PYNATIVE_MODE)
traced = ms.jit(square_of_convolution, capture_mode="trace")
np.testing.assert_allclose(
    traced(*arguments()).asnumpy(), square_of_convolution(*arguments()).asnumpy(), rtol=1e-5)
every = (0, 1, 2, 3, 4)
expected = ms.grad(square_of_convolution, every)(*arguments())
for gradient, wanted in paired(ms.grad(traced, every)(*arguments()), expected):
    np.testing.assert_allclose(gradient.asnumpy(), wanted.asnumpy(), rtol=1e-5, atol=1e-5)
"""


def test_jit_by_tracing_gives_the_output_and_the_gradients(tmp_path):
    program = tmp_path / "traced.py"
    program.write_text(TRACED)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, program], env={**os.environ, "PYTHONPATH": path}, check=True)
