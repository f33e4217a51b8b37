# SPDX-License-Identifier: Apache-2.0
"""Why a kernel failed: `last_error` says it where MindSpore's exception may not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# A process of its own: a kernel that failed leaves MindSpore's graphs unusable.
PROGRAM = """
import mindspore as ms
import ms_deform
from networks import Call, call_tensors

ms.set_context(mode=ms.{mode})
tensors = call_tensors().values()
assert ms_deform.last_error() is None
try:
    Call()(*tensors).asnumpy()
except RuntimeError as error:
    assert ms_deform.last_error() in str(error)
    print(ms_deform.last_error())
"""


@pytest.mark.parametrize("mode", ["GRAPH_MODE", "PYNATIVE_MODE"])
def test_it_is_the_reason_that_the_exception_gives_on_a_cpu(mode):
    command = [sys.executable, "-c", PROGRAM.format(mode=mode)]
    environment = {**os.environ, "MS_DEFORM_CPU_ISA": "none"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("deform_conv2d: MS_DEFORM_CPU_ISA=none is not available here")
