# SPDX-License-Identifier: Apache-2.0
"""Gradients of gradients are right, in every geometry and in both modes.

What is differentiated a second time is the sum of all gradients times random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from mindspore import nn, ops

import operator_under_test
from finite_differences import away_from_kinks
from geometries import GRID, Geometry
from ms_deform import deform_conv2d
from networks import LayerNet, MeanSquare, image
from operator_under_test import ARRAYS, Operator, to_array, to_tensor
from random_geometries import geometries

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.not_on_gpu_stand_in("needs many of MindSpore's own kernels"),
]

in_pynative = pytest.mark.parametrize("mode", ["pynative"], indirect=True)

Arrays = dict[str, np.ndarray]


class Total(nn.Cell):
    """sum(gradients * cotangents) of the arrays that are given."""

    def __init__(self, names: tuple[str, ...], **constants: tuple[int, ...]) -> None:
        super().__init__()
        self.operator = Operator(**constants)
        self.use_bias, self.use_mask = "bias" in names, "mask" in names
        self.count = len(names)
        self.grad = ops.GradOperation(get_all=True, sens_param=True)

    def output(self, input, offset, weight, *rest):
        bias = rest[0] if self.use_bias else None
        return self.operator(input, offset, weight, bias, rest[-1] if self.use_mask else None)

    def construct(self, *tensors):
        gradients = self.grad(self.output)(*tensors[: self.count + 1])
        total = 0
        for gradient, cotangent in zip(gradients, tensors[self.count + 1 :]):
            total = total + (ops.cast(gradient, ms.float64) * cotangent).sum()
        return total


class Gradients(nn.Cell):
    def __init__(self, total: Total) -> None:
        super().__init__()
        self.total = total
        self.grad = ms.grad(total, tuple(range(total.count + 1)))

    def construct(self, *tensors):
        return self.grad(*tensors)


@lru_cache(maxsize=1)
def cells(names: tuple[str, ...], **constants: tuple[int, ...]) -> tuple[Total, Gradients]:
    total = Total(names, **constants)
    return total, Gradients(total)


class Problem:
    """A call, its grad_output and the cotangents of its gradients."""

    def __init__(self, geometry: Geometry, seed: int, dtype: str = "float64") -> None:
        self.call = geometry.call(seed)
        self.names = tuple(name for name in ARRAYS if name in self.call)
        self.arrays: Arrays = {name: self.call[name] for name in self.names}
        self.arrays["grad_output"] = geometry.grad_output(seed)
        rng = np.random.default_rng(seed)
        self.cotangents = [rng.normal(size=self.call[name].shape) for name in self.names]
        self.dtype = dtype
        constants: dict[str, Any] = {
            name: self.call[name] for name in ("stride", "padding", "dilation")
        }
        self.total_of, self.gradients_of = cells(self.names, **constants)

    def tensors(self, arrays: Arrays) -> list[ms.Tensor]:
        tensors = [to_tensor(array, self.dtype) for array in arrays.values()]
        return [*tensors, *(to_tensor(array, "float64") for array in self.cotangents)]

    def total(self, **changed: np.ndarray) -> float:
        return float(self.total_of(*self.tensors({**self.arrays, **changed})).asnumpy())

    def gradients(self) -> Arrays:
        found = self.gradients_of(*self.tensors(self.arrays))
        assert {gradient.dtype for gradient in found} == {operator_under_test.DTYPES[self.dtype]}
        return dict(zip(self.arrays, map(to_array, found)))


def assert_close_to_differences(problem: Problem, weights: dict[int, float], step: float) -> None:
    """Along a random direction; weights: of the totals at so many steps."""
    rng = np.random.default_rng(7)
    for name, gradient in problem.gradients().items():
        start = problem.arrays[name]
        direction = rng.uniform(0, 1, start.shape)
        difference = sum(
            weight * problem.total(**{name: start + steps * step * direction}) / step
            for steps, weight in weights.items()
        )
        error = abs(np.sum(gradient * direction) - difference)
        assert error <= 1e-6 * (np.linalg.norm(gradient) + 1), name


CENTRAL = {1: 1 / 2, -1: -1 / 2}
TO_THE_RIGHT = {0: -3 / 2, 1: 2, 2: -1 / 2}


def assert_second_order_is_right(geometry: Geometry, seed: int = 0) -> None:
    problem = Problem(geometry, seed)
    problem.arrays["offset"] = away_from_kinks(problem.arrays["offset"])
    assert_close_to_differences(problem, CENTRAL, 1e-5)


# Compiling takes seconds.
@pytest.mark.parametrize("mode", ["graph"], indirect=True)
@pytest.mark.parametrize("name", ["torchvision's own", "neither mask nor bias"])
def test_second_order_gradients_in_graph_mode_follow_the_gradients(mode: str, name: str) -> None:
    assert_second_order_is_right(GRID[name])


@in_pynative
@pytest.mark.parametrize("name", sorted(GRID.keys() - {"empty batch"}))
def test_second_order_gradients_follow_the_gradients(mode: str, name: str) -> None:
    assert_second_order_is_right(GRID[name])


@in_pynative
@settings(max_examples=10)
@given(geometry=geometries().filter(lambda geometry: geometry.batch > 0))
def test_a_random_geometry_has_right_second_order_gradients(mode: str, geometry: Geometry) -> None:
    assert_second_order_is_right(geometry)


# With padding 1 samples are on pixels, and on -1 and H.
@in_pynative
def test_on_pixels_and_borders_they_are_the_derivatives_from_the_right(mode: str) -> None:
    assert_close_to_differences(Problem(Geometry(offset_scale=0.0), 0), TO_THE_RIGHT, 1e-3)


@in_pynative
def test_an_empty_batch_has_second_order_gradients_of_zero(mode: str) -> None:
    for name, gradient in Problem(GRID["empty batch"], 0).gradients().items():
        assert not gradient.any(), name


# In graph mode MindSpore cannot add up bfloat16 gradients on a CPU.
@in_pynative
@pytest.mark.parametrize("dtype, error", [("float32", 1e-5), ("float16", 4e-3), ("bfloat16", 3e-2)])
def test_every_dtype_has_second_order_gradients(mode: str, dtype: str, error: float) -> None:
    if dtype == "bfloat16" and ms.__version__.startswith("2.7"):
        pytest.skip("MindSpore 2.7 has no zeros of bfloat16 on a CPU")
    exact, actual = Problem(Geometry(), 0), Problem(Geometry(), 0, dtype)
    for problem in (exact, actual):
        problem.arrays["offset"] = away_from_kinks(problem.arrays["offset"])
    expected = exact.gradients()
    for name, gradient in actual.gradients().items():
        scale = np.abs(expected[name]).max()
        assert np.abs(gradient - expected[name]).max() <= error * scale, name


@in_pynative
@pytest.mark.parametrize("value, expected", [(np.nan, np.nan), (np.inf, 0.0), (-1e30, 0.0)])
def test_an_offset_that_is_no_place_touches_only_itself(
    mode: str, value: float, expected: float
) -> None:
    problem = Problem(Geometry(kernel=(1, 1), padding=(0, 0), use_bias=False), 0)
    problem.arrays["offset"][0, :, 0, 0] = value
    gradients = problem.gradients()
    for name in ("offset", "mask", "grad_output"):
        np.testing.assert_array_equal(gradients[name][0, :, 0, 0], expected)
        assert np.isfinite(gradients[name][1]).all()
    assert np.isfinite(gradients["input"][1]).all()


class Critic(nn.Cell):
    """Scores images by a convolution whose offsets and masks follow from them."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.weight, self.bias, self.shift, self.gate = (
            ms.Parameter(ms.Tensor(array), name=name) for name, array in arrays.items()
        )

    def construct(self, input):
        level = input.mean(1, True)
        return ops.square(
            deform_conv2d(
                input,
                self.shift * level,
                self.weight,
                self.bias,
                padding=1,
                mask=self.gate * level,
            )
        ).mean()


