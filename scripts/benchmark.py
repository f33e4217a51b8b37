# SPDX-License-Identifier: Apache-2.0
"""Time deform_conv2d beside torchvision's on a CPU, forward and training, in one run.

Both sides take turns, so that other load on the machine hits them alike; a row's ratio is the
median over the rounds. Needs torch and torchvision: pip install '.[parity]'.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import mindspore as ms
import numpy as np
import torch
import torchvision
from mindspore import nn

from ms_deform import deform_conv2d


class Row(NamedTuple):
    """A 3x3 layer with padding 1, mask and bias."""

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    offset_groups: int


# The deformable stages of a ResNet-50 detector, and one with four offset groups.
ROWS = {
    "c3": Row(1, 128, 128, 100, 136, 1),
    "c4": Row(1, 256, 256, 50, 68, 1),
    "c5": Row(1, 512, 512, 25, 34, 1),
    "c4g": Row(2, 256, 256, 50, 68, 4),
}


class Ours(nn.Cell):
    def construct(
        self,
        input: ms.Tensor,
        offset: ms.Tensor,
        weight: ms.Tensor,
        bias: ms.Tensor,
        mask: ms.Tensor,
    ) -> ms.Tensor:
        return deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)


class OursTraining(nn.Cell):
    def __init__(self, grad_output: ms.Tensor) -> None:
        super().__init__()
        self.forward = Ours()
        self.grad_output = grad_output
        self.gradients = ms.value_and_grad(self.loss, (0, 1, 2, 3, 4))

    def loss(self, *tensors: ms.Tensor) -> ms.Tensor:
        return (self.forward(*tensors) * self.grad_output).sum()

    def construct(self, *tensors: ms.Tensor) -> tuple[ms.Tensor, tuple[ms.Tensor, ...]]:
        return self.gradients(*tensors)


def make_arrays(row: Row) -> list[np.ndarray]:
    """input, offset, weight, bias, mask and grad_output."""
    rng = np.random.default_rng(0)
    taps = 9 * row.offset_groups
    size = (row.height, row.width)
    shapes = [
        (row.batch, row.in_channels, *size),
        (row.batch, 2 * taps, *size),
        (row.out_channels, row.in_channels, 3, 3),
        (row.out_channels,),
        (row.batch, taps, *size),
        (row.batch, row.out_channels, *size),
    ]
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    arrays[1] *= 2  # offsets in pixels
    return arrays


def ours(arrays: list[np.ndarray], training: bool) -> Callable[[], None]:
    *tensors, grad_output = (ms.Tensor(array) for array in arrays)
    net = OursTraining(grad_output) if training else Ours()

    def run() -> None:
        result = net(*tensors)
        for tensor in result[1] if training else [result]:
            tensor.asnumpy()  # waits for the result

    return run


def torchvisions(arrays: list[np.ndarray], training: bool) -> Callable[[], None]:
    *tensors, grad_output = (torch.from_numpy(array) for array in arrays)
    for tensor in tensors:
        tensor.requires_grad_(training)

    def run() -> None:
        input, offset, weight, bias, mask = tensors
        output = torchvision.ops.deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)
        if training:
            (output * grad_output).sum().backward()

    return run


def milliseconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ms.set_context(mode=ms.GRAPH_MODE)
    print(f"{torch.get_num_threads()} threads, float32, median of {arguments.rounds} rounds")
    print(f"{'row':4}  {'pass':8}  {'ms_deform ms':>12}  {'torchvision ms':>14}  {'ratio':>6}")
    for name in arguments.rows:
        arrays = make_arrays(ROWS[name])
        for training in (False, True):
            pair = ours(arrays, training), torchvisions(arrays, training)
            for run in pair:
                run()
            times = [[milliseconds(run) for run in pair] for _ in range(arguments.rounds)]
            mine, theirs = map(statistics.median, zip(*times))
            ratio = statistics.median(theirs / mine for mine, theirs in times)
            kind = "training" if training else "forward"
            print(f"{name:4}  {kind:8}  {mine:12.1f}  {theirs:14.1f}  {ratio:5.1f}x", flush=True)


if __name__ == "__main__":
    main()
