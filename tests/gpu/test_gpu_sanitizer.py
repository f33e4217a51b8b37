# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's compute-sanitizer finds nothing in the kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_is_content(library, tool: str) -> None:
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("no compute-sanitizer on the PATH; a CUDA toolkit has it")
    ours = ["--kernel-regex", "kns=ms_deform", "--error-exitcode", "1"]
    tests = [str(HERE / "test_gpu_answers.py"), "--confcutdir", str(HERE), "-k", "every_geometry"]
    command = ["compute-sanitizer", "--tool", tool, *ours, sys.executable, "-m", "pytest", "-q"]
    done = subprocess.run([*command, *tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