class Penalised(nn.Cell):
    """The score, and a penalty where the norm of its gradient is not 1 (arXiv:1704.00028)."""

    def __init__(self, critic: nn.Cell) -> None:
        super().__init__()
        # Of both alone, graph mode makes a "Graph cycle", whatever the critic is (MindSpore 2.10).
        self.score_and_gradient = ms.value_and_grad(critic)

    def construct(self, input):
        score, gradient = self.score_and_gradient(input)
        norm = ops.sqrt(ops.square(gradient).sum())
        return score + 10 * ops.square(norm - 1)


class Adapted(nn.Cell):
    """The loss after a step along the gradient of the loss of another task (arXiv:1703.03400)."""

    def __init__(self) -> None:
        super().__init__()
        self.grad = ms.grad(self.loss, (0, 1))

    def loss(self, weight, offset, input):
        return ops.square(deform_conv2d(input, offset, weight, padding=1)).mean()

    def construct(self, weight, offset, first, second):
        grad_weight, grad_offset = self.grad(weight, offset, first)
        return self.loss(weight - 0.1 * grad_weight, offset - 0.1 * grad_offset, second)


PARAMETERS = {"weight": (5, 4, 3, 3), "bias": (5,), "shift": (1, 18, 7, 9), "gate": (1, 9, 7, 9)}


