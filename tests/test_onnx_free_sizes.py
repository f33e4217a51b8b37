# SPDX-License-Identifier: Apache-2.0
"""Files with dynamic_axes are right at sizes that they were not exported at, or are not written."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import pytest
from mindspore import nn, ops

from exported_networks import inputs_of, make
from ms_deform import export_onnx
from networks import LayerNet, image, random_array
from onnx_files import assert_all_close, outputs_of, run

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install '.[onnx]'")

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]

AXES = {0: "batch", 2: "height", 3: "width"}
EXPORTED = (2, 4, 12, 16)
SIZES = ((1, 4, 12, 16), (3, 4, 17, 11), (2, 4, 64, 8))


class Shapes(nn.Cell):
    """What follows from sizes, in the ways in which networks take them."""

    def construct(self, x):
        n, c, h, w = x.shape
        halves = x.reshape(n, 2, c // 2, h, w)
        half = ops.interpolate(x, size=(h // 2, w // 2), mode="bilinear", align_corners=False)
        y, _ = ops.meshgrid(ops.arange(h), ops.arange(w), indexing="ij")
        return (
            x.reshape(n, c, h * w).swapaxes(1, 2),
            x.reshape(n * h, -1),
            halves.permute(0, 2, 1, 3, 4).reshape(n, c, h, w),
            x[:, :, : h // 2, 1:-1],
            x[:, :, :1000, -3:],
            half,
            ops.interpolate(half, size=(h, w), mode="bilinear", align_corners=True),
            ops.interpolate(half, size=(h, w), mode="nearest"),
            ops.interpolate(x, size=(2 * h, 2 * w), mode="nearest"),
            x / (w - 1) + 2 / (h - 1) * x,
            x + ops.zeros((n, c, h, w)) + y,
            ops.broadcast_to(x[:, :, :1], (n, c, h, w)),
            ops.tile(x[:, :1, :1], (1, c, h, 1)),
            ops.linspace(0, 1, w) + x,
            x[..., : (w + 1) // 2],
            x.mean((2, 3)),
        )


class Layers(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.net = LayerNet()
        self.layers = nn.CellList(
            [
                nn.Conv2d(4, 4, 3, 2, "same"),
                nn.Conv2d(4, 4, 3, 1, "same", dilation=2),
                nn.Conv2dTranspose(4, 4, 4, 2, "pad", 1),
                nn.MaxPool2d(3, 2, "pad", 1),
                nn.AvgPool2d(3, 2, "pad", 1),
                nn.MaxPool2d(2, 2, "same"),
                nn.AdaptiveAvgPool2d(1),
                nn.GroupNorm(2, 4),
                nn.PixelShuffle(2),
            ]
        )

    def construct(self, x):
        outputs = (self.net(x),)
        for layer in self.layers:
            outputs += (layer(x),)
        return outputs


@pytest.mark.parametrize("make", (Shapes, Layers))
def test_other_sizes_give_the_same_outputs(make):
    net = make().set_train(False)
    example = ms.Tensor(random_array(EXPORTED))
    path = export_onnx(net, example, file_name="net", dynamic_axes={"x": AXES})
    for shape in SIZES:
        x = ms.Tensor(random_array(shape))
        assert_all_close(run(path, x), outputs_of(net, x))


class Crossed(nn.Cell):
    """At 64 x 128 both sizes are 8; each follows from another axis."""

    def construct(self, x):
        size = (x.shape[3] // 16, x.shape[2] // 8)
        return ops.interpolate(x, size=size, mode="bilinear", align_corners=False)


def test_no_axis_is_taken_for_another():
    net, example = Crossed(), image(size=(64, 128))
    path = export_onnx(net, example, file_name="net", dynamic_axes={"x": AXES})
    x = image(1, size=(48, 80))
    assert_all_close(run(path, x), outputs_of(net, x))


class Patches(nn.Cell):
    def construct(self, x):
        n, c, h, w = x.shape
        patches = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 1, 3, 5, 2, 4)
        return patches.reshape(n, 16 * c, h // 4, w // 4)


def test_a_network_may_take_multiples_only(capfd):
    net, example = Patches(), image(size=(8, 12))
    path = export_onnx(net, example, file_name="net", dynamic_axes={"x": AXES})
    x = image(5, size=(16, 4))
    assert_all_close(run(path, x), outputs_of(net, x))
    # Nothing of the sizes that it did not take.
    assert capfd.readouterr().err == ""
    assert [item.name for item in Path().iterdir()] == ["net.onnx"]


NETWORKS = {
    "BasicVSR++": (
        dict.fromkeys(("current", "first", "second", "flow1", "flow2"), AXES),
        dict.fromkeys(("current", "first", "second"), (1, 8, 17, 9))
        | dict.fromkeys(("flow1", "flow2"), (1, 2, 17, 9)),
    ),
    "EDVR": ({"x": {0: "batch", 3: "height", 4: "width"}}, {"x": (2, 3, 3, 24, 20)}),
    "ResNet-50-DCN with FPN": ({"x": AXES}, {"x": (1, 3, 90, 75)}),
}


@pytest.mark.parametrize(
    "name", ["BasicVSR++", *(pytest.param(n, marks=pytest.mark.long) for n in list(NETWORKS)[1:])]
)
def test_whole_networks_are_right_at_other_sizes(name):
    axes, shapes = NETWORKS[name]
    net = make(name)
    path = export_onnx(net, *inputs_of(name), file_name="net", dynamic_axes=axes)
    for inputs in (inputs_of(name), inputs_of(name, shapes)):
        assert_all_close(run(path, *inputs), outputs_of(net, *inputs), 1e-4)


def test_inputs_and_outputs_have_the_names_of_axes():
    path = export_onnx(LayerNet(), image(), file_name="net", dynamic_axes={"input": AXES})
    graph = onnx.load(path).graph
    (given,), (output,) = (
        [[d.dim_param or d.dim_value for d in item.type.tensor_type.shape.dim] for item in items]
        for items in (graph.input, graph.output)
    )
    assert given == ["batch", 4, "height", "width"]
    assert output == ["batch", 6, "height", "width"]


class Bins(nn.Cell):
    """Windows whose sizes follow from the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)

    def construct(self, x):
        return self.pool(x)


