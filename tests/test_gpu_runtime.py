# SPDX-License-Identifier: Apache-2.0
"""On MindSpore's GPU target: the same bits, another stream, memory given back, one graph for all.

None of MindSpore's own kernels has to run, so that stubs can be in their place.
"""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import numpy as np
import pytest

import ms_deform
import operator_under_test
from geometries import Geometry
from kernels import by_reference, problem_of
from operator_under_test import ARRAYS, Operator, to_array
from tolerances import assert_close, assert_gradients_close

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("gpu", "mode")]
# Of many pixels that add to the same gradients.
CROWDED = Geometry(batch=1, channels_in=32, channels_out=8, size=(20, 20), offset_scale=4.0)
SMALL = Geometry()


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    ms.set_context(device_target="GPU")


@pytest.fixture
def deterministic() -> Iterator[None]:
    ms_deform.set_deterministic(True)
    yield
    ms_deform.set_deterministic(False)


@pytest.mark.usefixtures("deterministic")
def test_deterministic_gradients_have_the_same_bits_every_time() -> None:
    problem = problem_of(CROWDED, "float32")
    grad_output = problem.pop("grad_output")
    first, *others = (
        operator_under_test.gradients(problem, grad_output, "float32") for _ in range(5)
    )
    for other in others:
        for one, another in zip((first[0], *first[1]), (other[0], *other[1])):
            np.testing.assert_array_equal(one, another)


def test_another_stream_gives_the_same_answer() -> None:
    problem = problem_of(SMALL, "float32")
    expected_output, expected = by_reference(problem)
    grad_output = problem.pop("grad_output")
    with ms.runtime.StreamCtx(ms.runtime.Stream()):
        output, actual = operator_under_test.gradients(problem, grad_output, "float32")
    assert_close(output, expected_output, "float32", "output")
    assert_gradients_close(actual, expected, "float32")


def test_calls_give_their_memory_back() -> None:
    problem = problem_of(SMALL, "float32")
    grad_output = problem.pop("grad_output")
    used = []
    for _ in range(20):
        operator_under_test.gradients(problem, grad_output, "float32")
        used.append((ms.runtime.memory_allocated(), ms_deform.scratch_bytes()))
    assert set(used[2:]) == {used[2]}


def test_one_network_takes_every_shape() -> None:
    network = Operator(padding=SMALL.padding)
    problems = [problem_of(geometry, "float32") for geometry in (SMALL, CROWDED)]
    ranks = (problems[0][name].ndim for name in ARRAYS)
    network.set_inputs(*(ms.Tensor(shape=[None] * rank, dtype=ms.float32) for rank in ranks))
    for problem in problems:
        output = network(*operator_under_test.tensors(problem, "float32"))
        assert_close(to_array(output), by_reference(problem)[0], "float32", "output")
