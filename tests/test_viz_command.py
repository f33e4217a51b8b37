# SPDX-License-Identifier: Apache-2.0
"""`python -m ms_deform viz` draws a network on an image file, or says in one line why not."""

from __future__ import annotations

import re
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

from ms_deform import viz
from ms_deform.__main__ import main
from ms_deform.viz import command
from ms_deform.viz.panels import new_figure

pytestmark = [
    pytest.mark.needs("matplotlib", "PIL"),
    pytest.mark.usefixtures("scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's Pad"),
]

NET = """
from mindspore import nn, ops

from ms_deform import DeformConv2dPack, ModulatedDeformConv2dPack

made = []
inputs = []


class Net(nn.Cell):
    def __init__(self, channels=3):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.align = ModulatedDeformConv2dPack(channels, channels, 3, padding=1)
        self.last = DeformConv2dPack(channels, 4, 1, deform_groups=channels)
        made.append(self)

    def construct(self, x):
        inputs.append(x.asnumpy())
        return self.last(self.align(self.align(self.norm(x))))


def plain():
    return nn.ReLU()


class Idle(Net):
    def construct(self, x):
        return x


class Shifted(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", ops.zeros((1,)))

    def construct(self, x):
        return super().construct(x + self.shift)


class Headed(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(4, 4, 1, has_bias=True)


class Pair(Net):
    def construct(self, x, other):
        return self.align(x + other)
"""


