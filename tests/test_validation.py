# SPDX-License-Identifier: Apache-2.0
"""Every wrong argument is refused before a kernel runs, by an error that names it."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest

from invalid_calls import HINT, INVALID_CONSTANTS, INVALID_SHAPES
from ms_deform import DeformConv2d, deform_conv2d
from ms_deform.backends import aot
from networks import Call, call_tensors

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about Python, which refuses before it asks a device"),
]


def call(constants: dict[str, Any], **changed: Any) -> ms.Tensor:
    tensors = {**call_tensors(), **changed}
    return Call(**constants)(
        *(tensors[name] for name in ("input", "offset", "weight", "bias", "mask"))
    )


@pytest.fixture(autouse=True)
def no_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        pytest.fail("a primitive was made for an invalid call")

    monkeypatch.setattr(aot, "prepare", fail)


@pytest.mark.parametrize("case", INVALID_SHAPES.values(), ids=INVALID_SHAPES.keys())
def test_shapes_that_do_not_fit(case):
    with pytest.raises(ValueError, match=case.message) as refused:
        call(case.constants, **case.tensors())
    assert HINT not in str(refused.value)


@pytest.mark.parametrize("case", INVALID_CONSTANTS.values(), ids=INVALID_CONSTANTS.keys())
def test_constants_that_cannot_be(case):
    error, message, constants = case
    with pytest.raises(error, match=message):
        call(constants)


def test_a_wrong_constant_is_refused_after_an_equal_right_one(monkeypatch):
    monkeypatch.undo()
    pairs = (
        ({"stride": 1}, {"stride": 1.0}),
        ({"stride": 1}, {"stride": True}),
        ({"padding": (1, 1)}, {"padding": (1, True)}),
    )
    for right, wrong in pairs:
        assert call(right).shape == (2, 6, 7, 9)
        with pytest.raises(TypeError, match="that are known when the graph is compiled"):
            call(wrong)


def test_a_variable_where_a_constant_belongs():
    @ms.jit
    def with_variable(stride, input, offset, weight):
        return deform_conv2d(input, offset, weight, stride=stride, padding=1)

    tensors = call_tensors()
    with pytest.raises(TypeError, match=r"'stride' must be .* got None or a variable"):
        with_variable(ms.mutable(1), tensors["input"], tensors["offset"], tensors["weight"])


@pytest.mark.parametrize("name", ("input", "offset", "weight", "bias", "mask"))
def test_mixed_dtypes_are_named(name):
    changed = {name: call_tensors()[name].astype(ms.float64)}
    with pytest.raises(TypeError, match=rf"must have the same dtype, got .*{name}: Float64"):
        call({}, **changed)


@pytest.mark.parametrize("dtype", (ms.int32, ms.int8, ms.bool_, ms.complex64), ids=str)
def test_unsupported_dtypes_are_named(dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in call_tensors().items()}
    with pytest.raises(TypeError, match=f"dtype must be one of .*, got input: {dtype}"):
        call({}, **tensors)


@pytest.mark.parametrize("name", ("input", "offset", "weight"))
def test_none_where_a_tensor_belongs(name):
    with pytest.raises(TypeError, match=f"'{name}' must be a Tensor, got NoneType"):
        call({}, **{name: None})


class Doubled(DeformConv2d):
    """A layer of a user's own."""

    def construct(self, input, offset):
        return 2 * super().construct(input, offset)


@pytest.mark.parametrize("layer", (DeformConv2d, Doubled))
def test_a_layers_errors_name_the_layer(layer):
    name = layer.__name__
    with pytest.raises(ValueError, match=f"^{name}: 'stride' must be at least 1, got 0"):
        layer(4, 6, 3, stride=0)
    with pytest.raises(TypeError, match=f"^{name}: 'kernel_size' must be an int or 2 ints that"):
        layer(4, 6, None)
    with pytest.raises(TypeError, match=f"^{name}: 'out_channels' must be an int that"):
        layer(4, 6.0, 3)
    with pytest.raises(ValueError, match=f"^{name}: 'in_channels' must be divisible by groups = 3"):
        layer(4, 6, 3, groups=3)
    offset = ms.Tensor(np.zeros((2, 17, 5, 7), np.float32))
    with pytest.raises(ValueError, match=f"^{name}: the shape of the offset is not valid"):
        layer(4, 6, 3)(call_tensors()["input"], offset)
    with pytest.raises(RuntimeError, match=f"^{name}: backend 'aicpu' does not serve"):
        layer(4, 6, 3, backend="aicpu")(call_tensors()["input"], offset[:, :1].tile((1, 18, 1, 1)))
