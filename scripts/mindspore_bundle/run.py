# SPDX-License-Identifier: Apache-2.0
"""What runs from a bundle, and how: the standard library is enough here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import unpack_archive

ROOT = Path(__file__).resolve().parents[2]
# Tests whose tensors come from the host and go there: no kernel of MindSpore's own has to run.
TESTS = (
    "tests/test_forward.py",
    "tests/test_gradients.py",
    "tests/test_gpu_runtime.py",
    "tests/test_torchvision_recorded.py",
)
# Where only some of the gradients are asked for, MindSpore makes the gradient of the output.
CHOICE = "GPU and not composition and not some_of_the_gradients"
PYTEST_ARGUMENTS = ("-q", "-p", "no:cacheprovider", *TESTS, "-k", CHOICE)


def archive_name(version: str) -> str:
    """Of a bundle for this Python."""
    return f"mindspore-{version}-{sys.implementation.cache_tag}.tar.xz"


def unpack(folder: Path, to: Path) -> Path:
    """The bundle for this Python in the folder, unpacked.

    Raises:
        ValueError: If there is none.
    """
    wanted = archive_name("*")
    found = sorted(folder.glob(wanted))
    if not found:
        there = ", ".join(sorted(path.name for path in folder.glob("mindspore-*"))) or "none"
        raise ValueError(f"{folder} must have a bundle {wanted}, for this Python, and has {there}")
    unpack_archive(found[-1], to)
    return to


def tests(bundle: Path) -> list[str]:
    """The command that runs them on MindSpore's GPU target."""
    return _python(bundle, "pytest", *PYTEST_ARGUMENTS)


def call_times(bundle: Path, file: Path) -> list[str]:
    """The command that times calls, and writes microseconds into the file, as JSON."""
    return _python(bundle, "mindspore_bundle.call_times", str(file))


def _python(bundle: Path, module: str, *arguments: str) -> list[str]:
    """With -S, the bundle's packages are the only ones."""
    places = (bundle / "site", ROOT, ROOT / "tests", ROOT / "scripts")
    variables = (
        f"PYTHONPATH={os.pathsep.join(map(str, places))}",
        f"CUDA_HOME={bundle / 'cuda'}",
    )
    return ["env", *variables, sys.executable, "-S", "-m", module, *arguments]
