# SPDX-License-Identifier: Apache-2.0
"""Runs the package mindspore_bundle beside this file, which takes the tests' stand-in for CUDA."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    sys.path += [str(ROOT), str(ROOT / "tests")]

    from mindspore_bundle.pack import main

    main()
