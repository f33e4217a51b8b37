# SPDX-License-Identifier: Apache-2.0
"""record_offsets sees what the layers use; the pictures show it."""

from __future__ import annotations

import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import reference
from ms_deform import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack, record_offsets, viz
from networks import CHANNELS, LayerNet, image, random_array
from tolerances import assert_close

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's Pad"),
]


class Net(nn.Cell):
    """All three layers, nested, with every argument; one is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.SequentialCell(LayerNet(), nn.ReLU())
        self.v1 = DeformConv2dPack(6, 6, (3, 2), stride=(2, 1), padding=(1, 2), deform_groups=3)
        self.v2 = ModulatedDeformConv2dPack(6, 6, 3, padding=(0, 2, 1, 1), dilation=(1, 2))
        for cell in (self.v1, self.v2):
            weight = cell.conv_offset.weight
            weight.set_data(ms.Tensor(random_array(weight.shape) / 9))

    def construct(self, x):
        return self.v2(self.v2(self.v1(self.body(x))))


def given(record: viz.Record) -> dict[str, np.ndarray]:
    offset = {"offset": record.offset}
    return offset if record.mask is None else {**offset, "mask": record.mask}


def test_records_are_what_the_layers_compute_with(mode):
    net, outputs = Net(), {}
    for name, cell in net.cells_and_names():
        if isinstance(cell, DeformConv2d):
            cell.register_forward_hook(
                lambda _, inputs, output, name=name: outputs.setdefault(name, []).append(
                    (inputs[0].asnumpy(), output.asnumpy())
                )
            )
    before = ms.get_context("mode")
    with record_offsets(net) as records:
        net(image())
    assert ms.get_context("mode") == before
    assert {name: len(calls) for name, calls in records.items()} == {
        "body.0.deform": 1,
        "v1": 1,
        "v2": 2,
    }
    cells = dict(net.cells_and_names())
    for name, calls in records.items():
        layer = cells[name]
        for record, (input, output) in zip(calls, outputs[name]):
            expected = reference.deform_conv2d(
                input.astype(float),
                weight=layer.weight.asnumpy(),
                bias=None if layer.bias is None else layer.bias.asnumpy(),
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                **given(record),
            )
            assert_close(output, expected, "float32", "output", 1e-5)
            assert record.input_size == input.shape[2:]
        assert [record.call for record in calls] == list(range(len(calls)))


def test_nothing_is_recorded_after_the_block(mode):
    net = Net()
    with record_offsets(net) as records:
        pass
    net(image())
    assert not any(records.values())


def test_blocks_nest(mode):
    net, before = DeformConv2dPack(CHANNELS, 2, 3), ms.get_context("mode")
    with record_offsets(net) as outer:
        with record_offsets(net) as inner:
            net(image())
        net(image())
    net(image())
    assert ms.get_context("mode") == before
    assert (len(outer["DeformConv2dPack"]), len(inner["DeformConv2dPack"])) == (2, 1)


def test_mode_and_layers_are_restored_after_an_error(mode):
    net, before = DeformConv2dPack(CHANNELS, 2, 3), ms.get_context("mode")
    with pytest.raises(KeyError), record_offsets(net) as records:
        raise KeyError
    net(image())
    assert ms.get_context("mode") == before
    assert not any(records.values())


def test_a_single_layer_has_the_name_of_its_type():
    layer = DeformConv2dPack(CHANNELS, 2, 3)
    with record_offsets(layer) as records:
        layer(image())
    assert list(records) == ["DeformConv2dPack"]
    assert records["DeformConv2dPack"][0].mask is None


def test_a_network_without_deformable_layers_is_refused():
    with (
        pytest.raises(ValueError, match="'net' has no deformable layer"),
        record_offsets(nn.SequentialCell(nn.ReLU())),
    ):
        pass


@pytest.fixture
def records() -> dict[str, list[viz.Record]]:
    net = Net()
    with record_offsets(net) as records:
        net(image())
    return records


def test_sampling_points_are_the_references(records):
    for record in (calls[0] for calls in records.values()):
        geometry = (record.kernel_size, record.stride, record.padding, record.dilation)
        # The reference reads a padding of four numbers as top, bottom, left, right.
        padding = (record.padding[0], 0, record.padding[1], 0)
        y, x = reference.sampling_points(record.offset, *geometry[:2], padding, geometry[3])
        pixels = [(0, 0), (2, 1), (1, 3)]
        points = viz.sampling_points(record, pixels, image=1)
        for position, (row, column) in enumerate(pixels):
            expected = np.stack([y, x], -1)[1, :, :, row, column]
            np.testing.assert_allclose(points[position], expected, rtol=1e-6, atol=1e-5)


def test_pixels_outside_the_output_are_refused(records):
    with pytest.raises(ValueError, match=r"'pixels' must lie in the layer's output of size \("):
        viz.sampling_points(records["v1"][0], [(99, 0)])


@pytest.mark.needs("matplotlib")
def test_sampling_is_drawn_over_the_picture(records):
    record, pixels = records["body.0.deform"][0], [(1, 2), (5, 7)]
    ax = viz.plot_sampling(record, pixels, picture=np.zeros((70, 90, 3)), image=1)
    crosses, dots = ax.collections
    points = viz.sampling_points(record, pixels, 1)[:, 0].reshape(-1, 2)
    np.testing.assert_allclose(dots.get_offsets(), points[:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(
        crosses.get_offsets(), viz.regular_points(record, pixels).reshape(-1, 2)[:, ::-1]
    )
    np.testing.assert_allclose(
        dots.get_array(), np.concatenate([record.mask[1, :, 1, 2], record.mask[1, :, 5, 7]])
    )
    assert ax.images[0].get_extent() == [-0.5, 8.5, 6.5, -0.5]
    assert not ax.xaxis_inverted()
    assert ax.yaxis_inverted()


@pytest.mark.needs("matplotlib")
def test_heat_maps_show_mean_length_and_mean_mask(records):
    record = records["v2"][1]
    y, x = record.offset[0, 0::2], record.offset[0, 1::2]
    shown = viz.plot_offsets(record).images[0].get_array()
    np.testing.assert_allclose(shown, np.hypot(y, x).mean(0), rtol=1e-5)
    shown = viz.plot_masks(record, image=1).images[0].get_array()
    np.testing.assert_allclose(shown, record.mask[1].mean(0), rtol=1e-5)


@pytest.mark.needs("matplotlib")
def test_a_layer_without_mask_has_no_mask_picture(records):
    with pytest.raises(ValueError, match="layer 'v1' has no mask"):
        viz.plot_masks(records["v1"][0])


def test_missing_matplotlib_is_named(records, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "matplotlib>=3\.7,<4"'):
        viz.plot_offsets(records["v1"][0])
