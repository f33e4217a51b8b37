# SPDX-License-Identifier: Apache-2.0
"""Real networks go from .pth to a verified MindSpore network, training, ONNX and MindIR.

By the commands and functions that the README shows.
"""

from __future__ import annotations

import mindspore as ms
import pytest

from exported_networks import NETWORKS
from ms_deform import export_mindir, export_onnx
from ms_deform.__main__ import main
from networks import random_array
from onnx_files import assert_all_close, outputs_of, run

WHY = "needs torch, torchvision, onnx and onnxruntime: pip install '.[parity,onnx]'"
torch = pytest.importorskip("torch", reason=WHY)
torch_networks = pytest.importorskip("torch_networks", reason=WHY)
torch_video_networks = pytest.importorskip("torch_video_networks", reason=WHY)
for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=WHY)

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]


def save_checkpoint(network: str) -> None:
    torch.manual_seed(0)
    net = getattr(torch_video_networks, network)()
    torch_networks.leave_initial_values(net)
    torch.save({"params": net.state_dict()}, "net.pth")


@pytest.mark.parametrize("name", ["EDVR", "BasicVSR++", "ResNet-50-DCN with FPN"])
def test_a_network_goes_all_the_way(name):
    cell, shapes = NETWORKS[name]
    net = f"exported_networks:{cell.__name__}"
    save_checkpoint(cell.__name__)
    assert main(["convert", "net.pth", "--net", net, "-o", "net.ckpt"]) == 0

    pair = ["--torch", f"torch_video_networks:{cell.__name__}", "--net", net]
    sizes = [word for shape in shapes.values() for word in ("--input", ",".join(map(str, shape)))]
    assert main(["verify", "net.pth", *pair, *sizes, "--steps", "1"]) == 0

    ported = cell().set_train(False)
    assert ms.load_param_into_net(ported, ms.load_checkpoint("net.ckpt")) == ([], [])
    inputs = [ms.Tensor(random_array(shape, seed)) for seed, shape in enumerate(shapes.values())]
    path = export_onnx(ported, *inputs, file_name="net.onnx")
    assert_all_close(run(path, *inputs), outputs_of(ported, *inputs), 1e-4)
    export_mindir(ported, *inputs, file_name="net.mindir")  # runs it without ms_deform, compares
