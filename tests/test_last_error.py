# SPDX-License-Identifier: Apache-2.0
"""Why a kernel failed: `last_error` says it where MindSpore's exception may not."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

import ms_deform
from gpu_stand_in import VARIABLE
from ms_deform import errors
from programs import run_program

PROGRAM = """
import sys
import mindspore as ms
import ms_deform
from networks import Call, call_tensors

ms.set_device(sys.argv[1])
ms.set_context(mode=getattr(ms, sys.argv[2]))
tensors = call_tensors().values()
assert ms_deform.last_error() is None
try:
    Call()(*tensors).asnumpy()
except RuntimeError as error:
    print(" ".join(str(error).split()))
    print(ms_deform.last_error())
"""


def run_failing_kernel(device_target: str, mode: str, **variables: str) -> list[str]:
    """What MindSpore's exception says, and last_error; a kernel fails with these variables.

    In a process of its own: the failure leaves MindSpore's graphs unusable.
    """
    return run_program(PROGRAM, device_target, mode, **variables).stdout.splitlines()


@pytest.mark.parametrize("mode", ["GRAPH_MODE", "PYNATIVE_MODE"])
def test_it_is_the_reason_that_the_exception_gives_on_a_cpu(mode):
    raised, told = run_failing_kernel("CPU", mode, MS_DEFORM_CPU_ISA="none")
    assert told in raised
    assert told.startswith("deform_conv2d: MS_DEFORM_CPU_ISA=none is not available here")


@pytest.mark.gpu
@pytest.mark.skipif(VARIABLE not in os.environ, reason="a GPU does not fail when asked to")
@pytest.mark.parametrize("mode", ["GRAPH_MODE", "PYNATIVE_MODE"])
def test_it_is_the_reason_that_the_exception_lacks_on_a_gpu(mode):
    raised, told = run_failing_kernel("GPU", mode, MS_EMULATION_FAIL="launch")
    assert "Launch kernel failed" in raised
    assert "packing the weights" not in raised
    assert told == "deform_conv2d: CUDA: packing the weights: invalid configuration argument"


def test_an_ascend_tells_none(monkeypatch):
    monkeypatch.setattr(
        errors, "get_current_device", lambda: SimpleNamespace(device_target="Ascend")
    )
    assert ms_deform.last_error() is None
