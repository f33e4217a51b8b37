# SPDX-License-Identifier: Apache-2.0
"""Every way MindSpore trains a network gives the operator's gradients."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import DeformConv2d
from networks import CHANNELS, LayerNet, MeanSquare, image, paired, random_array

pytestmark = pytest.mark.usefixtures("device", "mode")


@pytest.fixture
def net() -> nn.Cell:
    return MeanSquare(LayerNet())


def expected_slope(net: nn.Cell, direction: np.ndarray) -> float:
    """Central difference of the loss along a direction in the space of the deformable weight."""
    weight = net.net.deform.weight
    start, step, losses = weight.asnumpy().copy(), 1e-2, []
    for sign in (1, -1):
        weight.set_data(ms.Tensor(start + sign * step * direction))
        losses.append(float(net(image()).asnumpy()))
    weight.set_data(ms.Tensor(start))
    return (losses[0] - losses[1]) / (2 * step)


def test_grad_of_a_cell_follows_the_loss(net):
    direction = random_array(net.net.deform.weight.shape, seed=1)
    gradient = ms.grad(net, None, net.net.deform.weight)(image())
    slope = float((gradient.asnumpy() * direction).sum())
    assert slope == pytest.approx(expected_slope(net, direction), rel=1e-3)


def test_value_and_grad_equals_grad(net):
    weights = ms.ParameterTuple(net.trainable_params())
    loss, gradients = ms.value_and_grad(net, None, weights)(image())
    assert loss.asnumpy() == net(image()).asnumpy()
    for gradient, again in paired(gradients, ms.grad(net, None, weights)(image())):
        np.testing.assert_array_equal(gradient.asnumpy(), again.asnumpy())


def test_every_parameter_gets_a_gradient(net):
    gradients = ms.grad(net, None, ms.ParameterTuple(net.trainable_params()))(image())
    assert len(gradients) == 4
    assert all(np.abs(gradient.asnumpy()).max() > 0 for gradient in gradients)


def test_train_one_step_cell_steps_along_the_gradient(net):
    weights = ms.ParameterTuple(net.trainable_params())
    gradients = ms.grad(net, None, weights)(image())
    before = [weight.asnumpy().copy() for weight in weights]
    step = nn.TrainOneStepCell(net, nn.SGD(net.trainable_params(), learning_rate=0.5))
    step.set_train()
    step(image())
    for (weight, gradient), start in zip(paired(list(weights), gradients), before):
        moved = start - 0.5 * gradient.asnumpy()
        np.testing.assert_allclose(weight.asnumpy(), moved, rtol=1e-5, atol=1e-6)


def test_training_lowers_the_loss(net):
    step = nn.TrainOneStepCell(net, nn.Adam(net.trainable_params(), learning_rate=1e-2))
    step.set_train()
    losses = [float(step(image()).asnumpy()) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]


def test_model_train_lowers_the_loss():
    class Classifier(nn.Cell):
        def __init__(self):
            super().__init__()
            self.features = LayerNet()
            self.head = nn.Dense(6, 2)

        def construct(self, input):
            return self.head(ops.relu(self.features(input)).mean((2, 3)))

    class Losses(ms.train.Callback):
        values: list[float]

        def on_train_begin(self, run_context):
            self.values = []

        def on_train_step_end(self, run_context):
            self.values.append(float(run_context.original_args().net_outputs.asnumpy()))

    # The label is the sign of the image's first channel, which the network has to find.
    images = random_array((16, CHANNELS, 7, 9))
    images[:, 0] += np.repeat([1.0, -1.0], 8)[:, None, None]
    labels = np.repeat([0, 1], 8).astype(np.int32)
    data = ms.dataset.NumpySlicesDataset((images, labels), shuffle=False).batch(8)
    net, losses = Classifier(), Losses()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    model = ms.train.Model(net, loss, nn.Adam(net.trainable_params(), learning_rate=1e-2))
    model.train(10, data, callbacks=losses, dataset_sink_mode=False)
    assert np.mean(losses.values[-2:]) < 0.8 * np.mean(losses.values[:2])


def test_frozen_parameters_stay_and_the_rest_trains(net):
    net.net.deform.weight.requires_grad = False
    frozen = net.net.deform.weight.asnumpy().copy()
    bias = net.net.deform.bias.asnumpy().copy()
    step = nn.TrainOneStepCell(net, nn.SGD(net.trainable_params(), learning_rate=0.1))
    step.set_train()
    step(image())
    np.testing.assert_array_equal(net.net.deform.weight.asnumpy(), frozen)
    assert np.abs(net.net.deform.bias.asnumpy() - bias).max() > 0


def test_layers_chain_in_a_sequential_cell():
    class WithZeroOffsets(nn.Cell):
        def __init__(self):
            super().__init__()
            self.deform = DeformConv2d(CHANNELS, CHANNELS, 3, padding=1)

        def construct(self, input):
            batch, _, height, width = input.shape
            return self.deform(input, ops.zeros((batch, 18, height, width), ms.float32))

    net = nn.SequentialCell(WithZeroOffsets(), nn.ReLU(), WithZeroOffsets())
    gradients = ms.grad(MeanSquare(net), None, ms.ParameterTuple(net.trainable_params()))(image())
    assert len(gradients) == 4
    assert all(np.abs(gradient.asnumpy()).max() > 0 for gradient in gradients)
