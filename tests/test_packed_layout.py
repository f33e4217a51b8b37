# SPDX-License-Identifier: Apache-2.0
"""ms_deform.deformable_conv2d is MindSpore's deprecated builtin on this project's kernels."""

from __future__ import annotations

import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import reference
from geometries import Geometry
from ms_deform import deformable_conv2d, pack_offset, unpack_offset
from networks import paired
from tolerances import assert_close

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's DeformableOffsets"),
]

GEOMETRIES = {
    "plain": Geometry(),
    "strided, dilated, four-sided padding": Geometry(
        size=(7, 9), stride=(2, 1), dilation=(1, 2), padding=(0, 2, 1, 3)
    ),
    "groups": Geometry(channels_in=12, groups=2, offset_groups=3, use_bias=False),
}


def pack(offset: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """MindSpore's order of channels, as its page gives it: (offset_x, offset_y, mask)."""
    parts = [offset[:, 1::2], offset[:, 0::2]]
    return np.concatenate(parts if mask is None else [*parts, mask], axis=1)


def to_tensor(array: np.ndarray | None) -> ms.Tensor | None:
    return None if array is None else ms.Tensor(array.astype(np.float32))


class Packed(nn.Cell):
    """A function with the builtin's signature, and the constant arguments of a geometry."""

    def __init__(self, function, geometry: Geometry, **constants) -> None:
        super().__init__()
        self.function = function
        top, bottom, left, right = (
            geometry.padding if len(geometry.padding) == 4 else np.repeat(geometry.padding, 2)
        )
        self.constants = {
            "kernel_size": geometry.kernel,
            "strides": (1, 1, *geometry.stride),
            "padding": (int(top), int(bottom), int(left), int(right)),
            "dilations": (1, 1, *geometry.dilation),
            "groups": geometry.groups,
            "deformable_groups": geometry.offset_groups,
            **constants,
        }

    def construct(self, x, weight, offsets, bias):
        return self.function(x, weight, offsets, bias=bias, **self.constants)


def output_and_gradients(cell: nn.Cell, grad_output: np.ndarray, *arrays) -> list[np.ndarray]:
    tensors = [to_tensor(array) for array in arrays]
    gradients = ops.GradOperation(get_all=True, sens_param=True)(cell)(
        *tensors, to_tensor(grad_output)
    )
    return [tensor.asnumpy() for tensor in (cell(*tensors), *gradients)]


def test_signature_is_the_builtins():
    ours, builtin = (
        [(p.name, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (deformable_conv2d, ops.deformable_conv2d)
    )
    assert ours == builtin


def test_the_example_of_mindspores_page_gives_its_answer():
    rng = np.random.RandomState(1)
    x, weight = rng.randn(1, 64, 1, 2), rng.randn(1, 64, 1, 1)
    offsets_x, offsets_y, mask = (rng.randn(1, 1, 1, 1, 1, 1, 2) for _ in range(3))
    offsets = np.concatenate([offsets_x, offsets_y, mask], axis=0).reshape(1, 3, 1, 2)
    cell = Packed(deformable_conv2d, Geometry(kernel=(1, 1), padding=(0, 0)))
    output = cell(*map(to_tensor, (x, weight, offsets, None))).asnumpy()
    np.testing.assert_allclose(output, [[[[-0.00220442, 0.0]]]], rtol=1e-5, atol=0)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_output_and_gradients_are_the_builtins(geometry):
    call = geometry.call()
    offsets = pack(call["offset"], call["mask"])
    arrays = (call["input"], call["weight"], offsets, call.get("bias"))
    results = [
        output_and_gradients(Packed(function, geometry), geometry.grad_output(), *arrays)
        for function in (deformable_conv2d, ops.deformable_conv2d)
    ]
    names = ("output", "input", "weight", "offset", "bias")
    for name, (actual, expected) in zip(names, paired(*results)):
        assert_close(actual, expected, "float32", name, 1e-4)


@pytest.mark.parametrize("blocks", ("x and y", "x, y and masks"))
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_not_modulated_is_the_reference_without_mask(geometry, blocks):
    call = geometry.call()
    mask = call.pop("mask")
    offsets = pack(call["offset"], None if blocks == "x and y" else mask)
    cell = Packed(deformable_conv2d, geometry, modulated=False)
    actual, grad_x, grad_weight, grad_offsets, *_ = output_and_gradients(
        cell, geometry.grad_output(), call["input"], call["weight"], offsets, call.get("bias")
    )
    expected = reference.deform_conv2d_grad(geometry.grad_output(), **call)
    assert_close(actual, reference.deform_conv2d(**call), "float32", "output", 1e-5)
    assert_close(grad_x, expected.input, "float32", "input", 1e-5)
    assert_close(grad_weight, expected.weight, "float32", "weight", 1e-5)
    grad_mask = None if blocks == "x and y" else np.zeros_like(mask)
    assert_close(grad_offsets, pack(expected.offset, grad_mask), "float32", "offset", 1e-4)


class PackAndUnpack(nn.Cell):
    def construct(self, offset, mask):
        packed = pack_offset(offset, mask)
        return packed, unpack_offset(packed)


@pytest.mark.parametrize("dynamic", (False, True), ids=("static", "dynamic"))
def test_pack_offset_and_unpack_offset_are_inverse(dynamic):
    call = Geometry(offset_groups=2, use_mask=True).call()
    offset, mask = to_tensor(call["offset"]), to_tensor(call["mask"])
    cell = PackAndUnpack()
    if dynamic:
        cell.set_inputs(*(ms.Tensor(shape=(None,) * 4, dtype=ms.float32) for _ in range(2)))
    packed, unpacked = cell(offset, mask)
    np.testing.assert_array_equal(packed.asnumpy(), pack(offset.asnumpy(), mask.asnumpy()))
    np.testing.assert_array_equal(unpacked[0].asnumpy(), offset.asnumpy())
    np.testing.assert_array_equal(unpacked[1].asnumpy(), mask.asnumpy())


def test_no_mask_is_packed_as_ones():
    offset = Geometry().call()["offset"]
    expected = pack(offset, np.ones_like(offset[:, ::2]))
    packed = PackAndUnpack()(to_tensor(offset), None)[0].asnumpy()
    np.testing.assert_array_equal(packed, expected.astype(np.float32))


def test_dynamic_shapes_work():
    geometry = Geometry()
    call = geometry.call()
    cell = Packed(deformable_conv2d, geometry)
    any_size = ms.Tensor(shape=(None, None, None, None), dtype=ms.float32)
    weight, bias = to_tensor(call["weight"]), to_tensor(call["bias"])
    cell.set_inputs(any_size, weight, any_size, bias)
    offsets = to_tensor(pack(call["offset"], call["mask"]))
    output = cell(to_tensor(call["input"]), weight, offsets, bias).asnumpy()
    assert_close(output, reference.deform_conv2d(**call), "float32", "output", 1e-5)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"strides": (1, 2, 1, 1)}, ValueError, r"'strides' must be \(1, 1, height, width\)"),
        ({"strides": (1, 1)}, ValueError, r"'strides' must be 4 ints, got \(1, 1\)"),
        ({"strides": (1, 1, 1.5, 1)}, TypeError, "'strides' must be 4 ints that are known"),
        ({"groups": 1.0}, TypeError, "'groups' must be an int that is known"),
        ({"groups": 0}, ValueError, "'groups' must be at least 1, got 0"),
        ({"dilations": (2, 1, 1, 1)}, ValueError, r"'dilations' must be \(1, 1, height, width\)"),
        ({"padding": 1}, TypeError, "'padding' must be 4 ints, got 1"),
        ({"kernel_size": (3, 3)}, ValueError, r"kernel_size must be weight.shape\[2:\] = \(3, 2\)"),
        (
            {"groups": 2},
            ValueError,
            r"groups \* weight.shape\[1\] must be x.shape\[1\] = 6, got 12",
        ),
        ({"deformable_groups": 2}, ValueError, "36 channels with modulated = True"),
        ({"modulated": 1}, TypeError, "'modulated' must be a bool, got 1"),
    ],
)
def test_wrong_arguments_are_named(wrong, error, message):
    geometry = Geometry()
    call = geometry.call()
    offsets = pack(call["offset"], call["mask"])
    tensors = map(to_tensor, (call["input"], call["weight"], offsets, None))
    with pytest.raises(error, match=f"^deformable_conv2d: .*{message}"):
        Packed(deformable_conv2d, geometry, **wrong)(*tensors)


def test_what_only_the_kernels_check_names_the_function_too():
    x, weight, offsets = (ops.ones(shape) for shape in ((1, 2, 5, 5), (3, 2, 3, 3), (1, 27, 9, 9)))
    constants = (3, 3), (1, 1, 1, 1), (0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"^deformable_conv2d: offset.shape\[2:\] must be"):
        deformable_conv2d(x, weight, offsets, *constants)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_offset(ops.zeros((1, 3, 2, 2))), "'offset' must be a 4-D tensor"),
        (
            lambda: pack_offset(ops.zeros((1, 4, 2, 2)), ops.zeros((1, 4, 2, 2))),
            "'mask' must be a 4-D tensor with half the channels",
        ),
        (lambda: unpack_offset(ops.zeros((1, 4, 2, 2))), "'packed' must be a 4-D tensor"),
    ],
)
def test_wrong_layouts_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
