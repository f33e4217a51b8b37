# SPDX-License-Identifier: Apache-2.0
"""What doctor says of MindSpore's GPU target is true, and the commands that it prints mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_stand_in import VARIABLE
from ms_deform import doctor

pytestmark = pytest.mark.gpu


def test_a_gpu_that_mindspore_starts_is_usable():
    assert doctor.complaint("GPU") is None


@pytest.mark.skipif(VARIABLE not in os.environ, reason="a GPU does not fail when asked to")
def test_where_a_kernel_fails_the_reason_is_what_cuda_says(monkeypatch):
    monkeypatch.setenv("MS_EMULATION_FAIL", "allocate")
    told = doctor.complaint("GPU")
    reason = "deform_conv2d: CUDA: cannot allocate 1536 bytes of scratch: out of memory"
    assert told.startswith(f"the self-test fails: {reason}\n")


def test_without_cuda_home_the_commands_that_are_printed_mend_it(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("CUDA_HOME")
    told, where, *commands = doctor.complaint("GPU").splitlines()
    assert told.startswith("MindSpore does not start it: CUDA_HOME is not set")
    assert where.strip() == "in the shell that starts Python:"
    monkeypatch.setenv("HOME", str(tmp_path))
    again = "from ms_deform import doctor; print(doctor.complaint('GPU'))"
    script = "\n".join([*commands, f'{sys.executable} -c "{again}"'])
    done = subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"
