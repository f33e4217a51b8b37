# SPDX-License-Identifier: Apache-2.0
"""Whole networks with deformable layers are written as ONNX, and compute the same there."""

from __future__ import annotations

import pytest

from exported_networks import NETWORKS, inputs_of, make
from ms_deform import export_onnx
from onnx_files import assert_all_close, outputs_of, run

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install '.[onnx]'")

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]


@pytest.mark.parametrize(
    ("name", "opset_version"),
    [
        *((name, 19) for name in NETWORKS),
        pytest.param("ResNet-50-DCN with FPN", 22, marks=pytest.mark.long),
        pytest.param("BiRefNet", 22, marks=pytest.mark.long),
    ],
)
def test_a_network_gives_the_same_outputs(name, opset_version):
    net, inputs = make(name), inputs_of(name)
    path = export_onnx(net, *inputs, file_name="net", opset_version=opset_version)
    assert_all_close(run(path, *inputs), outputs_of(net, *inputs), 1e-4)
    model = onnx.load(path)
    assert any(node.op_type == "DeformConv" for node in model.graph.node)
    assert {node.domain for node in model.graph.node} == {""}
