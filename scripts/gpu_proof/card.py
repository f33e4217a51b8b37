# SPDX-License-Identifier: Apache-2.0
"""Writes what card this is, and what runs on it, into a file."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path

from gpu_proof.run import Report
from ms_deform import __version__


def describe() -> Report:
    import torch

    try:
        major, minor = torch.cuda.get_device_capability()
    except Exception as error:  # torch has several for a GPU that is not there
        sys.exit(f"torch {torch.__version__} has no NVIDIA GPU here: {error}")
    return {
        "gpu": torch.cuda.get_device_name(),
        "architecture": f"sm_{major}{minor}",
        "memory": torch.cuda.get_device_properties(0).total_memory,
        "driver": driver_version(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {
            "ms_deform": __version__,
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version_of("torchvision"),
        },
    }


def driver_version() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return told[0] if told else "unknown"


def version_of(module: str) -> str:
    try:
        return import_module(module).__version__
    except Exception as error:  # a package that does not fit torch fails in its own ways
        return f"none ({error})"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(describe()))
