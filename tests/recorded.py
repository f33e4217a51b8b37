# SPDX-License-Identifier: Apache-2.0
"""torchvision's answers, as scripts/record_torchvision.py wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reference import Gradients

# How far the operator may be from them.
TOLERANCES = {"float64": 1e-9, "float32": 3e-5}


class Recorded(NamedTuple):
    call: dict[str, Any]
    grad_output: np.ndarray
    output: np.ndarray
    gradients: Gradients


def load() -> dict[str, Recorded]:
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(Path(__file__).parent / "data" / "torchvision_0.29.1.npz") as file:
        for key in file.files:
            case, name = key.split("/")
            cases.setdefault(case, {})[name] = file[key]
    return {case: recorded(arrays) for case, arrays in cases.items()}


def recorded(arrays: dict[str, np.ndarray]) -> Recorded:
    gradients = Gradients(*(arrays.pop(f"grad_{name}", None) for name in Gradients._fields))
    grad_output, output = arrays.pop("grad_output").astype(float), arrays.pop("output")
    call = {
        name: tuple(value.tolist())
        if name in ("stride", "padding", "dilation")
        else value.astype(float)
        for name, value in arrays.items()
    }
    return Recorded(call, grad_output, output, gradients)


CASES = load()
