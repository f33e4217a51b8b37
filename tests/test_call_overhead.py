# SPDX-License-Identifier: Apache-2.0
"""A call by itself, on data too small to matter, takes no longer than twice a built-in convolution.

Both are dispatched by MindSpore in the same way: from Python, one primitive at a time. Measured by
turns in one process, and the shortest times are compared, so that a busy machine disturbs neither.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

import mindspore as ms
import pytest
from mindspore import ops

from ms_deform import deform_conv2d
from networks import random_array

pytestmark = [
    pytest.mark.usefixtures("device", "pynative"),
    pytest.mark.not_on_gpu_stand_in("measures time"),
]

ROUNDS, CALLS = 10, 100


def test_a_call_takes_at_most_twice_a_built_in_convolution():
    shapes = ((1, 3, 8, 8), (1, 18, 6, 6), (4, 3, 3, 3), (4,), (1, 9, 6, 6))
    input, offset, weight, bias, mask = (ms.Tensor(random_array(shape)) for shape in shapes)
    ours, built_in = shortest_times(
        lambda: deform_conv2d(input, offset, weight, bias, mask=mask),
        lambda: ops.conv2d(input, weight, bias),
    )
    assert ours <= 2 * built_in


def shortest_times(*calls: Callable[[], ms.Tensor]) -> tuple[float, ...]:
    """Each call's shortest time, in seconds for CALLS of them, after a first round to warm up."""
    gc.disable()
    try:
        rounds = [[duration(call) for call in calls] for _ in range(1 + ROUNDS)]
    finally:
        gc.enable()
    return tuple(map(min, zip(*rounds[1:])))


def duration(call: Callable[[], ms.Tensor]) -> float:
    begin = perf_counter()
    for _ in range(CALLS):
        output = call()
    output.asnumpy()
    return perf_counter() - begin
