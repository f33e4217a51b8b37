# SPDX-License-Identifier: Apache-2.0
"""Files of export_onnx compute what PyTorch's layers of the same names compute."""

from __future__ import annotations

import mindspore as ms
import pytest
from mindspore import nn, ops

from ms_deform import export_onnx
from networks import random_array
from onnx_files import assert_all_close, run

pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install '.[onnx]'")

pytestmark = [
    pytest.mark.needs("torch"),
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]


class InMindSpore(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.max_pool = nn.MaxPool2d(3, 2, "pad", 1)
        self.avg_pool = nn.AvgPool2d(3, 2, "pad", 1)
        self.norm = nn.GroupNorm(2, 4)

    def construct(self, x, grid):
        return (
            ops.interpolate(x, size=(14, 5), mode="bilinear", align_corners=False),
            ops.interpolate(x, size=(14, 5), mode="bilinear", align_corners=True),
            ops.interpolate(x, size=(14, 27), mode="nearest"),
            ops.interpolate(x, size=(14, 5), mode="nearest"),
            ops.grid_sample(x, grid, "bilinear", "zeros", True),
            ops.grid_sample(x, grid, "bilinear", "border", False),
            ops.grid_sample(x, grid, "nearest", "reflection", False),
            self.max_pool(x),
            self.avg_pool(x),
            ops.adaptive_avg_pool2d(x, 1),
            ops.adaptive_avg_pool2d(x, (3, 4)),
            ops.gelu(x),
            ops.gelu(x, "tanh"),
            ops.leaky_relu(x, 0.1),
            self.norm(x),
            ops.pixel_shuffle(x, 2),
            ops.pad(x, (1, 2, 0, 3), mode="reflect"),
            ops.stack([x, 2 * x], 1),
            x[:, 1:3, ::2, -3:],
        )


def in_torch(x, grid):
    import torch
    from torch.nn import functional as F

    x, grid = torch.tensor(x), torch.tensor(grid)
    outputs = (
        F.interpolate(x, size=(14, 5), mode="bilinear", align_corners=False),
        F.interpolate(x, size=(14, 5), mode="bilinear", align_corners=True),
        F.interpolate(x, size=(14, 27), mode="nearest"),
        F.interpolate(x, size=(14, 5), mode="nearest"),
        F.grid_sample(x, grid, "bilinear", "zeros", True),
        F.grid_sample(x, grid, "bilinear", "border", False),
        F.grid_sample(x, grid, "nearest", "reflection", False),
        F.max_pool2d(x, 3, 2, 1),
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=True),
        F.adaptive_avg_pool2d(x, 1),
        F.adaptive_avg_pool2d(x, (3, 4)),
        F.gelu(x),
        F.gelu(x, approximate="tanh"),
        F.leaky_relu(x, 0.1),
        F.group_norm(x, 2),
        F.pixel_shuffle(x, 2),
        F.pad(x, (1, 2, 0, 3), mode="reflect"),
        torch.stack([x, 2 * x], 1),
        x[:, 1:3, ::2, -3:],
    )
    return [output.numpy() for output in outputs]


@pytest.mark.parametrize("opset_version", (19, 22))
def test_layers_compute_what_those_of_pytorch_do(opset_version):
    arrays = [random_array((2, 4, 7, 9)), random_array((2, 5, 6, 2), 1)]
    inputs = [ms.Tensor(array) for array in arrays]
    path = export_onnx(InMindSpore(), *inputs, file_name="net", opset_version=opset_version)
    assert_all_close(run(path, *inputs), in_torch(*arrays), 1e-5)
