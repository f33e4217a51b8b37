# SPDX-License-Identifier: Apache-2.0
"""Networks are copied, saved, loaded and exported as any other."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from networks import LayerNet, MeanSquare, image

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("is about files"),
]


def test_a_deep_copy_computes_the_same_and_trains_alone():
    net = LayerNet()
    expected = net(image()).asnumpy()
    twin = copy.deepcopy(net)
    np.testing.assert_array_equal(twin(image()).asnumpy(), expected)
    loss = MeanSquare(twin)
    step = nn.TrainOneStepCell(loss, nn.SGD(loss.trainable_params(), learning_rate=0.5))
    step.set_train()
    step(image())
    np.testing.assert_array_equal(net(image()).asnumpy(), expected)
    assert np.abs(twin(image()).asnumpy() - expected).max() > 0


def test_parameters_survive_pickling():
    net = LayerNet()
    twin = LayerNet()
    state = pickle.loads(pickle.dumps({p.name: p.asnumpy() for p in net.get_parameters()}))
    ms.load_param_into_net(twin, {k: ms.Parameter(ms.Tensor(v)) for k, v in state.items()})
    np.testing.assert_array_equal(twin(image()).asnumpy(), net(image()).asnumpy())


def test_a_checkpoint_restores_every_parameter_under_torchvisions_names():
    net, twin = LayerNet(), LayerNet()
    ms.save_checkpoint(net, "net.ckpt")
    loaded = ms.load_checkpoint("net.ckpt")
    assert {"deform.weight", "deform.bias"} <= set(loaded)
    assert ms.load_param_into_net(twin, loaded) == ([], [])
    np.testing.assert_array_equal(twin(image()).asnumpy(), net(image()).asnumpy())


LOAD = """
import mindspore as ms, numpy as np
from mindspore import nn
net = nn.GraphCell(ms.load({file!r}))
for name in {inputs!r}:
    np.save(name + ".out.npy", net(ms.Tensor(np.load(name))).asnumpy())
"""


@pytest.mark.parametrize("shape", ((2, 4, 7, 9), (None, 4, None, None)), ids=("static", "dynamic"))
def test_a_mindir_file_computes_the_same_in_a_new_process(shape, tmp_path):
    net = LayerNet()
    ms.export(
        net,
        ms.Tensor(shape=shape, dtype=ms.float32) if None in shape else image(),
        file_name="net",
        file_format="MINDIR",
    )
    images = {"a.npy": image()}
    if None in shape:
        images["b.npy"] = image(batch=3, size=(5, 6))
    for name, tensor in images.items():
        np.save(name, tensor.asnumpy())
    program = tmp_path / "load.py"
    program.write_text(LOAD.format(file="net.mindir", inputs=list(images)))
    subprocess.run([sys.executable, program], check=True)
    for name, tensor in images.items():
        np.testing.assert_array_equal(np.load(f"{name}.out.npy"), net(tensor).asnumpy())