def draw(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def assert_equal_to_torch(actual: tuple[ms.Tensor, ...], expected: tuple[Any, ...]) -> None:
    assert len(actual) == len(expected)
    for gradient, wanted in zip(actual, expected):
        np.testing.assert_allclose(gradient.asnumpy(), wanted.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.needs("torch")
@pytest.mark.usefixtures("mode")
def test_a_gradient_penalty_trains_as_in_torch() -> None:
    import torch

    import torch_deform_conv

    arrays, input = draw(PARAMETERS), draw({"input": (2, 4, 7, 9)})["input"]
    critic = Critic(arrays)
    weights = ms.ParameterTuple(critic.trainable_params())
    actual = ms.grad(Penalised(critic), None, weights)(ms.Tensor(input))

    parameters = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    weight, bias, shift, gate = parameters
    pixels = torch.tensor(input, requires_grad=True)
    level = pixels.mean(1, True)
    output = torch_deform_conv.deform_conv2d(pixels, shift * level, weight, bias, 1, gate * level)
    score = output.square().mean()
    (gradient,) = torch.autograd.grad(score, pixels, create_graph=True)
    loss = score + 10 * (gradient.square().sum().sqrt() - 1).square()
    assert_equal_to_torch(actual, torch.autograd.grad(loss, parameters))


@pytest.mark.needs("torch")
@pytest.mark.usefixtures("mode")
def test_a_meta_gradient_through_a_step_equals_torchs() -> None:
    import torch

    import torch_deform_conv

    shapes = {"weight": (5, 4, 3, 3), "offset": (2, 18, 7, 9)}
    arrays = draw({**shapes, "first": (2, 4, 7, 9), "second": (2, 4, 7, 9)})
    actual = ms.grad(Adapted(), (0, 1))(*map(ms.Tensor, arrays.values()))

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    weight, offset, first, second = tensors
    bias, mask = torch.zeros(5), torch.ones(2, 9, 7, 9)

    def loss(weight, offset, input):
        output = torch_deform_conv.deform_conv2d(input, offset, weight, bias, 1, mask)
        return output.square().mean()

    inner = torch.autograd.grad(loss(weight, offset, first), (weight, offset), create_graph=True)
    moved = (tensor - 0.1 * gradient for tensor, gradient in zip((weight, offset), inner))
    assert_equal_to_torch(actual, torch.autograd.grad(loss(*moved, second), (weight, offset)))


@pytest.fixture
def mode_afterwards() -> Iterator[None]:
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


# MindSpore takes the next gradient for a part of the one that was stopped: for a second-order one.
@pytest.mark.usefixtures("mode_afterwards")
def test_after_a_gradient_that_an_exception_stopped_the_next_ones_are_right() -> None:
    loss, input = MeanSquare(LayerNet()), image()

    def stop(input):
        raise InterruptedError

    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = ms.grad(loss)(input).asnumpy()
    with pytest.raises(InterruptedError):
        ms.grad(stop)(input)
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        np.testing.assert_allclose(ms.grad(loss)(input).asnumpy(), expected, rtol=1e-4, atol=1e-6)
