# SPDX-License-Identifier: Apache-2.0
"""Gradients and steps of training of two networks, beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, nn, ops

from ms_deform.port import PortError
from ms_deform.port.convert import pack_predictors
from ms_deform.port.layers import Arrays, arrays_of, relative_error
from ms_deform.port.pair import Pair

# What is smaller beside the largest of all is rounding, as the gradient of a bias ahead of a norm.
_FLOOR = 0.01
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_TORCH_DROPOUTS = (torch.nn.modules.dropout._DropoutNd,)


class Problem(NamedTuple):
    """Inputs, and what each floating-point output is to be, as numbers of its own scale."""

    inputs: Arrays
    places: tuple[int, ...]  # of those outputs
    targets: Arrays

    @classmethod
    def at_random(cls, inputs: Arrays, outputs: Arrays, seed: int) -> Problem:
        random = np.random.default_rng(seed)
        places = tuple(i for i, output in enumerate(outputs) if output.dtype.kind == "f")
        if not places:
            raise PortError("no output is of floating point: leave out --gradients and --steps")
        targets = [
            (outputs[i].std() * random.standard_normal(outputs[i].shape)).astype(outputs[i].dtype)
            for i in places
        ]
        return cls(inputs, places, targets)


class _Loss(nn.Cell):
    """The sum of the outputs' mean square distances to their targets, which go first."""

    def __init__(self, net: nn.Cell, places: tuple[int, ...]) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.places = places

    def construct(self, *tensors: Tensor) -> Tensor:
        outputs = self.net(*tensors[len(self.places) :])
        if isinstance(outputs, Tensor):
            return ops.square(outputs - tensors[0]).mean()
        if isinstance(outputs, dict):
            outputs = tuple(outputs.values())
        loss = 0.0
        for i in range(len(self.places)):
            loss += ops.square(outputs[self.places[i]] - tensors[i]).mean()
        return loss


def _loss(pair: Pair, problem: Problem) -> tuple[nn.Cell, list[Tensor]]:
    return _Loss(pair.net, problem.places), list(map(Tensor, problem.targets + problem.inputs))


def _torch_loss(pair: Pair, problem: Problem, inputs: list[torch.Tensor]) -> torch.Tensor:
    outputs = pair.module(*inputs)
    if isinstance(outputs, torch.Tensor):
        outputs = [outputs]
    outputs = list(outputs.values() if isinstance(outputs, dict) else outputs)
    others = {type(output).__name__ for output in outputs if not isinstance(output, torch.Tensor)}
    if others:
        raise PortError(
            "gradients and steps need a network that gives a tensor, or a tuple, list or dict of "
            f"tensors, got one with {', '.join(sorted(others))} in it: leave them out"
        )
    targets = map(torch.from_numpy, problem.targets)
    return sum(((outputs[i] - target) ** 2).mean() for i, target in zip(problem.places, targets))


Errors = dict[str, float]


def _errors(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Errors:
    """Relative errors by name, of arrays among which the largest says what is rounding."""
    largest = max((np.abs(array).max(initial=0) for array in expected.values()), default=0)
    return {
        name: relative_error(actual[name], array, _FLOOR * largest)
        for name, array in expected.items()
    }


def gradients(pair: Pair, problem: Problem) -> Errors:
    """Of the loss by each parameter that both train, by PyTorch's name, and by each input."""
    leaves = [torch.tensor(array) for array in problem.inputs]
    differentiable = [i for i, leaf in enumerate(leaves) if leaf.is_floating_point()]
    for i in differentiable:
        leaves[i].requires_grad_()
    # Copies, which a layer may work in, as it may not in a leaf.
    _torch_loss(pair, problem, [leaf.clone() for leaf in leaves]).backward()
    weights = {
        name: both
        for name, both in pair.weights().items()
        if all(weight.requires_grad for weight in both)
    }
    inputs = {f"input {i + 1}": _gradient(leaves[i]) for i in differentiable}
    expected = {name: _gradient(weight) for name, (_, weight) in weights.items()}
    if pair.packed_offsets:
        pack_predictors(expected, pair.packed_offsets)
    loss, tensors = _loss(pair, problem)
    positions = tuple(len(problem.places) + i for i in differentiable) or None
    parameters = ms.ParameterTuple([parameter for parameter, _ in weights.values()]) or None
    result = ms.grad(loss, positions, parameters)(*tensors)
    actual = dict(zip([*inputs, *expected], arrays_of(result)))
    # MindSpore's one-dimensional kernels have a height of 1.
    ours = {name: actual[name].reshape(array.shape) for name, array in expected.items()}
    of_inputs = {name: relative_error(actual[name], array) for name, array in inputs.items()}
    return {**of_inputs, **_errors(ours, expected)}


def _gradient(tensor: torch.Tensor) -> np.ndarray:
    return arrays_of(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)[0]


def train(pair: Pair, problem: Problem, steps: int, rate: float) -> Iterator[tuple[float, float]]:
    """Steps of plain SGD in both, dropout left out: the losses of each, PyTorch's first."""
    pair.module.train()
    for layer in pair.module.modules():
        if isinstance(layer, _TORCH_DROPOUTS):
            layer.eval()
    inputs = list(map(torch.tensor, problem.inputs))
    theirs = torch.optim.SGD([p for p in pair.module.parameters() if p.requires_grad], rate)
    loss, tensors = _loss(pair, problem)
    ours = nn.TrainOneStepCell(loss, nn.SGD(pair.net.trainable_params(), rate)).set_train()
    for _, cell in pair.net.cells_and_names():
        if isinstance(cell, _DROPOUTS):
            cell.set_train(False)
    for _ in range(steps):
        theirs.zero_grad()
        expected = _torch_loss(pair, problem, [tensor.clone() for tensor in inputs])
        expected.backward()
        theirs.step()
        yield expected.item(), float(ours(*tensors).asnumpy())


def statistics(pair: Pair) -> Errors:
    """Of the running means and variances of the norms."""
    pairs = {
        name: [arrays_of(tensor)[0] for tensor in tensors]
        for name, tensors in pair.matched(pair.module.state_dict()).items()
        if "running_" in name
    }
    return _errors(*({name: both[i] for name, both in pairs.items()} for i in (0, 1)))
