# SPDX-License-Identifier: Apache-2.0
"""PyTorch's checkpoints become MindSpore's, name by name and layer by layer."""

from __future__ import annotations

import re
import shlex
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
        "from test_convert import SmallNet\n\ndef wide():\n    return SmallNet(out_channels=6)\n"
    )
    save_file(small_state(), "model.safetensors")
    return tmp_path


ARGUMENTS = ("model.safetensors", "--net", "user_net:SmallNet", "-o", "model.ckpt")


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
    assert "model.ckpt is not written; --partial writes what matched" in printed
    assert not (user_folder / "model.ckpt").exists()


def test_partial_writes_what_matched(user_folder, capsys):
    arguments = ("model.safetensors", "--net", "user_net:wide", "-o", "model.ckpt", "--partial")
    assert run(*arguments) == 0
    assert "of another shape: 2" in capsys.readouterr().out
    parameters = ms.load_checkpoint("model.ckpt")
    assert len(parameters) == 8
    assert "deform.weight" not in parameters


def test_partial_is_not_suggested_where_nothing_matched(user_folder, capsys):
    save_file({"head.weight": np.zeros((2, 3), np.float32)}, "model.safetensors")
    for partial in ((), ("--partial",)):
        assert run(*ARGUMENTS, *partial) == 1
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("model.ckpt is not written: nothing matched; give the network")
        assert "--partial" not in last
        assert not (user_folder / "model.ckpt").exists()


