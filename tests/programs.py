# SPDX-License-Identifier: Apache-2.0
"""Programs that tests run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_program(
    program: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python's source, which finds the tests' modules, to its good end."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
