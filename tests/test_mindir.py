# SPDX-License-Identifier: Apache-2.0
"""export_mindir writes files that need no ms_deform, and vouches for them."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import ModulatedDeformConv2dPack, export_mindir
from ms_deform.export import mindir
from networks import CHANNELS, LayerNet, image, paired

pytestmark = [
    pytest.mark.usefixtures("device", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's DeformableOffsets"),
]


class TwoOutputs(nn.Cell):
    """Layers with a backend of their own, and two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = ModulatedDeformConv2dPack(CHANNELS, 6, 3, padding=1, backend="aot")
        self.net = LayerNet()

    def construct(self, x, y):
        return self.layer(x), ops.relu(self.net(y))


@pytest.mark.usefixtures("mode")
def test_the_file_computes_the_same_without_ms_deform():
    net = TwoOutputs().set_train()
    path = export_mindir(net, image(), image(1), file_name="net")
    assert path == "net.mindir"
    # Of this process: export_mindir itself has run it in another one.
    loaded = nn.GraphCell(ms.load(path))
    for actual, expected in paired(loaded(image(), image(1)), net(image(), image(1))):
        np.testing.assert_allclose(actual.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-5)
    assert net.training
    assert net.layer.backend == "aot"
    assert b"DeformableOffsets" in Path(path).read_bytes()
    assert b"MsDeform" not in Path(path).read_bytes()


def test_halves_can_be_exported():
    net = LayerNet()
    for parameter in net.get_parameters():
        parameter.set_dtype(ms.float16)
    assert export_mindir(net, image().astype(ms.float16), file_name=Path("half.mindir"))


def test_a_file_that_computes_something_else_is_refused(monkeypatch):
    # The process that checks the file is told to double every output.
    program = mindir._RUN.replace("output.astype(ms.float32)", "(2 * output).astype(ms.float32)")
    monkeypatch.setattr(mindir, "_RUN", program)
    with pytest.raises(RuntimeError, match=r"output 0 of net\.mindir differs from the network's"):
        export_mindir(LayerNet(), image(), file_name="net")


def test_a_file_that_does_not_run_is_refused(monkeypatch):
    monkeypatch.setattr(mindir, "_RUN", "raise SystemExit('no such operator')")
    with pytest.raises(RuntimeError, match=r"net\.mindir does not run:\nno such operator"):
        export_mindir(LayerNet(), image(), file_name="net")


def test_custom_operators_are_refused():

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.twice = ops.Custom(double, lambda x: x, lambda x: x, "pyfunc")
            self.net = LayerNet()

        def construct(self, x):
            return self.net(self.twice(x))

    with pytest.raises(ValueError, match=r"holds ops\.Custom operators"):
        export_mindir(Net(), image(), file_name="net")
    assert not Path("net.mindir").exists()


def double(x):
    return 2 * x


def test_inputs_must_be_tensors():
    with pytest.raises(TypeError, match="input 1 must be a Tensor, got list"):
        export_mindir(TwoOutputs(), image(), [1.0], file_name="net")
