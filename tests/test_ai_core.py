# SPDX-License-Identifier: Apache-2.0
"""For Ascend, the composition of real layers stays on the AI Core, by CANN's written rules.

The compiled graphs are walked node by node. The rules are written here once more, as the numbers of
CANN 8.1.RC1 (check_supported of deformable_offsets.py and deformable_offsets_grad.py, and the
platform_config of each SoC) and of ops-cv 9.1.0 (aclnn_grid_sampler2d.cpp,
aclnn_grid_sampler2d_backward.cpp) have them. Nothing of it was seen on a device.
"""

from __future__ import annotations

from typing import NamedTuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from compiled_graphs import Node, compiled_nodes, nodes_of
from ms_deform import DeformConv2d, backends, export_mindir, set_backend
from ms_deform.backends import aclnn, aicpu, choose_backend, composition
from ms_deform.backends.ai_core_layout import Target, choose, layouts, moved_elements, obstacle
from ms_deform.backends.interface import Call
from ms_deform.geometry import Geometry, TensorInfo, check_geometry
from ms_deform.install import ai_core
from operator_under_test import Operator, OperatorAndGradients

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's DeformableOffsets"),
]


class Row(NamedTuple):
    """A layer of a network: square kernels, padding that keeps the size."""

    batch: int | None
    channels: int
    out_channels: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    offset_groups: int = 1

    @property
    def out_size(self) -> tuple[int, int]:
        return tuple((size - self.kernel % 2) // self.stride + 1 for size in self.size)

    def shapes(self, batch: int | None) -> list[tuple[int | None, ...]]:
        """Of input, offset, weight, bias and mask."""
        taps = self.offset_groups * self.kernel**2
        return [
            (batch, self.channels, *self.size),
            (batch, 2 * taps, *self.out_size),
            (self.out_channels, self.channels // self.groups, self.kernel, self.kernel),
            (self.out_channels,),
            (batch, taps, *self.out_size),
        ]

    @property
    def geometry(self) -> Geometry:
        infos = [TensorInfo(shape, ms.float32) for shape in self.shapes(self.batch)]
        input, offset, weight, bias, mask = infos
        constants = (self.stride, self.kernel // 2, 1)
        return check_geometry(input, offset, mask, weight, bias, constants)

    @property
    def operator(self) -> Operator:
        return Operator((self.stride,) * 2, (self.kernel // 2,) * 2)

    def tensors(self) -> list[ms.Tensor]:
        return [ops.zeros(shape, ms.float32) for shape in self.shapes(self.batch)]


ROWS = {
    "ResNet-50, stage 3": Row(2, 128, 128, (200, 336), stride=2),
    "ResNet-50, stage 4": Row(2, 256, 256, (50, 84)),
    "ResNet-50, stage 5": Row(2, 512, 512, (25, 42)),
    "X-101, stage 4": Row(2, 256, 256, (100, 168), groups=32),
    "X-101, stage 5": Row(2, 512, 512, (50, 84), groups=32),
    "DBNet, 128": Row(1, 128, 128, (92, 160)),
    "DBNet, 256": Row(1, 256, 256, (46, 80)),
    "DBNet, 512": Row(1, 512, 512, (23, 40)),
    "CenterNet, 64": Row(16, 64, 64, (128, 128)),
    "CenterNet, 256": Row(16, 256, 128, (32, 32)),
    "EDVR": Row(1, 64, 64, (180, 320), offset_groups=8),
    "BasicVSR++": Row(1, 128, 64, (180, 320), offset_groups=16),
    "ProPainter": Row(1, 256, 128, (60, 108), offset_groups=16),
    "BiRefNet, 7x7": Row(1, 64, 256, (256, 256), kernel=7),
    "BiRefNet, 3x3": Row(1, 64, 256, (128, 128)),
    "BiRefNet, 1x1": Row(1, 64, 256, (64, 64), kernel=1),
    "DEKR": Row(1, 15, 15, (128, 128)),
    "BEVDepth": Row(6, 512, 512, (16, 44), groups=4),
    "YOLACT++": Row(8, 128, 128, (69, 69)),
    "first layer": Row(1, 3, 64, (224, 224)),
    "4 offset groups of 64": Row(2, 256, 256, (50, 68), offset_groups=4),
}
HARDEST = ["ResNet-50, stage 5", "X-101, stage 5", "EDVR", "BasicVSR++", "DEKR", "first layer"]

# Cores and bytes of unified buffer.
SOCS = {
    "Ascend910A": (32, 262144),
    "Ascend910ProB": (30, 262144),
    "Ascend910B1": (24, 196608),
    "Ascend910B4": (20, 196608),
    "Ascend910_9391": (24, 196608),
    "Ascend910_9362": (20, 196608),
    "Ascend310P1": (10, 262144),
    "Ascend310P3": (8, 262144),
}
A2_A3 = ("Ascend910B", "Ascend910_93")
SAMPLING = {"DeformableOffsets", "GridSampler2D"}
GRADIENTS = {"DeformableOffsetsGrad", "GridSampler2DGrad"}


def stays(node: Node, soc: str) -> bool:
    """Whether a node in float32 is computed on the AI Core of a SoC, as the files say it."""
    cores, unified_buffer = SOCS[soc]
    if node.operator == "GridSampler2D":
        channels, height, width = node.inputs[0][1:]
        # 310P: the template for 32 channels, and that for small images.
        small = channels == 32 or channels * height * width < 20480
        return soc.startswith(A2_A3) or (soc.startswith("Ascend310P") and small)
    if node.operator == "GridSampler2DGrad":
        return soc.startswith(A2_A3) and node.inputs[1][1] <= 2048
    gradient = node.operator == "DeformableOffsetsGrad"
    if gradient and soc.startswith("Ascend310P"):
        return False
    columns = node.inputs[0] if gradient else None
    x, offsets = node.inputs[-2:]
    groups, channels = node.attributes["deformable_groups"], x[1]
    group_c = channels // groups
    elements = (unified_buffer - 160) // 4
    aligned = -(-offsets[1] // 8) * 8
    if gradient:
        assert columns[1] == channels
        return group_c % 8 == 0 and (elements - (9 + 3) * group_c) // (2 * aligned) > 0
    kernel_width = kernel_of(node)
    segments = (elements - 4 * channels) // (kernel_width * channels + aligned)
    return groups == 1 and group_c % 8 == 0 and segments > 0 and cores * channels >= 1024


def kernel_of(node: Node) -> int:
    """The width of a square kernel."""
    taps = node.inputs[1][1] // (3 * node.attributes["deformable_groups"])
    return round(taps**0.5)


def training_nodes(row: Row, soc: str | None) -> list[Node]:
    grad_output = ops.zeros((row.batch, row.out_channels, *row.out_size), ms.float32)
    net = OperatorAndGradients(row.operator)
    with set_backend("composition", soc=soc):
        return compiled_nodes(net, *row.tensors(), grad_output)


def assert_trains_on_ai_core(row: Row, soc: str, kinds: tuple[str, ...]) -> None:
    nodes = training_nodes(row, soc)
    found = {node.operator for node in nodes}
    assert len(found & SAMPLING) == len(found & GRADIENTS) == 1
    for node in nodes:
        if node.operator in SAMPLING | GRADIENTS:
            # A layout for a product serves each of its SoCs.
            assert all(stays(node, kind) for kind in kinds), node


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_real_layer_trains_on_the_ai_core_of_atlas_a2_and_a3(row: Row) -> None:
    kinds = ("Ascend910B1", "Ascend910B4", "Ascend910_9391", "Ascend910_9362")
    assert_trains_on_ai_core(row, "Ascend910B4", kinds)


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("name", HARDEST)
def test_the_hardest_train_on_the_ai_core_of_a_910(name: str) -> None:
    assert_trains_on_ai_core(ROWS[name], "Ascend910A", ("Ascend910A", "Ascend910ProB"))


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("name", HARDEST)
def test_the_hardest_are_computed_on_the_ai_core_of_a_310p(name: str) -> None:
    row = ROWS[name]
    target = Target(ai_core.product_of("Ascend310P3"), training=False)
    with backends.forced_backend(nn.Cell(), composition.LaidOut(target)):
        nodes = compiled_nodes(row.operator, *row.tensors())
    (node,) = (node for node in nodes if node.operator in SAMPLING)
    assert stays(node, "Ascend310P1") and stays(node, "Ascend310P3"), node


@pytest.mark.usefixtures("graph_mode")
def test_as_it_is_on_a_cpu_a_layer_may_leave_it() -> None:
    """So these tests can fail."""
    nodes = training_nodes(ROWS["EDVR"], None)
    assert not any(stays(node, "Ascend910B4") for node in nodes if node.operator in SAMPLING)


@pytest.mark.usefixtures("graph_mode")
def test_an_exported_file_stays_there_too() -> None:
    """By DeformableOffsets alone: the graph engine's own GridSampler2D is not known to."""

    class Layer(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.deform = DeformConv2d(16, 4, 3, padding=1)

        def construct(self, x, offset):
            return self.deform(x, offset)

    inputs = ops.ones((1, 16, 5, 6)), ops.zeros((1, 2 * 18, 5, 6))
    path = export_mindir(Layer(), *inputs, file_name="net")
    (node,) = (node for node in nodes_of(path) if node.operator in SAMPLING)
    assert node.operator == "DeformableOffsets"
    assert stays(node, "Ascend910B4"), node
    assert not stays(node, "Ascend310P3")
    path = export_mindir(Layer(), *inputs, file_name="net", soc="Ascend310P3")
    (node,) = (node for node in nodes_of(path) if node.operator in SAMPLING)
    assert stays(node, "Ascend310P3"), node


def target_of(soc: str, **changes) -> Target:
    return Target(ai_core.product_of(soc))._replace(**changes)


@pytest.mark.parametrize("soc", SOCS)
@pytest.mark.parametrize("channels", [1, 8, 48, 52, 56, 64, 128, 2048, 4088, 4096, 8192])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_rules_refuse_whatever_the_files_refuse(soc: str, channels: int, groups: int) -> None:
    x, offsets = (1, channels, 30, 40), (1, 27 * groups, 30, 40)
    grid, columns = (1, 9 * 30, 40, 2), (1, channels, 90, 120)
    shapes = {
        "DeformableOffsets": [x, offsets],
        "DeformableOffsetsGrad": [columns, x, offsets],
        "GridSampler2D": [x, grid],
        "GridSampler2DGrad": [(1, channels, 9 * 30, 40), x, grid],
    }
    for operator, inputs in shapes.items():
        node = Node(operator, {"deformable_groups": groups}, inputs)
        sampling = ai_core.Sampling(operator, channels, (30, 40), groups, (3, 3))
        allowed = ai_core.obstacle(ai_core.product_of(soc), sampling) is None
        # A product has the fewest cores of its kinds, so that its rule may be the stricter one.
        assert stays(node, soc) if allowed else True
        if SOCS[soc][0] in (8, 20, 30):
            assert stays(node, soc) == allowed


@pytest.mark.parametrize(
    "soc, product",
    [
        ("Ascend910B4", "Atlas A2"),
        ("Ascend910B4-1", "Atlas A2"),
        ("ascend910b", "Atlas A2"),
        ("Ascend910_9392", "Atlas A3"),
        ("ascend950", "Ascend 950"),
        ("Ascend950PR", "Ascend 950"),
        ("ascend910", "Atlas training series (910)"),
        ("Ascend910PremiumA", "Atlas training series (910)"),
        ("Ascend310P3", "Atlas inference series (310P)"),
        ("Ascend310B4", "Atlas 200I/500 A2 (310B)"),
    ],
)
def test_a_soc_belongs_to_a_product(soc: str, product: str) -> None:
    assert ai_core.product_of(soc).name == product


def test_an_unknown_soc_is_refused() -> None:
    assert ai_core.product_of("Ascend620") is None
    # The 950 of CANN 8, before its operators were published.
    assert ai_core.product_of("Ascend910_9589") is None
    message = "'soc' must be a SoC of Atlas A2, .*, such as Ascend910B4, got 'H100'"
    with pytest.raises(ValueError, match=f"set_backend: {message}"):
        set_backend("composition", soc="H100")
    with pytest.raises(ValueError, match=f"export_mindir: {message}"):
        export_mindir(nn.ReLU(), ops.ones(3), file_name="net", soc="H100")
    with pytest.raises(ValueError, match="'soc' goes with \"composition\", got 'aot'"):
        set_backend("aot", soc="Ascend910B4")


def test_what_no_layout_takes_is_refused_by_the_name_of_the_product() -> None:
    message = "the backend 'composition' for Atlas A2 takes float32, .* got float64"
    call = called(ROWS["DEKR"])._replace(dtype=ms.float64, device_target="CPU")
    with (
        set_backend("composition", soc="Ascend910B4"),
        pytest.raises(NotImplementedError, match=message),
    ):
        choose_backend(call, None)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("soc", ["Ascend910B4", "Ascend910A", "Ascend950"])
def test_of_the_layouts_that_stay_the_one_that_moves_least_is_taken(row: Row, soc: str) -> None:
    target = target_of(soc)
    chosen, why_not = choose(row.geometry, target)
    assert why_not is None
    for layout in layouts(row.geometry, target):
        if obstacle(row.geometry, layout, target) is None:
            moved = moved_elements(row.geometry, layout, target)
            assert moved_elements(row.geometry, chosen, target) <= moved


def test_what_is_taken_where() -> None:
    taken = {
        (name, soc): choose(ROWS[name].geometry, target_of(soc))[0]
        for name in HARDEST
        for soc in ("Ascend910B4", "Ascend910A", "Ascend950")
    }
    few = ("EDVR", "BasicVSR++", "DEKR", "first layer")
    for (name, soc), layout in taken.items():
        by_grid = soc == "Ascend910B4" and name in few
        assert layout.operator == ("GridSampler2D" if by_grid else "DeformableOffsets")
    assert taken["EDVR", "Ascend910B4"].channels == 8
    assert taken["EDVR", "Ascend910A"].channels == 40
    assert taken["EDVR", "Ascend950"][1:3] == (1, 64)
    assert taken["ResNet-50, stage 5", "Ascend910B4"].channels == 512


def test_an_unknown_batch_wants_more_channels() -> None:
    row = ROWS["CenterNet, 64"]._replace(batch=None)
    target = target_of("Ascend910B4", engine=ai_core.GRAPH_ENGINE)
    layout, why_not = choose(row.geometry, target)
    assert why_not is None
    assert layout.operator == "DeformableOffsets"
    # More than 2048 cores times channels.
    assert layout.channels == 104


def called(row: Row, training: bool = True) -> Call:
    return Call(row.geometry, ms.float32, "Ascend", False, "deform_conv2d", training)


@pytest.fixture
def on_soc(monkeypatch):
    def choose_soc(soc: str) -> None:
        monkeypatch.setattr(composition, "soc_version", lambda: soc)
        monkeypatch.setattr(aclnn, "obstacle", lambda call: "is not here")
        monkeypatch.delenv("ASCEND_CUSTOM_OPP_PATH", raising=False)
        monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)

    return choose_soc


def test_what_leaves_it_is_said_once(on_soc, logged) -> None:
    on_soc("ascend310p")
    row = ROWS["EDVR"]
    for _ in range(2):
        assert choose_backend(called(row), None) is composition
    (line,) = logged
    assert "Grad on Atlas inference series (310P) has no AI Core operator" in line
    assert "python -m ms_deform build --aicpu" in line


def test_what_stays_is_not_said(on_soc, logged) -> None:
    on_soc("ascend910b")
    assert choose_backend(called(ROWS["EDVR"]), None) is composition
    on_soc("ascend310p")
    assert choose_backend(called(ROWS["EDVR"], training=False), "composition") is composition
    assert logged == []


def test_a_soc_without_rules_takes_the_composition_as_it_is(on_soc, logged) -> None:
    on_soc("ascend620")
    call = called(ROWS["EDVR"])
    assert choose_backend(call, None) is composition
    assert composition.prepare(call)[1:] == composition.primitives(call.geometry.any_size)
    assert "no rules are known of the AI Core of 'ascend620'" in logged[0]


def test_training_that_leaves_it_takes_our_kernels_where_they_are_installed(
    on_soc, logged, monkeypatch
) -> None:
    on_soc("ascend310p")
    monkeypatch.setattr(backends, "aicpu_package", lambda operator: "/somewhere")
    row = ROWS["EDVR"]
    assert choose_backend(called(row), None) is aicpu
    assert choose_backend(called(row)._replace(dtype=ms.bfloat16), None) is composition
    assert choose_backend(called(row), "composition") is composition
    on_soc("ascend910b")
    assert choose_backend(called(row), None) is composition


def test_a_forward_pass_stays_where_the_gradient_cannot() -> None:
    geometry = ROWS["EDVR"].geometry
    layout, why_not = choose(geometry, target_of("Ascend310P3"))
    assert "DeformableOffsetsGrad" in why_not or "GridSampler2DGrad" in why_not
    assert (layout, None) == choose(geometry, target_of("Ascend310P3", training=False))


def test_nothing_of_a_310b_stays() -> None:
    layout, why_not = choose(ROWS["EDVR"].geometry, target_of("Ascend310B1"))
    assert "on Atlas 200I/500 A2 (310B) has no AI Core operator" in why_not
    assert layout.image_groups == 1 and np.prod(layout.size) > 0
