# SPDX-License-Identifier: Apache-2.0
"""Train the demo's deformable network data-parallel, in graph mode.

One process:      python scripts/train_parallel.py
Two on a machine: msrun --worker_num=2 --local_worker_num=2 --join=True scripts/train_parallel.py

Every worker takes its share of the same batches and the gradients are averaged, so that any number
of workers ends with the weights of one process.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.communication import get_group_size, get_rank, init

from demo import BATCH_SIZE, DeformBlock, DigitNet, load_split, transformed


def replace_batch_norms(net: nn.Cell) -> None:
    """Puts group norms in their place.

    A batch norm takes its statistics from the worker's share of the batch, so that the result would
    depend on the number of workers; nn.SyncBatchNorm, which mends that, has no CPU version.
    """
    for _, cell in net.cells_and_names():
        if isinstance(cell, nn.SequentialCell):
            for position, child in enumerate(cell):
                if isinstance(child, nn.BatchNorm2d):
                    cell[position] = nn.GroupNorm(4, child.num_features)


def start_workers(backend: str) -> tuple[int, int]:
    """(rank, number of workers): msrun names them in the environment of each."""
    if "MS_WORKER_NUM" not in os.environ:
        return 0, 1
    init(backend)
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    return get_rank(), get_group_size()


def make_net(seed: int) -> nn.Cell:
    ms.set_seed(seed)
    net = DigitNet(DeformBlock)
    replace_batch_norms(net)
    net.update_parameters_name()
    return net


def train(net: nn.Cell, rank: int, workers: int, arguments: argparse.Namespace) -> float:
    """Trains on batches that any number of workers shares; gives the last loss of this share."""
    rng = np.random.default_rng(arguments.seed)
    digits, _ = load_split(rng)
    loss = nn.WithLossCell(net, nn.CrossEntropyLoss())
    optimizer = nn.Momentum(net.trainable_params(), arguments.learning_rate, momentum=0.9)
    step = nn.TrainOneStepCell(loss, optimizer).set_train()
    share = slice(rank * BATCH_SIZE // workers, (rank + 1) * BATCH_SIZE // workers)
    for number in range(arguments.steps):
        chosen = rng.integers(len(digits.labels), size=BATCH_SIZE)
        images = transformed(digits.images[chosen], rng)
        last = step(Tensor(images[share]), Tensor(digits.labels[chosen][share]))
        if rank == 0 and (number + 1) % 10 == 0:
            print(f"step {number + 1}/{arguments.steps}: loss {float(last.asnumpy()):.4f}")
    return float(last.asnumpy())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU", "Ascend"))
    parser.add_argument("--output", type=Path, default=Path("parallel.ckpt"), metavar="FILE")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device(arguments.device)
    # MindSpore's own library of collective operations on each device target.
    rank, workers = start_workers(
        {"CPU": "mccl", "GPU": "nccl", "Ascend": "hccl"}[arguments.device]
    )
    if BATCH_SIZE % workers:
        raise SystemExit(f"{BATCH_SIZE} images a step cannot be shared among {workers} workers")
    net = make_net(arguments.seed)
    loss = train(net, rank, workers, arguments)
    if rank == 0:
        ms.save_checkpoint(net, str(arguments.output))
        print(f"workers: {workers}, last loss: {loss:.4f}, weights: {arguments.output}")


if __name__ == "__main__":
    main()
