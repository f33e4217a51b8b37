# SPDX-License-Identifier: Apache-2.0
"""PyTorch's checkpoints become MindSpore's, name by name and layer by layer."""

from __future__ import annotations

import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from safetensors.numpy import save_file

from ms_deform import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack
from ms_deform.__main__ import main
from ms_deform.port import convert
from networks import random_array
from tolerances import assert_close

pytestmark = pytest.mark.usefixtures("scratch_folder")


class SmallNet(nn.Cell):
    """What the command converts in these tests, with PyTorch's attribute names."""

    def __init__(self, out_channels: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, pad_mode="pad", padding=1, has_bias=True)
        self.bn1 = nn.BatchNorm2d(4)
        self.deform = ModulatedDeformConv2dPack(4, out_channels, 3, padding=1, deform_groups=2)

    def construct(self, x):
        return self.deform(ops.relu(self.bn1(self.conv1(x))))


TORCH_SHAPES = {
    "conv1.weight": (4, 3, 3, 3),
    "conv1.bias": (4,),
    "bn1.weight": (4,),
    "bn1.bias": (4,),
    "bn1.running_mean": (4,),
    "bn1.running_var": (4,),
    "deform.weight": (4, 4, 3, 3),
    "deform.bias": (4,),
    "deform.conv_offset.weight": (54, 4, 3, 3),
    "deform.conv_offset.bias": (54,),
}