def state_with_prefix(prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": array for name, array in small_state().items()}


PREFIXES = ("model.", "generator.", "module.", "_orig_mod.", "module._orig_mod.", "net.net.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_found_and_said(user_folder, capsys, prefix):
    save_file(state_with_prefix(prefix), "model.safetensors")
    assert run(*ARGUMENTS) == 0
    found = f"prefix found: {prefix} (--prefix takes another), names without it, left out: 0\n"
    assert capsys.readouterr().out.startswith(f"{found}matched: 10\n")
    weight = ms.load_checkpoint("model.ckpt")["deform.weight"].asnumpy()
    np.testing.assert_array_equal(weight, small_state()["deform.weight"])


def test_names_without_the_prefix_that_was_found_are_left_out_and_counted(user_folder, capsys):
    others = {name: np.zeros(3, np.float32) for name in ("step", "critic.weight", "critic.bias")}
    save_file({**state_with_prefix("generator."), **others}, "model.safetensors")
    assert run(*ARGUMENTS) == 0
    assert "left out: 3\nmatched: 10\n" in capsys.readouterr().out


def test_a_prefix_of_old_mmcv_names_is_found():
    old = {
        name.replace(".conv_offset.", "_offset."): array
        for name, array in state_with_prefix("module.").items()
    }
    _, report = convert.convert_state(old, SmallNet())
    assert (report.complete, report.prefix) == (True, "module.")


def test_names_that_match_as_they_stand_stay_so(user_folder, capsys):
    zeros = {name: np.zeros_like(array) for name, array in state_with_prefix("module.").items()}
    parameters, report = convert.convert_state({**small_state(), **zeros}, SmallNet())
    assert (len(report.matched), report.prefix) == (10, "")
    assert report.unexpected[0] == "module.conv1.weight (4, 3, 3, 3)"
    np.testing.assert_array_equal(parameters["conv1.bias"].asnumpy(), small_state()["conv1.bias"])


def test_a_prefix_that_names_little_of_the_network_is_none():
    state = {"block.conv1.weight": np.zeros((4, 3, 3, 3)), "block.conv1.bias": np.zeros(4)}
    _, report = convert.convert_state(state, SmallNet())
    assert (report.matched, report.prefix) == ([], "")
    assert len(report.unexpected) == 2


@pytest.fixture
def two_generators(user_folder):
    state = state_with_prefix("generator.")
    zeros = {name: np.zeros_like(a) for name, a in state_with_prefix("generator_ema.").items()}
    save_file({**state, **zeros}, "model.safetensors")


def test_of_several_prefixes_one_must_be_named(two_generators, capsys):
    assert run(*ARGUMENTS) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "convert: the network's names come after each of ['generator.', 'generator_ema.'] in the "
        "checkpoint; choose one: --prefix generator."
    ]


@pytest.mark.parametrize("prefix", ["generator_ema.", "generator_ema"])
def test_the_prefix_that_is_named_is_taken(two_generators, capsys, prefix):
    assert run(*ARGUMENTS, "--prefix", prefix) == 0
    assert "prefix found" not in capsys.readouterr().out
    assert not ms.load_checkpoint("model.ckpt")["deform.weight"].asnumpy().any()


def test_a_prefix_that_is_named_overrides_the_one_that_would_be_found(user_folder, capsys):
    save_file(state_with_prefix("module."), "model.safetensors")
    assert run(*ARGUMENTS, "--prefix", "module.deform.") == 1
    assert "matched: 0\n" in capsys.readouterr().out
    assert run(*ARGUMENTS, "--prefix", "critic.") == 1
    told = capsys.readouterr().err
    assert "no parameter has a name that begins with critic., they begin with ['module']" in told


class NetWithBuffers(nn.Cell):
    """As SpyNet has its mean: a buffer of each kind, and a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, has_bias=True)
        self.std = ms.Parameter(ms.Tensor(np.ones((1, 3, 1, 1), np.float32)), requires_grad=False)
        self.register_buffer("mean", ms.Tensor(np.zeros((1, 3, 1, 1), np.float32)))
        self.register_buffer("grid", ms.Tensor(np.zeros(5, np.float32)), persistent=False)

    def construct(self, x):
        return self.conv((x - self.mean) / self.std)


BUFFER_STATE = {
    "conv.weight": random_array((4, 3, 1, 1)),
    "conv.bias": random_array((4,), 1),
    "mean": random_array((1, 3, 1, 1), 2),
    "std": random_array((1, 3, 1, 1), 3),
}


def test_buffers_arrive_by_the_line_that_is_printed(user_folder, capsys):
    save_file(BUFFER_STATE, "model.safetensors")
    assert run("model.safetensors", "--net", "test_convert:NetWithBuffers", "-o", "m.ckpt") == 0
    printed = capsys.readouterr().out
    assert "matched: 4\nmissing, in the network only: 0\nunexpected, in the checkpoint only: 0" in (
        printed
    )
    (line,) = (line for line in printed.splitlines() if line.startswith("buffers in it: 1"))
    (statement,) = re.findall(r"net\.load_state_dict\(.*False\)", line)
    net = NetWithBuffers()
    exec(statement, {"net": net, "mindspore": ms})
    for name in BUFFER_STATE:
        tensor = net.state_dict()[name]
        np.testing.assert_array_equal(tensor.asnumpy(), BUFFER_STATE[name])


def test_nothing_is_said_of_buffers_where_there_are_none(user_folder, capsys):
    assert run(*ARGUMENTS) == 0
    assert "buffers" not in capsys.readouterr().out


def test_a_missing_buffer_is_missing_but_for_those_that_no_checkpoint_holds():
    state = {name: array for name, array in BUFFER_STATE.items() if name != "mean"}
    _, report = convert.convert_state(state, NetWithBuffers())
    assert report.missing == ["mean (1, 3, 1, 1)"]


def can_make_instance_norms() -> bool:
    try:
        return isinstance(nn.InstanceNorm2d(4), nn.Cell)
    except AttributeError:  # MindSpore 2.7's does not find its operator
        return False


with_instance_norms = pytest.mark.skipif(
    not can_make_instance_norms(), reason="this MindSpore's InstanceNorm cannot be made"
)


@pytest.mark.parametrize(
    ("norm", "theirs"),
    [
        pytest.param(
            lambda: nn.InstanceNorm2d(4),
            ["weight", "bias"],
            marks=with_instance_norms,
        ),
        pytest.param(
            lambda: nn.InstanceNorm2d(4, affine=False),
            [],
            marks=with_instance_norms,
        ),
        (lambda: nn.BatchNorm2d(4, affine=False), ["running_mean", "running_var"]),
        (lambda: nn.GroupNorm(2, 4, affine=False), []),
    ],
    ids=["InstanceNorm2d", "no weights", "BatchNorm2d, no weights", "GroupNorm, no weights"],
)
def test_what_pytorchs_norms_do_not_hold_is_not_missing(norm, theirs):
    net = nn.SequentialCell(nn.Conv2d(3, 4, 1), norm())
    state = {f"1.{name}": random_array((4,), seed) for seed, name in enumerate(theirs)}
    state["0.weight"] = random_array((4, 3, 1, 1))
    parameters, report = convert.convert_state(state, net)
    assert report.complete, str(report)
    assert len(report.matched) == len(state)
    assert ms.load_param_into_net(net, parameters, strict_load=True) == ([], [])


def test_statistics_of_a_batch_norm_are_missing():
    _, report = convert.convert_state({"weight": np.ones(4), "bias": np.ones(4)}, nn.BatchNorm2d(4))
    assert report.missing == ["running_mean (4,)", "running_var (4,)"]


@with_instance_norms
def test_weights_of_an_instance_norm_that_has_some_are_missing():
    _, report = convert.convert_state({}, nn.InstanceNorm2d(4))
    assert report.missing == ["weight (4,)", "bias (4,)"]


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
@pytest.mark.parametrize(
    ("entries", "key", "chosen"),
    [
        (("params", "params_ema"), (), "params_ema"),
        (("params", "params_ema"), ("--key", "params"), "params"),
        (("params_ema", "params"), ("--key", "params_ema"), "params_ema"),
        (("params",), (), "params"),
        (("encoder", "decoder"), ("--key", "decoder"), "decoder"),
    ],
)
def test_the_entry_with_the_parameters_is_the_only_one_or_the_average_or_the_key(
    user_folder, capsys, entries, key, chosen
):
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in small_state().items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    content = {entry: tensors if entry == chosen else zeros for entry in entries}
    torch.save({"iter": 7, **content}, "model.pth")
    assert run("model.pth", *ARGUMENTS[1:], *key) == 0
    weight = ms.load_checkpoint("model.ckpt")["deform.weight"].asnumpy()
    np.testing.assert_array_equal(weight, small_state()["deform.weight"])
    said = "key: params_ema, preferred to params; --key params takes the other\n"
    assert (said in capsys.readouterr().out) == (len(entries) == 2 and not key)


@pytest.mark.needs("torchvision")
def test_of_several_entries_one_must_be_chosen(user_folder, capsys):
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in small_state().items()}
    torch.save({"encoder": tensors, "decoder": tensors}, "model.pth")
    for key, message in (
        ((), "2 sets of parameters, under ['encoder', 'decoder']; choose one with --key"),
        (("--key", "head"), "under 'head', expected one of ['encoder', 'decoder']"),
    ):
        assert run("model.pth", *ARGUMENTS[1:], *key) == 1
        assert message in capsys.readouterr().err


def test_a_key_goes_with_a_file_that_has_entries(user_folder, capsys):
    assert run(*ARGUMENTS, "--key", "params") == 1
    told = capsys.readouterr().err
    assert "no parameters under 'params', there is one set: leave it out" in told


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


def test_help_shows_every_option_in_an_example_that_parses(user_folder, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        run("--help")
    shown = capsys.readouterr().out
    usage, _, examples = shown.partition("\nexamples:\n")
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage)) - {"-h", "--help", "-m"}
    assert options >= {"-o", "--output", "--net", "--key", "--prefix", "--partial"}
    assert options <= set(examples.split())
    calls = []
    monkeypatch.setattr(convert, "run", lambda **arguments: calls.append(arguments) or 0)
    for line in examples.strip().splitlines():
        assert main(shlex.split(line.partition("python -m ms_deform ")[2])) == 0
    assert len(calls) == len(examples.strip().splitlines()) > 3


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
