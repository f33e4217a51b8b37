#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Record PyTorch's answers for other libraries' layers into tests/data, for tests without torch.

Needs the parity extra (torch and torchvision). The layers are those of tests/torch_layers.py, the
cases those of tests/ported_layers.py. Arrays named case/input/*, case/parameter/* and
case/grad_output are exact in float16; case/output and case/grad/* are answers, computed in float64
and rounded to float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import torch_layers  # noqa: E402
from ported_layers import CASES, RECORDED  # noqa: E402


def main() -> None:
    recorded = {
        f"{name}/{key}": value.astype(np.float32) if value.dtype == np.float64 else value
        for seed, name in enumerate(RECORDED)
        for key, value in torch_layers.answers(CASES[name], seed).items()
    }
    path = TESTS / "data" / "layers.npz"
    np.savez_compressed(path, **recorded)
    print(f"{path}: {len(RECORDED)} cases, {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
