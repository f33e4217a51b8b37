# SPDX-License-Identifier: Apache-2.0
"""An error says how to mend the mistake where it is plain, and does not guess where it is not."""

from __future__ import annotations

import copy
import re
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_deform
from invalid_calls import HINT, NEAR_MISSES, PLAIN_MISTAKES, InvalidShapes
from ms_deform import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    export_mindir,
    export_onnx,
)
from networks import Call, call_tensors, image

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about Python, which refuses before it asks a device"),
]

needs_torch = pytest.mark.needs("torch")
ORDER = r"the order of arguments is deform_conv2d\(input, offset, weight, bias, stride, "


def call(**changed: Any) -> ms.Tensor:
    tensors = {**call_tensors(), **changed}
    return Call()(*(tensors[name] for name in ("input", "offset", "weight", "bias", "mask")))


def refusal(case: InvalidShapes) -> str:
    with pytest.raises(ValueError, match=case.message) as refused:
        call(**case.tensors())
    return str(refused.value)


@pytest.mark.parametrize("case", PLAIN_MISTAKES.values(), ids=PLAIN_MISTAKES.keys())
def test_shapes_that_tell_the_mistake(case):
    assert HINT in refusal(case)


@pytest.mark.parametrize("case", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_shapes_that_do_not_tell_the_mistake(case):
    assert HINT not in refusal(case)


def test_the_mends_of_an_offset_with_masks_work_as_printed():
    case = PLAIN_MISTAKES["masks in an offset of two groups"]
    packed = ms.Tensor(np.random.default_rng(0).standard_normal((2, 54, 7, 9)), ms.float32)
    *mmcv, mindspore = re.findall("`(.*?)`", refusal(case))
    expected = {
        "\n".join(mmcv): (packed[:, :36], ops.sigmoid(packed[:, 36:])),
        mindspore: ms_deform.unpack_offset(packed),
    }
    for mend, (offset, mask) in expected.items():
        names = {"ops": ops, "ms_deform": ms_deform, "offset": packed}
        exec(mend, names)
        np.testing.assert_array_equal(names["offset"].asnumpy(), offset.asnumpy())
        np.testing.assert_array_equal(names["mask"].asnumpy(), mask.asnumpy())
        assert call(offset=names["offset"], mask=names["mask"]).shape == (2, 6, 7, 9)


def test_the_mend_of_channels_last_works_as_printed():
    case = PLAIN_MISTAKES["channels last in input, offset and mask"]
    tensors = case.tensors()
    for mend in re.findall(r"\w+\.transpose\(.*?\)", refusal(case)):
        tensors[mend.partition(".")[0]] = eval(mend, dict(tensors))
    assert call(**tensors).shape == (2, 6, 7, 9)


def test_the_arguments_of_mmcvs_functions():
    input, offset, weight, bias, mask = call_tensors().values()
    with pytest.raises(ValueError, match="mmcv's order"):
        deform_conv2d(input, offset, mask, weight)
    with pytest.raises(ValueError, match="mmcv's order"):
        deform_conv2d(input, offset, mask, weight, bias, 1)
    with pytest.raises(TypeError, match=f"'mask' must be a Tensor, got int; {ORDER}"):
        deform_conv2d(input, offset, mask, weight, bias, 1, 1, 1)
    with pytest.raises(TypeError, match=f"'bias' must be a Tensor, got tuple; {ORDER}"):
        deform_conv2d(input, offset, weight, (1, 1), 1)


def test_the_order_is_told_for_ints_in_the_function_only():
    input, offset, weight, _, _ = call_tensors().values()
    with pytest.raises(TypeError, match=r"'bias' must be a Tensor, got float$"):
        deform_conv2d(input, offset, weight, 1.0)
    with pytest.raises(TypeError, match=r"'mask' must be a Tensor, got int$"):
        DeformConv2d(4, 6, 3, padding=1)(input, offset, 1)


@pytest.mark.parametrize("name", call_tensors())
def test_an_array_of_numpy(name):
    message = rf"'{name}' must be a Tensor, got ndarray; wrap it: mindspore.Tensor\({name}\)$"
    with pytest.raises(TypeError, match=message):
        call(**{name: call_tensors()[name].asnumpy()})


@needs_torch
def test_a_tensor_of_torch():
    torch = pytest.importorskip("torch")
    message = (
        "'input' must be a Tensor of MindSpore, got torch.Tensor; convert it: "
        r"mindspore.Tensor\(input.detach\(\).cpu\(\).numpy\(\)\)$"
    )
    with pytest.raises(TypeError, match=message):
        call(input=torch.zeros(2, 4, 7, 9))


@pytest.mark.parametrize("value", ([1.0], 1.0), ids=str)
def test_what_no_wrapping_mends(value):
    with pytest.raises(TypeError, match=f"'offset' must be a Tensor, got {type(value).__name__}$"):
        deform_conv2d(image(), value, call_tensors()["weight"])


PACKS = (DeformConv2dPack, ModulatedDeformConv2dPack)


@pytest.mark.parametrize("pack", PACKS)
def test_an_array_for_a_layer_that_predicts_its_offsets(pack):
    message = f"^{pack.__name__}: 'x' must be a Tensor, got ndarray; wrap it: mindspore.Tensor"
    layer = pack(4, 6, 3, padding=1)
    with pytest.raises(TypeError, match=message):
        layer(image().asnumpy())
    with pytest.raises(TypeError, match=message):
        layer(x=image().asnumpy())


@needs_torch
def test_a_tensor_of_torch_for_a_layer_that_predicts_its_offsets():
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"'x' must be a Tensor of MindSpore, got torch\.nn\..*Para"
    ):
        DeformConv2dPack(4, 6, 3)(torch.nn.Parameter(torch.zeros(2, 4, 7, 9)))