def small_state() -> dict[str, np.ndarray]:
    state = {name: random_array(shape, i) for i, (name, shape) in enumerate(TORCH_SHAPES.items())}
    return {**state, "bn1.num_batches_tracked": np.array(7)}


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """Where the command runs: a module with a factory, and a checkpoint."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user_net", raising=False)
    (tmp_path / "user_net.py").write_text(
        "from test_convert import SmallNet\n\n"
        "def wide():\n    return SmallNet(out_channels=6)\n\n"
        "def nothing():\n    return None\n"
    )
    save_file(small_state(), "model.safetensors")
    return tmp_path


def run(*arguments: str) -> int:
    return main(["convert", *arguments])


def test_every_parameter_arrives_under_its_mindspore_name(user_folder, capsys):
    assert run("model.safetensors", "--net", "user_net:SmallNet", "-o", "model.ckpt") == 0
    printed = capsys.readouterr().out
    assert "matched: 10\n" in printed
    assert "unexpected, in the checkpoint only: 0" in printed
    state, net = small_state(), SmallNet()
    parameters = ms.load_checkpoint("model.ckpt")
    assert ms.load_param_into_net(net, parameters) == ([], [])
    for ours, theirs in (
        ("bn1.gamma", "bn1.weight"),
        ("bn1.beta", "bn1.bias"),
        ("bn1.moving_mean", "bn1.running_mean"),
        ("bn1.moving_variance", "bn1.running_var"),
        ("deform.weight", "deform.weight"),
        ("deform.conv_offset.bias", "deform.conv_offset.bias"),
    ):
        np.testing.assert_array_equal(parameters[ours].asnumpy(), state[theirs])


def test_whatever_is_off_is_named_and_nothing_is_written(user_folder, capsys):
    state = small_state()
    del state["conv1.bias"]
    state["head.weight"] = np.zeros((2, 3), np.float32)
    save_file(state, "model.safetensors")
    assert run("model.safetensors", "--net", "user_net:wide", "-o", "model.ckpt") == 1
    printed = capsys.readouterr().out
    assert "missing, in the network only: 1\n  conv1.bias (4,)\n" in printed
    assert "unexpected, in the checkpoint only: 1\n  head.weight (2, 3)\n" in printed
    assert "of another shape: 2\n  deform.weight: (4, 4, 3, 3) in the checkpoint, " in printed
    assert "--partial" in printed
    assert not (user_folder / "model.ckpt").exists()


def test_partial_writes_what_matched(user_folder, capsys):
    arguments = ("model.safetensors", "--net", "user_net:wide", "-o", "model.ckpt", "--partial")
    assert run(*arguments) == 0
    assert "of another shape: 2" in capsys.readouterr().out
    parameters = ms.load_checkpoint("model.ckpt")
    assert len(parameters) == 8
    assert "deform.weight" not in parameters


@pytest.mark.needs("torchvision")
def test_a_torch_file_and_its_safetensors_twin_give_the_same(user_folder):
    import torch

    tensors = {f"module.{name}": torch.from_numpy(v) for name, v in small_state().items()}
    torch.save({"epoch": 3, "state_dict": tensors}, "model.pth")
    for name in ("model.pth", "model.safetensors"):
        assert run(name, "--net", "user_net:SmallNet", "-o", f"{name}.ckpt") == 0
    twins = [ms.load_checkpoint(f"model.{end}.ckpt") for end in ("pth", "safetensors")]
    for name, parameter in twins[0].items():
        np.testing.assert_array_equal(parameter.asnumpy(), twins[1][name].asnumpy())


@pytest.mark.needs("torchvision")
def test_key_chooses_among_several_sets_of_parameters(user_folder, capsys):
    import torch

    tensors = {f"generator.{name}": torch.from_numpy(v) for name, v in small_state().items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    torch.save({"params": zeros, "params_ema": tensors}, "model.pth")
    arguments = ("model.pth", "--net", "user_net:SmallNet", "-o", "model.ckpt")
    assert run(*arguments) == 1
    assert "under ['params', 'params_ema']; choose one with --key" in capsys.readouterr().err
    assert run(*arguments, "--key", "params_ema", "--prefix", "generator.") == 0
    weight = ms.load_checkpoint("model.ckpt")["deform.weight"].asnumpy()
    np.testing.assert_array_equal(weight, small_state()["deform.weight"])


@pytest.mark.needs("torchvision")
def test_a_file_that_could_run_code_is_refused(user_folder, capsys):
    import torch

    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": SmallNet}, "model.pth")
    assert run("model.pth", "--net", "user_net:SmallNet", "-o", "model.ckpt") == 1
    assert "save its parameters alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("checkpoint", "net", "message"),
    [
        ("none.safetensors", "user_net:SmallNet", "there is no file none.safetensors"),
        ("model.safetensors", "user_net:Missing", "no factory 'user_net:Missing'"),
        ("model.safetensors", "no_module:net", "name it package.module:factory"),
        ("model.safetensors", "user_net:nothing", "must return a Cell, got NoneType"),
    ],
)
def test_what_cannot_be_read_is_named(user_folder, capsys, checkpoint, net, message):
    assert run(checkpoint, "--net", net, "-o", "model.ckpt") == 1
    assert message in capsys.readouterr().err


def test_bfloat16_arrives(user_folder):
    state = {name: value.astype(np.float32) for name, value in small_state().items()}
    parameters = [
        {"name": name, "data": ms.Tensor(value).astype(ms.bfloat16)}
        for name, value in state.items()
    ]
    ms.save_checkpoint(parameters, "half.safetensors", format="safetensors")
    assert run("half.safetensors", "--net", "user_net:SmallNet", "-o", "model.ckpt") == 0
    weight = ms.load_checkpoint("model.ckpt")["deform.weight"].asnumpy()
    np.testing.assert_allclose(weight, state["deform.weight"], rtol=2**-8)


def test_mmcvs_old_names_of_offset_convolutions_are_known():
    old = {
        name.replace(".conv_offset.", "_offset."): value for name, value in small_state().items()
    }
    assert "deform_offset.weight" in old
    parameters, report = convert.convert_state(old, SmallNet())
    assert report.complete
    np.testing.assert_array_equal(
        parameters["deform.conv_offset.weight"].asnumpy(), old["deform_offset.weight"]
    )


class PackedNet(nn.Cell):
    """What a MindSpore port with the builtin looks like: the prediction is the packed offset."""

    def __init__(self, channels_per_sample: int) -> None:
        super().__init__()
        self.modulated = channels_per_sample == 3
        self.conv_offset = nn.Conv2d(
            4, channels_per_sample * 18, 3, pad_mode="pad", padding=1, has_bias=True
        )
        self.weight = ms.Parameter(ms.Tensor(np.zeros((6, 4, 3, 3), np.float32)), name="weight")

    def construct(self, x):
        from ms_deform import deformable_conv2d

        packed = self.conv_offset(x)
        if self.modulated:
            packed = ops.concat((packed[:, :36], ops.sigmoid(packed[:, 36:])), 1)
        return deformable_conv2d(
            *(x, self.weight, packed, (3, 3), (1, 1, 1, 1), (1, 1, 1, 1)),
            deformable_groups=2,
            modulated=self.modulated,
        )


@pytest.mark.parametrize("layer", (DeformConv2dPack, ModulatedDeformConv2dPack))
def test_packed_offsets_make_a_port_with_the_builtin_compute_the_same(layer):
    layer = layer(4, 6, 3, padding=1, deform_groups=2, bias=False)
    state = {
        name: 0.3 * random_array(parameter.shape, seed)
        for seed, (name, parameter) in enumerate(layer.parameters_and_names())
    }
    port = PackedNet(3 if isinstance(layer, ModulatedDeformConv2dPack) else 2)
    for net, packed in ((layer, None), (port, "conv_offset")):
        parameters, report = convert.convert_state(state, net, packed)
        assert report.complete, str(report)
        ms.load_param_into_net(net, parameters)
    x = ms.Tensor(random_array((2, 4, 7, 9)))
    np.testing.assert_allclose(port(x).asnumpy(), layer(x).asnumpy(), rtol=1e-4, atol=1e-5)


def test_packed_offsets_need_a_convolution_of_that_name(user_folder, capsys):
    arguments = ("model.safetensors", "--net", "user_net:SmallNet", "-o", "model.ckpt")
    assert run(*arguments, "--packed-offsets", "offset_conv") == 1
    assert "no offset_conv.weight in the checkpoint" in capsys.readouterr().err
    assert run(*arguments, "--packed-offsets") == 0


@pytest.mark.needs("tqdm")
def test_progress_is_shown_where_tqdm_is_there(user_folder):
    command = [sys.executable, "-m", "ms_deform", "convert", "model.safetensors"]
    (user_folder / "user_net.py").write_text("from mindspore import nn\n\nNet = nn.ReLU\n")
    done = subprocess.run(
        [*command, "--net", "user_net:Net", "-o", "model.ckpt"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "convert" in done.stderr
    assert "unexpected, in the checkpoint only: 10" in done.stdout


def layers() -> dict[str, tuple]:
    """A cell, PyTorch's module of the same arguments, and the shape of an input."""
    from torch import nn as torch_nn
    from torchvision.ops import DeformConv2d as TorchDeformConv2d

    conv = {"pad_mode": "pad", "has_bias": True}
    return {
        "Dense": (nn.Dense(5, 3), torch_nn.Linear(5, 3), (2, 5)),
        "Conv1d": (nn.Conv1d(4, 6, 3, **conv), torch_nn.Conv1d(4, 6, 3), (2, 4, 7)),
        "Conv2d": (
            nn.Conv2d(4, 6, 3, group=2, **conv),
            torch_nn.Conv2d(4, 6, 3, groups=2),
            (2, 4, 5, 6),
        ),
        "Conv3d": (nn.Conv3d(4, 6, 3, **conv), torch_nn.Conv3d(4, 6, 3), (2, 4, 5, 6, 4)),
        "Conv2dTranspose": (
            nn.Conv2dTranspose(4, 6, 2, 2, **conv),
            torch_nn.ConvTranspose2d(4, 6, 2, 2),
            (2, 4, 5, 6),
        ),
        "BatchNorm1d": (nn.BatchNorm1d(4), torch_nn.BatchNorm1d(4), (2, 4)),
        "BatchNorm2d": (nn.BatchNorm2d(4), torch_nn.BatchNorm2d(4), (2, 4, 5, 6)),
        "BatchNorm3d": (nn.BatchNorm3d(4), torch_nn.BatchNorm3d(4), (2, 4, 2, 5, 6)),
        "GroupNorm": (nn.GroupNorm(2, 4), torch_nn.GroupNorm(2, 4), (2, 4, 5, 6)),
        "LayerNorm": (nn.LayerNorm((6,), epsilon=1e-5), torch_nn.LayerNorm(6), (2, 5, 6)),
        "PReLU": (nn.PReLU(4), torch_nn.PReLU(4), (2, 4, 5, 6)),
        "Embedding": (nn.Embedding(9, 4), torch_nn.Embedding(9, 4), None),
        "LSTM": (nn.LSTM(4, 3), torch_nn.LSTM(4, 3), (5, 2, 4)),
        "DeformConv2d": (DeformConv2d(4, 6, 1), TorchDeformConv2d(4, 6, 1), (2, 4, 5, 6)),
    }


LAYERS = (
    *("Dense", "Conv1d", "Conv2d", "Conv3d", "Conv2dTranspose"),
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "LayerNorm"),
    *("PReLU", "Embedding", "LSTM", "DeformConv2d"),
)


@pytest.mark.needs("torchvision")
@pytest.mark.parametrize("name", LAYERS)
def test_a_converted_layer_computes_what_pytorchs_does(name):
    import torch

    cell, module, shape = layers()[name]
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    module.eval()
    cell.set_train(False)
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    parameters, report = convert.convert_state(state, cell)
    assert report.complete, str(report)
    assert ms.load_param_into_net(cell, parameters) == ([], [])
    arrays = [np.arange(6).reshape(2, 3) if shape is None else random_array(shape)]
    if name == "DeformConv2d":
        arrays.append(random_array((2, 2, 5, 6), seed=1))
    actual = cell(*(ms.Tensor(a.astype(np.int32) if shape is None else a) for a in arrays))
    expected = module(*map(torch.from_numpy, arrays))
    if name == "LSTM":
        actual, expected = actual[0], expected[0]
    assert_close(actual.asnumpy(), expected.detach().numpy(), "float32", "output", 1e-5)
