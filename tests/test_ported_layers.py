# SPDX-License-Identifier: Apache-2.0
"""Layers of mmcv, BasicSR and MMagic give PyTorch's answers, with PyTorch's checkpoints."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from safetensors.numpy import save_file

import ms_deform
from ms_deform.__main__ import main
from networks import paired
from ported_layers import CASES, RECORDED
from tolerances import assert_close

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's Greater and Split"),
]


class WeightedSum(nn.Cell):
    """The output's sum, weighted by what is to be its gradient."""

    def __init__(self, layer: nn.Cell) -> None:
        super().__init__()
        self.layer = layer

    def construct(self, grad_output, *inputs):
        output = self.layer(*inputs)
        return (output * grad_output).sum(), output


def assert_gives(layer: nn.Cell, answers: dict[str, np.ndarray]) -> None:
    tensors = {name: ms.Tensor(array.astype(np.float32)) for name, array in answers.items()}
    inputs = {name: tensor for name, tensor in tensors.items() if name.startswith("input/")}
    names = [name for name, _ in layer.parameters_and_names()]
    for name, parameter in layer.parameters_and_names():
        parameter.set_data(tensors[f"parameter/{name}"])
    gradient = ms.value_and_grad(
        WeightedSum(layer),
        tuple(range(1, len(inputs) + 1)),
        ms.ParameterTuple(layer.trainable_params()),
        has_aux=True,
    )
    (_, output), (grad_inputs, grad_parameters) = gradient(tensors["grad_output"], *inputs.values())
    assert_close(output.asnumpy(), answers["output"], "float32", "output")
    # Convolutions lie between inputs and output: their gradients are sums, as those of a weight.
    grad_inputs = grad_inputs if isinstance(grad_inputs, tuple) else (grad_inputs,)
    for (name, _), grad in paired([*inputs.items()], grad_inputs):
        assert_close(grad.asnumpy(), answers[f"grad/{name}"], "float32", "weight")
    for name, grad in paired(names, grad_parameters):
        assert_close(grad.asnumpy(), answers[f"grad/parameter/{name}"], "float32", "weight")


def made(name: str) -> nn.Cell:
    return getattr(ms_deform, CASES[name].layer)(**CASES[name].arguments)


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "layers.npz") as file:
        return {key[len(name) + 1 :]: file[key] for key in file.files if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", RECORDED)
def test_the_answer_is_the_recorded_one(name):
    assert_gives(made(name), recorded(name))


@pytest.mark.needs("torchvision")
@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_that_of_the_torch_layer(name):
    import torch_layers

    assert_gives(made(name), torch_layers.answers(CASES[name], seed=7))


# Factories, as the command takes them.
def dcn_v2_pack() -> nn.Cell:
    return made("DCNv2Pack, strided")


def alignment() -> nn.Cell:
    return made("SecondOrderDeformableAlignment, near")


@pytest.mark.parametrize(
    ("name", "factory"),
    [("DCNv2Pack, strided", dcn_v2_pack), ("SecondOrderDeformableAlignment, near", alignment)],
)
def test_convert_loads_pytorchs_checkpoints(name, factory):
    state = {
        key.removeprefix("parameter/"): array.astype(np.float32)
        for key, array in recorded(name).items()
        if key.startswith("parameter/")
    }
    save_file(state, "layer.safetensors")
    net = f"test_ported_layers:{factory.__name__}"
    assert main(["convert", "layer.safetensors", "--net", net, "-o", "layer.ckpt"]) == 0
    layer = factory()
    assert ms.load_param_into_net(layer, ms.load_checkpoint("layer.ckpt")) == ([], [])
    for key, parameter in layer.parameters_and_names():
        np.testing.assert_array_equal(parameter.asnumpy(), state[key])