@pytest.mark.parametrize("pack", PACKS)
def test_other_errors_of_such_a_layer_are_mindspores(pack):
    with pytest.raises(TypeError) as raised:
        pack(4, 6, 3)(image().astype(ms.complex64))
    assert "wrap it" not in str(raised.value)


@pytest.mark.parametrize("export", (export_onnx, export_mindir))
def test_an_array_for_an_export(export):
    message = rf"^{export.__name__}: input 0 must be a Tensor, got ndarray; wrap it: .*\(array\)$"
    with pytest.raises(TypeError, match=message):
        export(DeformConv2dPack(4, 6, 3), image().asnumpy(), file_name="net")
    with pytest.raises(TypeError, match=f"^{export.__name__}: input 1 must be a Tensor, got int$"):
        export(DeformConv2dPack(4, 6, 3), image(), 1, file_name="net")


class Block(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.conv2 = DeformConv2d(4, 4, 3, padding=1)

    def construct(self, input, offset):
        return self.conv2(input, offset)


class Blocks(nn.Cell):
    """Calls one of its blocks."""

    def __init__(self, position: int) -> None:
        super().__init__()
        block = Block()
        self.layer3 = nn.CellList([block, copy.deepcopy(block)])
        self.position = position

    def construct(self, input, offset):
        return self.layer3[self.position](input, offset)


@pytest.mark.parametrize("position", (0, 1))
def test_a_layer_is_named_by_its_place_in_the_network(position):
    name = rf"^DeformConv2d \(layer3\.{position}\.conv2\): "
    net, offset = Blocks(position), call_tensors()["offset"]
    with pytest.raises(ValueError, match=f"{name}the shape of the offset is not valid"):
        net(image(), offset[:, :17])
    with pytest.raises(TypeError, match=f"{name}'offset' must be a Tensor, got ndarray; wrap it"):
        net(image(), offset.asnumpy())
    net.layer3[position].conv2.backend = "aicpu"
    with pytest.raises(RuntimeError, match=f"{name}backend 'aicpu' does not serve"):
        net(image(), offset)


def test_a_layer_is_named_as_it_is_called_now():
    net = Blocks(0)
    wrapped = nn.SequentialCell(nn.ReLU())
    wrapped.append(net)
    offset = call_tensors()["offset"]
    with pytest.raises(ValueError, match=r"^DeformConv2d \(1\.layer3\.0\.conv2\): the shape"):
        net(image(), offset[:, :17])


def test_a_layer_whose_parameters_do_not_tell_its_name_is_named_by_its_type():
    layer = Block().conv2
    layer.weight.name = "kernel"
    with pytest.raises(ValueError, match=r"^DeformConv2d: the shape of the offset is not valid"):
        layer(image(), call_tensors()["offset"][:, :17])
