# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's compute-sanitizer finds nothing in the kernels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Those that meet the ends of the kernels' blocks: all of them would take many minutes.
GEOMETRIES = "every_geometry and (channels or groups or 5x5)"
CLEAN = re.compile("ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards")


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_is_content(library, tool: str) -> None:
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("no compute-sanitizer on the PATH; a CUDA toolkit has it")
    # torch asks CUDA for things that need not be there, which is no error of the kernels.
    options = ["--kernel-regex", "kns=ms_deform", "--report-api-errors", "no"]
    command = ["compute-sanitizer", "--tool", tool, *options, "--error-exitcode", "1"]
    tests = [str(HERE / "test_gpu_answers.py"), "--confcutdir", str(HERE), "-k", GEOMETRIES]
    done = subprocess.run(
        [*command, sys.executable, "-m", "pytest", "-q", *tests],
        # An allocation for each tensor: torch's own pool would hide where it ends.
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True,
        text=True,
    )
    told = done.stdout[-5000:] + done.stderr[-2000:]
    assert done.returncode == 0, told
    assert CLEAN.search(done.stdout), told
    # Where the tool cannot use the GPU, the tests skip.
    assert " passed" in done.stdout, told
