# SPDX-License-Identifier: Apache-2.0
"""The sides that each device has, by name; ours is the first."""

from __future__ import annotations

from benchmark import cuda, peers
from benchmark.side import OURS, Side

SIDES: dict[str, dict[str, type[Side]]] = {
    "cpu": {
        OURS: peers.MsDeform,
        "torchvision": peers.Torchvision,
        "onnxruntime": peers.Onnxruntime,
        "openvino": peers.Openvino,
        "ncnn": peers.Ncnn,
        "builtin": peers.MindSporeBuiltin,
    },
    "cuda": {OURS: cuda.MsDeform, "torchvision": cuda.Torchvision},
}