@pytest.fixture
def user_net(tmp_path, monkeypatch):
    """The user's files where the command runs: networks, an image, a checkpoint."""
    from PIL import Image

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "user_net", raising=False)
    (tmp_path / "user_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    import user_net

    Image.fromarray(pixels()).save("picture.png")
    net = user_net.Net()
    for parameter in net.get_parameters():
        parameter.set_data(ms.Tensor(np.random.rand(*parameter.shape).astype(np.float32)))
    ms.save_checkpoint(net, "net.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(b"\x12\x34 no checkpoint")
    (tmp_path / "text.png").write_text("no image")
    return user_net


def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)


@pytest.fixture
def figures(monkeypatch):
    """What the command draws, which is not written."""
    drawn = []

    def plot_layers(*arguments, **options):
        figure = viz.plot_layers(*arguments, **options)
        monkeypatch.setattr(figure, "savefig", lambda path: None)
        drawn.append(figure)
        return figure

    monkeypatch.setattr(command, "plot_layers", plot_layers)
    return drawn


@pytest.fixture
def blank(monkeypatch):
    """For tests of what comes before the picture, which takes long."""
    monkeypatch.setattr(command, "plot_layers", lambda *arguments, **options: new_figure())


def run(*arguments: str, picture: str = "picture.png", net: str = "user_net:Net") -> int:
    return main(["viz", picture, "--net", net, "-o", "layers.png", *arguments])


def titles(figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def test_from_the_shell_a_picture_is_written_and_every_layer_is_named(user_net):
    from matplotlib.image import imread

    line = "-m ms_deform viz picture.png --net user_net.py:Net --checkpoint net.ckpt -o layers.png"
    done = subprocess.run([sys.executable, *line.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "align: calls: 2, offset groups: 1",
        "last: calls: 1, offset groups: 3",
        "wrote layers.png",
    ]
    assert imread("layers.png").shape[1] == 1660


def test_the_network_sees_the_image_between_0_and_1(user_net, blank):
    assert run() == 0
    np.testing.assert_allclose(
        user_net.inputs[-1], pixels().transpose(2, 0, 1)[None] / 255, rtol=1e-6
    )


def test_mean_and_std_are_of_the_image_between_0_and_1(user_net, blank):
    assert run("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225") == 0
    expected = (pixels() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
        user_net.inputs[-1], expected.transpose(2, 0, 1)[None], rtol=1e-5, atol=1e-6
    )


def test_size_resizes_the_image(user_net, figures):
    assert run("--size", "6,10") == 0
    assert user_net.inputs[-1].shape == (1, 3, 6, 10)
    shown = figures[0].axes[0].images[0].get_array()
    np.testing.assert_allclose(shown.transpose(2, 0, 1), user_net.inputs[-1][0])


def test_a_gray_image_has_one_channel(user_net, blank):
    assert run("--gray", "--mean", "0.5", net="user_net:Net(channels=1)") == 0
    expected = pixels() @ [0.299, 0.587, 0.114] / 255 - 0.5
    np.testing.assert_allclose(user_net.inputs[-1][0, 0], expected, atol=0.005)


def test_the_checkpoints_parameters_are_in_the_network(user_net, blank):
    assert run("--checkpoint", "net.ckpt") == 0
    saved = ms.load_checkpoint("net.ckpt")
    loaded = user_net.made[-1].parameters_dict()
    assert len(loaded) == 11
    for name, parameter in loaded.items():
        np.testing.assert_array_equal(parameter.asnumpy(), saved[name].asnumpy())


def test_the_checkpoints_buffers_are_in_the_network(user_net, blank):
    shift = ms.Parameter(ms.Tensor([7.0], ms.float32), name="shift")
    entries = [
        {"name": entry.name, "data": entry}
        for entry in (shift, *user_net.made[-1].get_parameters())
    ]
    ms.save_checkpoint(entries, "shifted.ckpt")
    assert run("--checkpoint", "shifted.ckpt", net="user_net:Shifted") == 0
    expected = pixels().transpose(2, 0, 1)[None] / 255 + 7
    np.testing.assert_allclose(user_net.inputs[-1], expected, rtol=1e-6)


def test_layer_call_and_offset_group_are_chosen(user_net, figures):
    assert run("--layer", "align", "--call", "all") == 0
    assert run("--layer", "align", "--call", "0") == 0
    assert run("--layer", "last", "--group", "1") == 0
    calls, first, group = map(titles, figures)
    rest = " of 0 to 1 · kernel 3 x 3 · input 12 x 20"
    assert calls == [f"align · call 0{rest}", f"align · call 1{rest}"]
    assert first == [f"align · call 0{rest}"]
    assert group == ["last · offset group 1 of 0 to 2 · kernel 1 x 1 · input 12 x 20"]


@pytest.mark.parametrize(
    "options, told",
    (
        ({"picture": "none.png"}, "there is no file none.png"),
        ({"picture": "text.png"}, "text.png cannot be read as an image .* JPEG or PNG"),
        ({"picture": "."}, r"\. cannot be read as an image"),
        ({"net": "user_net:none"}, "no factory 'user_net:none'"),
        ({"net": "user_net:plain"}, "'net' has no deformable layer: .* by --net"),
        ({"net": "user_net:Idle"}, "'records' holds no call"),
        ({"net": "user_net:Pair"}, r"fails on an input of shape \(1, 3, 12, 20\): TypeError"),
        ({"net": "user_net:Net(1)"}, r"fails on an input of shape \(1, 3, 12, 20\): .*--gray"),
        (("--checkpoint", "none.ckpt"), "there is no file none.ckpt"),
        (("--checkpoint", "net.pth"), "must be a .ckpt .* `python -m ms_deform convert`"),
        (("--checkpoint", "damaged.ckpt"), "damaged.ckpt cannot be read as a checkpoint"),
        (("--mean", "0.5,0.5"), "--mean must have a number for each of 3 channels, .* got 2"),
        (("--std", "0"), "--std must be greater than 0, got 0.0"),
        (("--layer", "first"), r"no deformable layer 'first', expected one of \['align', 'last'\]"),
        (("--group", "1"), "'offset_group' must be .* 'align', 0 to 0, got 1; --layer"),
        (("--call", "2"), "'call' must be .* 2 calls of layer 'align', -2 to 1, got 2; --layer"),
        (("-o", "none/layers.png"), "there is no folder none; make it: mkdir -p none"),
        (("-o", "layers.none"), "layers.none cannot be written .* by --output"),
    ),
)
def test_what_is_wrong_is_one_line_with_a_mend(user_net, capsys, options, told):
    done = run(**options) if isinstance(options, dict) else run(*options)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("viz: ")]
    assert (done, len(errors)) == (1, 1)
    assert re.search(told, errors[0]), errors[0]


@pytest.mark.parametrize(
    "net, told",
    (
        ("user_net:Net(4)", r"norm.moving_mean is \(3,\) in the checkpoint, \(4,\) in the network"),
        ("user_net:Headed", "2 of its 13 parameters are not in it, the first is head.weight"),
    ),
)
def test_a_checkpoint_that_does_not_fit_is_refused(user_net, capsys, net, told):
    assert run("--checkpoint", "net.ckpt", net=net) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("viz: net.ckpt does not fit the network: ")
    assert re.search(told, error), error


def test_without_matplotlib_nothing_runs_and_it_is_named(user_net, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run() == 1
    assert capsys.readouterr().err.startswith('viz: ms_deform.viz: needs matplotlib: pip install "')
    assert not user_net.inputs
