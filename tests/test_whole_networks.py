# SPDX-License-Identifier: Apache-2.0
"""Whole networks, ported from PyTorch with their weights, compute and train as the originals."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ported_networks
from ms_deform.__main__ import main
from ms_deform.port.convert import convert_state
from networks import random_array
from ported_networks import INPUTS
from tolerances import assert_close

WHY = "needs torch and torchvision: pip install '.[parity]'"
torch = pytest.importorskip("torch", reason=WHY)
torch_networks = pytest.importorskip("torch_networks", reason=WHY)

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("takes minutes"),
]

LEARNING_RATES = {"resnet": 0.002, "alignment": 0.02, "text detection": 0.01}
STEPS = 30


def inputs(name: str) -> list[np.ndarray]:
    return [random_array(shape, seed) for seed, shape in enumerate(INPUTS[name])]


def target(name: str) -> np.ndarray:
    """What the training is to give: random numbers of the output's shape."""
    with torch.no_grad():
        output = torch_networks.NETWORKS[name]()(*map(torch.from_numpy, inputs(name)))
    return np.random.default_rng(9).random(tuple(output.shape)).astype(np.float32)


@pytest.fixture(params=torch_networks.NETWORKS)
def name(request) -> str:
    return request.param


@pytest.fixture
def original(name) -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch_networks.NETWORKS[name]()
    torch_networks.leave_initial_values(net)
    return net


@pytest.fixture
def ported(name, original) -> nn.Cell:
    torch.save(original.state_dict(), "net.pth")
    factory = f"ported_networks:{ported_networks.NETWORKS[name].__name__}"
    assert main(["convert", "net.pth", "--net", factory, "-o", "net.ckpt"]) == 0
    net = ported_networks.NETWORKS[name]()
    assert ms.load_param_into_net(net, ms.load_checkpoint("net.ckpt"), strict_load=True) == ([], [])
    return net


class Loss(nn.Cell):
    """The mean square distance to a target."""

    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, wanted, *inputs):
        return ops.square(self.net(*inputs) - wanted).mean()


def test_outputs_are_the_same(name, original, ported, mode):
    with torch.no_grad():
        expected = original.eval()(*map(torch.from_numpy, inputs(name))).numpy()
    actual = ported.set_train(False)(*map(ms.Tensor, inputs(name))).asnumpy()
    assert np.abs(expected).max() > 0.01
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= 1e-4


def test_gradients_are_the_same(name, original, ported, mode):
    wanted = target(name)
    loss = (original.train()(*map(torch.from_numpy, inputs(name))) - torch.from_numpy(wanted)) ** 2
    loss.mean().backward()
    gradients = {key: weight.grad.numpy() for key, weight in original.named_parameters()}
    # The checkpoint's names and layouts, for the gradients as for the weights.
    expected, _ = convert_state(gradients, ported)
    weights = ms.ParameterTuple(ported.trainable_params())
    gradient = ms.grad(Loss(ported).set_train(), None, weights)
    actual = gradient(ms.Tensor(wanted), *map(ms.Tensor, inputs(name)))
    assert len(expected) == len(weights)
    largest = max(np.abs(value).max() for value in gradients.values())
    for weight, value in zip(weights, actual):
        theirs = expected[weight.name].asnumpy()
        # A bias ahead of a batch norm has no gradient but rounding errors.
        scale = max(np.abs(theirs).max(), 1e-2 * largest)
        assert_close(value.asnumpy() / scale, theirs / scale, "float32", weight.name, 1e-4)


def torch_losses(net: torch.nn.Module, name: str, wanted: np.ndarray) -> list[float]:
    optimizer = torch.optim.SGD(net.train().parameters(), LEARNING_RATES[name], momentum=0.9)
    tensors, wanted = list(map(torch.from_numpy, inputs(name))), torch.from_numpy(wanted)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((net(*tensors) - wanted) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_losses_of_thirty_steps_in_graph_mode_are_the_same(name, original, ported, graph_mode):
    wanted = target(name)
    expected = torch_losses(original, name, wanted)
    optimizer = nn.SGD(ported.trainable_params(), LEARNING_RATES[name], momentum=0.9)
    step = nn.TrainOneStepCell(Loss(ported), optimizer).set_train()
    tensors = [ms.Tensor(wanted), *map(ms.Tensor, inputs(name))]
    actual = [float(step(*tensors).asnumpy()) for _ in range(STEPS)]
    assert expected[-1] < 0.8 * expected[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
