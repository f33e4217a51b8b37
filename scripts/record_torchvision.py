#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Record torchvision's answers into tests/data, so that the tests need no torch.

Needs the parity extra (torch and torchvision). Arrays named case/name hold the inputs in float32,
offsets in multiples of 1/1024 so that float32 and float64 see the same points; case/output and
case/grad_* hold torchvision's float64 answers.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torchvision

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import torchvision_operator  # noqa: E402
from geometries import GRID, Geometry  # noqa: E402

OWN = GRID["torchvision's own"]
BORDER = Geometry(batch=1, channels_out=3, size=(4, 6), kernel=(3, 3), offset_groups=2)

CASES = {
    "torchvision_own": OWN,
    "torchvision_own_without_mask": replace(OWN, use_mask=False),
    "zero_offsets_on_the_border": BORDER,
    "whole_offsets_across_the_border": BORDER,
    "neither_mask_nor_bias": replace(GRID["neither mask nor bias"], batch=1),
    "groups": replace(GRID["more groups than offset groups"], batch=1, size=(4, 5)),
    "depthwise": replace(GRID["depthwise"], batch=1),
    "an_offset_group_a_channel": replace(GRID["an offset group a channel"], batch=1, size=(3, 5)),
    "kernel_1x1": replace(GRID["1x1 kernel"], size=(3, 4)),
    "kernel_7x7": Geometry(
        batch=1, channels_in=2, size=(5, 6), kernel=(7, 7), padding=(3, 2), channels_out=3
    ),
    "kernel_1x4_strided": replace(GRID["1x4 kernel"], batch=1),
    "dekr_15_channels": Geometry(
        batch=1, channels_in=15, channels_out=15, size=(5, 6), kernel=(3, 3), use_mask=False
    ),
    "strided_and_dilated": replace(GRID["strided and dilated"], batch=1, channels_in=3),
    "offsets_far_outside": replace(GRID["offsets far outside"], batch=1),
}


def call_of(name: str, seed: int) -> dict[str, Any]:
    call = CASES[name].call(seed)
    if name == "zero_offsets_on_the_border":
        call["offset"] = np.zeros_like(call["offset"])
    if name == "whole_offsets_across_the_border":
        call["offset"] = np.random.default_rng(seed).integers(-3, 4, call["offset"].shape)
    call["offset"] = np.round(call["offset"] * 1024) / 1024
    return {
        key: value.astype(np.float32) if isinstance(value, np.ndarray) else value
        for key, value in call.items()
    }


def main() -> None:
    recorded = {}
    for seed, (name, geometry) in enumerate(CASES.items()):
        call = call_of(name, seed)
        grad_output = geometry.grad_output(seed).astype(np.float32)
        output, gradients = torchvision_operator.gradients(call, grad_output)
        answer = {f"grad_{key}": value for key, value in gradients._asdict().items()}
        answer.update(call, grad_output=grad_output, output=output)
        recorded.update({f"{name}/{k}": v for k, v in answer.items() if v is not None})
    path = TESTS / "data" / f"torchvision_{torchvision.__version__.split('+')[0]}.npz"
    np.savez_compressed(path, **recorded)
    print(f"{path}: {len(CASES)} cases, {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
