# SPDX-License-Identifier: Apache-2.0
"""What export_onnx cannot write is named in one message; network and files stay as they are."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import export_onnx
from networks import LayerNet, image

pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]


class Patches(nn.Cell):
    def construct(self, x):
        return ops.unfold(x, 3, padding=1).mean()


class Twice(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        registration = (
            ops.CustomRegOp("Twice")
            .input(0, "x")
            .output(0, "y")
            .dtype_format(ops.DataType.F32_Default, ops.DataType.F32_Default)
            .target("CPU")
            .get_op_info()
        )
        self.twice = ops.Custom(double, lambda x: x, lambda x: x, "pyfunc", reg_info=registration)

    def construct(self, x):
        return self.twice(x)


def double(x):
    return 2 * x


class Halved(nn.Cell):
    """A condition on the values of a tensor."""

    def construct(self, x):
        if x.sum() > 0:
            return x / 2
        return x


class Refused(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.net = LayerNet()
        self.head = nn.SequentialCell(Twice(), Halved())
        self.patches = Patches()

    def construct(self, x):
        x = self.head(self.net(x))
        return x + self.patches(x)


def test_all_is_named_with_its_layer_and_what_to_write_instead():
    with pytest.raises(RuntimeError) as caught:
        export_onnx(Refused(), image(), file_name="net")
    first, *lines = str(caught.value).splitlines()
    assert first == "export_onnx: the network cannot be written as ONNX:"
    assert sorted(lines) == [
        "- head.0: the primitive Custom; write instead: "
        "MindSpore's own operators instead of ops.Custom Twice",
        "- head.1: a condition or loop on the values of tensors; write instead: "
        "ops.select, or conditions and loops on what Python knows when it is compiled",
        "- patches: the primitive Im2Col; write instead: "
        "ops.conv2d with a kernel of zeros and ones",
    ]
    assert not Path("net.onnx").exists()


class Statistics(nn.Cell):
    """A batch norm that is told to use the statistics of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, use_batch_statistics=True)

    def construct(self, x):
        return self.norm(x)


def test_what_depends_on_an_option_is_named_too():
    message = "norm: the primitive BatchNorm; .* without use_batch_statistics=True"
    with pytest.raises(RuntimeError, match=message):
        export_onnx(Statistics(), image(), file_name="net")


def test_a_window_beyond_the_image_is_named():
    layer = nn.MaxPool2d(2, 3, "pad", 0, dilation=2, ceil_mode=True)
    with pytest.raises(RuntimeError, match=r"MaxPool3DWithArgmax; .* without ceil_mode"):
        export_onnx(layer, image(size=(7, 7)), file_name="net")


class Borrowed(nn.Cell):
    def construct(self, x):
        return ELSEWHERE(x)


ELSEWHERE = nn.PReLU(4)


def test_a_parameter_of_another_network_is_named():
    with pytest.raises(RuntimeError, match="the parameter a; write instead: the cell that holds"):
        export_onnx(Borrowed(), image(), file_name="net")


class Position(nn.Cell):
    """The positions of maxima, which ONNX counts in another way."""

    def construct(self, x):
        return ops.max_pool2d(x, 2, 2, return_indices=True)


def test_an_output_that_onnx_does_not_have_is_named():
    with pytest.raises(RuntimeError, match="only its first output can be computed"):
        export_onnx(Position(), image(), file_name="net")


class DoesNotCompile(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.net = LayerNet()
        self.broken = True

    def construct(self, x):
        x = self.net(x)
        if self.broken:
            x = x + ops.ones((3, 5, 7))
        return x


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("make", (Patches, DoesNotCompile))
def test_after_an_error_the_network_is_as_it_was(make):
    net = make().set_train()
    net.frozen = nn.BatchNorm2d(4).set_train(False)
    level = ms.get_context("jit_syntax_level")
    with pytest.raises(Exception, match=r"cannot be written as ONNX|need to broadcast"):
        export_onnx(net, image(), file_name="net")
    assert ms.get_context("jit_syntax_level") == level
    assert net.training and not net.frozen.training
    net.broken = False
    expected = make()
    expected.broken = False
    ms.load_param_into_net(expected, net.parameters_dict())
    np.testing.assert_array_equal(net(image()).asnumpy(), expected(image()).asnumpy())


@pytest.mark.parametrize("make", (Patches, DoesNotCompile))
def test_a_file_of_that_name_stays(make):
    Path("net.onnx").write_bytes(b"an older one")
    with pytest.raises(Exception, match=r"cannot be written as ONNX|need to broadcast"):
        export_onnx(make(), image(), file_name="net")
    assert Path("net.onnx").read_bytes() == b"an older one"
    assert [path.name for path in Path().glob("*net*")] == ["net.onnx"]


def test_a_file_that_cannot_be_written_leaves_nothing(monkeypatch):
    def half(path, content):
        path.open("wb").write(content[:9])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        export_onnx(LayerNet(), image(), file_name="net")
    assert not list(Path().glob("*net*"))