class Depends(nn.Cell):
    """Three layers that no file can hold for all sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = Bins()
        self.squares = Squares()

    def construct(self, x):
        return self.bins(x), self.squares(x)


class Squares(nn.Cell):
    def construct(self, x):
        return x * (x.shape[2] ** 2 + 1)


def test_what_depends_on_a_size_is_named():
    axes = {"x": {2: "height"}}
    with pytest.raises(RuntimeError) as caught:
        export_onnx(Depends(), image(size=(8, 8)), file_name="net", dynamic_axes=axes)
    _, *lines = str(caught.value).splitlines()
    assert [line.partition("; write instead")[0] for line in lines] == [
        "- bins.pool: the primitive AdaptiveAvgPool2D: what computes it depends on the size",
        "- squares: the primitive Muls: a constant of its Mul depends on the size",
    ]
    assert not Path("net.onnx").exists()


@pytest.mark.parametrize("size", [(12, 12), (15, 15), (14, 17)])
def test_windows_that_are_rounded_up_are_refused_whatever_the_size_is(size):
    """How much is added at the end differs with the rest of the size in the stride."""
    net = nn.MaxPool2d(3, 2, "pad", 1, ceil_mode=True)
    with pytest.raises(RuntimeError, match="attributes of its MaxPool depend on the size"):
        export_onnx(net, image(size=size), file_name="net", dynamic_axes={"x": {3: "width"}})


class Branches(nn.Cell):
    def construct(self, x):
        return ops.relu(x) if x.shape[2] < 10 else ops.sigmoid(x)


def test_another_graph_at_another_size_is_refused():
    with pytest.raises(RuntimeError, match="it has another graph at another size"):
        export_onnx(Branches(), image(), file_name="net", dynamic_axes={"x": {2: "height"}})


class FixedSize(nn.Cell):
    """A vector of a fixed length for each position."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = ms.Parameter(ms.Tensor(random_array((1, 4, 7, 9))))

    def construct(self, x):
        return x + self.positions


def test_a_network_that_takes_no_other_sizes_is_refused():
    with pytest.raises(RuntimeError, match=r"it does not compile with height = \d+: .*broadcast"):
        export_onnx(FixedSize(), image(), file_name="net", dynamic_axes={"x": {2: "height"}})


@pytest.mark.parametrize(
    ("axes", "message"),
    (
        ({"y": {0: "batch"}}, r"must name inputs, which are input, got 'y'"),
        ({"input": {4: "depth"}}, r"names for axes from 0 to 3, .* got {4: 'depth'}"),
        ({"input": {0: 1}}, r"names for axes from 0 to 3, .* got {0: 1}"),
        ({"input": {2: "size", 3: "size"}}, r"must have one size, got 7 and 9 for 'size'"),
    ),
)
def test_axes_that_do_not_fit_the_inputs_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(LayerNet(), image(), file_name="net", dynamic_axes=axes)
