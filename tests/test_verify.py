# SPDX-License-Identifier: Apache-2.0
"""`python -m ms_deform verify` tells a right port from a wrong one, and names what is wrong."""

from __future__ import annotations

import re
import shlex
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from ms_deform import DeformConv2d, deformable_conv2d
from ms_deform.__main__ import main
from networks import random_array

WHY = "needs torch and torchvision: pip install '.[parity]'"
torch = pytest.importorskip("torch", reason=WHY)
torchvision = pytest.importorskip("torchvision", reason=WHY)
# They import torch.
command = import_module("ms_deform.port.verify")
culprits = import_module("ms_deform.port.culprits").culprits
relative_error = import_module("ms_deform.port.layers").relative_error

pytestmark = [
    pytest.mark.usefixtures("scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("PyTorch's networks are on the CPU"),
]
TNN, F = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def mode_as_before():
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


# One network that is ported rightly, with what a port must say in words of its own: padding, bias,
# a repeated layer, a branch of functions, a deformable layer.


class TorchNet(TNN.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = TNN.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = TNN.BatchNorm2d(8)
        self.body = TNN.Sequential(TNN.Conv2d(8, 8, 1), TNN.ReLU(inplace=True))
        self.offset = TNN.Conv2d(8, 27, 3, padding=1)
        self.deform = torchvision.ops.DeformConv2d(8, 4, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = self.body(self.body(x))
        predicted = self.offset(x)
        return self.deform(x, predicted[:, :18], torch.sigmoid(predicted[:, 18:]))


class Net(nn.Cell):
    def __init__(self, momentum: float = 0.9, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=stride, pad_mode="pad", padding=1, has_bias=True)
        self.norm = nn.BatchNorm2d(8, momentum=momentum)
        self.body = nn.SequentialCell(nn.Conv2d(8, 8, 1, has_bias=True), nn.ReLU())
        self.offset = nn.Conv2d(8, 27, 3, pad_mode="pad", padding=1, has_bias=True)
        self.deform = DeformConv2d(8, 4, 3, padding=1)

    def construct(self, x):
        x = ops.relu(self.norm(self.conv(x)))
        x = self.body(self.body(x))
        predicted = self.offset(x)
        return self.deform(x, predicted[:, :18], ops.sigmoid(predicted[:, 18:]))


@pytest.fixture
def verify(capsys):
    """A function that runs the command on two factories of this file: its status and its words."""

    def run(theirs: str, ours: str, *options: str, checkpoint: tuple = ()) -> tuple[int, str]:
        inputs = () if "--inputs" in options or "--input" in options else ("--input", "2,3,8,12")
        theirs = theirs if ":" in theirs else f"test_verify:{theirs}"
        names = "--torch", theirs, "--net", f"test_verify:{ours}"
        status = main(["verify", *checkpoint, *names, *inputs, *options])
        printed, told = capsys.readouterr()
        assert len(told.splitlines()) <= 1, told
        return status, printed + told

    return run


def rows(printed: str) -> dict[str, float]:
    """The error that the table gives for what each layer puts out."""
    found = re.findall(r"^(\S+(?: #\d+)?) +\w+ +\S+ +(inf|\d\S+) +!? *\(", printed, re.MULTILINE)
    return {name: float(error) for name, error in found}


def test_a_right_port_passes_in_all_that_can_be_asked(verify):
    everything = ("--gradients", "--steps", "3", "--graph-mode")
    status, printed = verify("TorchNet", "Net", *everything)
    assert status == 0, printed
    assert list(rows(printed)) == [
        *("conv", "norm", "body.0", "body.1", "body", "body.0 #2", "body.1 #2", "body #2"),
        *("offset", "deform", "(network)"),
    ]
    assert max(rows(printed).values()) < 1e-5
    assert "all within 1.0e-04" in printed
    for name in ("input 1", "conv.weight", "norm.bias", "offset.bias", "deform.weight"):
        assert re.search(rf"^{name} +\d\.\de-0[5-9]$", printed, re.MULTILINE), name
    assert re.search(r"^   3 +\d", printed, re.MULTILINE)
    assert "! out of tolerance" not in printed
    assert "culprit" not in printed and "note" not in printed


class TorchFunction(TNN.Module):
    """A layer of PyTorch's that is a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# What is often ported wrongly: PyTorch's layer, the cell, and the words of its culprit.
UP = {"scale_factor": 2.0, "mode": "bilinear"}
LAYERS = {
    "eps of a batch norm": (
        lambda: TNN.BatchNorm2d(8),
        partial(nn.BatchNorm2d, 8, eps=1e-3),
        "eps is 0.001, PyTorch's 1e-05: write eps=1e-05",
    ),
    "eps of a group norm": (
        lambda: TNN.GroupNorm(2, 8, eps=1e-2),
        partial(nn.GroupNorm, 2, 8),
        "eps is 1e-05, PyTorch's 0.01: write eps=0.01",
    ),
    "align_corners": (
        lambda: TNN.Upsample(**UP, align_corners=True),
        partial(nn.Upsample, **UP, align_corners=False, recompute_scale_factor=True),
        "align_corners is False, PyTorch's True: write align_corners=True",
    ),
    "slope": (TNN.LeakyReLU, partial(nn.LeakyReLU), "0.2 and 0.01: write alpha=0.01"),
    "GELU": (
        TNN.GELU,
        partial(nn.GELU),
        "approximate is True, PyTorch's False: write approximate=False",
    ),
    "pad_mode": (
        lambda: TNN.Conv2d(8, 6, 3, stride=2, padding=1),
        partial(nn.Conv2d, 8, 6, 3, stride=2, has_bias=True),
        'write pad_mode="pad", padding=1',
    ),
    "pad_mode, two axes": (
        lambda: TNN.Conv2d(8, 6, (3, 5), stride=2, padding=(1, 2)),
        partial(nn.Conv2d, 8, 6, (3, 5), stride=2, has_bias=True),
        'write pad_mode="pad", padding=(1, 1, 2, 2)',
    ),
    "padding": (
        lambda: TNN.Conv2d(8, 6, 5, padding=(1, 2)),
        partial(nn.Conv2d, 8, 6, 5, pad_mode="pad", padding=(2, 2, 1, 1), has_bias=True),
        'PyTorch\'s (1, 2): write pad_mode="pad", padding=(1, 1, 2, 2)',
    ),
    "stride": (
        lambda: TNN.Conv2d(8, 6, 1, stride=2),
        partial(nn.Conv2d, 8, 6, 1, has_bias=True),
        "stride is (1, 1), PyTorch's (2, 2): write stride=2",
    ),
    "dilation": (
        lambda: TNN.Conv2d(8, 6, 3, padding=2, dilation=2),
        partial(nn.Conv2d, 8, 6, 3, pad_mode="pad", padding=2, has_bias=True),
        "dilation is (1, 1), PyTorch's (2, 2): write dilation=2",
    ),
    "padding of a transposed convolution": (
        lambda: TNN.ConvTranspose2d(8, 6, 4, 2, 1),
        partial(nn.Conv2dTranspose, 8, 6, 4, 2, pad_mode="pad", padding=0, has_bias=True),
        'padding is 0, PyTorch\'s (1, 1): write pad_mode="pad", padding=1',
    ),
    "stride of a pooling": (
        lambda: TNN.MaxPool2d(2),
        partial(nn.MaxPool2d, 2),
        "stride is 1, which is 1 by default, PyTorch's 2: write stride=2",
    ),
    "padding of a pooling": (
        lambda: TNN.AvgPool2d(3, 1, 1),
        partial(nn.AvgPool2d, 3),
        'pad_mode="valid" pads nothing: write pad_mode="pad", padding=1',
    ),
    "ceil_mode of a pooling": (
        lambda: TNN.MaxPool2d(3, 2, ceil_mode=True),
        partial(nn.MaxPool2d, 3, 2),
        'write pad_mode="pad", padding=0, ceil_mode=True',
    ),
    "padding by reflection": (
        lambda: TNN.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"),
        partial(nn.Conv2d, 8, 6, 3, pad_mode="pad", padding=1, has_bias=True),
        "pads with 'reflect', MindSpore's convolutions with zeros",
    ),
    "tanh on a CPU": (
        TNN.Tanh,
        partial(nn.Tanh),
        "MindSpore's tanh on a CPU is off by up to 1e-4",
    ),
}
# The same where a function stands between two layers, or in a cell of the user's own.
FUNCTIONS = {
    "align_corners": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: ops.interpolate(x, (16, 24), mode="bilinear", align_corners=True),
        "resized with align_corners=True, PyTorch with align_corners=False",
    ),
    "pixel shuffle": (
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: ops.DepthToSpace(2)(x),
        "[r, r, C], PyTorch's is [C, r, r]: ops.pixel_shuffle has it",
    ),
    "pixel unshuffle": (
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: ops.SpaceToDepth(2)(x),
        "[r, r, C], PyTorch's is [C, r, r]: ops.pixel_unshuffle has it",
    ),
    "slope": (
        lambda x: F.leaky_relu(x, 0.1),
        lambda x: ops.leaky_relu(x),
        "a leaky ReLU with a slope of 0.2, PyTorch's has 0.1",
    ),
    "GELU": (
        lambda x: F.gelu(x),
        lambda x: ops.gelu(x, approximate="tanh"),
        "GELU by tanh, PyTorch's is exact: approximate=False",
    ),
    "tanh on a CPU": (
        lambda x: torch.tanh(x),
        lambda x: ops.tanh(x),
        "MindSpore's tanh on a CPU is off by up to 1e-4",
    ),
    "what nobody knows": (lambda x: torch.relu(x), lambda x: x, None),
}


class TorchLayers(TNN.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before = TNN.Conv2d(3, 8, 1)
        self.layer = LAYERS[kind][0]()

    def forward(self, x):
        return self.layer(self.before(x))


class Layers(nn.Cell):
    def __init__(self, kind: str, mend: str = "") -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 1, has_bias=True)
        self.layer = LAYERS[kind][1](**eval(f"dict({mend})"))

    def construct(self, x):
        return self.layer(self.before(x))


class TorchFunctions(TNN.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before = TNN.Conv2d(3, 8, 1)
        self.function = FUNCTIONS[kind][0]
        self.after = TNN.Sequential(TNN.Dropout(0.5))

    def forward(self, x):
        return self.after(self.function(self.before(x)))


class Functions(nn.Cell):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 1, has_bias=True)
        self.function = FUNCTIONS[kind][1]
        self.after = nn.SequentialCell(nn.Dropout(p=0.5))

    def construct(self, x):
        return self.after(self.function(self.before(x)))


def inputs_that_show(kind: str) -> tuple[str, str]:
    """Numbers, larger ones for tanh, as options."""
    scale = 20 if "tanh" in kind else 1
    np.savez("inputs.npz", (scale * random_array((2, 3, 8, 12))).astype(np.float32))
    return "--inputs", "inputs.npz"


@pytest.mark.parametrize("kind", LAYERS)
def test_the_first_layer_that_is_wrong_is_named_with_its_culprit_and_a_mend_that_works(
    verify, kind
):
    options = (*inputs_that_show(kind), "--tolerance", "5e-5")
    status, printed = verify(f"TorchLayers({kind!r})", f"Layers({kind!r})", *options)
    assert status == 1
    kind_of_cell = type(LAYERS[kind][1]()).__name__
    assert f"first out of tolerance (5.0e-05): layer ({kind_of_cell}), " in printed
    (culprit,) = re.findall(r"^known culprit: (.*)$", printed, re.MULTILINE)
    assert LAYERS[kind][2] in culprit
    assert rows(printed)["before"] < 1e-5 < rows(printed)["layer"]
    _, written, mend = culprit.partition(": write ")
    assert bool(written) == (kind not in ("padding by reflection", "tanh on a CPU"))
    if written:
        status, printed = verify(f"TorchLayers({kind!r})", f"Layers({kind!r}, {mend!r})", *options)
        assert (status, "note" in printed) == (0, False), printed


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_wrong_function_is_placed_between_two_layers_and_recognised(verify, kind):
    options = (*inputs_that_show(kind), "--tolerance", "2e-5")
    status, printed = verify(f"TorchFunctions({kind!r})", f"Functions({kind!r})", *options)
    assert status == 1
    place = "between before and after, in construct of the network (Functions), "
    assert f"first out of tolerance (2.0e-05): {place}" in printed
    culprits = re.findall(r"^known culprit: (.*)$", printed, re.MULTILINE)
    if FUNCTIONS[kind][2] is None:
        assert culprits == []
        assert "no known culprit: compare what both networks compute there" in printed
    else:
        assert len(culprits) == 1 and FUNCTIONS[kind][2] in culprits[0]


# Where no trial fits, as more is done there: what is known of a function that construct calls.
GRID = 2 * random_array((2, 8, 12, 2))


class GridSample(nn.Cell):
    def construct(self, x):
        return ops.grid_sample(x, ms.Tensor(GRID))


class Leaky(nn.Cell):
    def construct(self, x):
        return 3 * ops.leaky_relu(x)


class Tanh(nn.Cell):
    def construct(self, x):
        return 3 * ops.tanh(x)


SUSPECTS = {
    "GridSample": (
        lambda x: F.grid_sample(x, torch.from_numpy(GRID), align_corners=True),
        "suspect: align_corners and the modes of grid_sample must be PyTorch's",
    ),
    "Leaky": (
        lambda x: 3 * F.leaky_relu(x),
        "suspect: the slope of ops.leaky_relu is 0.2 by default, PyTorch's 0.01",
    ),
    "Tanh": (lambda x: 3 * torch.tanh(x), "suspect: MindSpore's tanh on a CPU is off by up to"),
}


@pytest.mark.parametrize("kind", SUSPECTS)
def test_functions_that_construct_calls_are_suspected(verify, kind):
    options = (*inputs_that_show(kind.lower()), "--tolerance", "2e-5")
    status, printed = verify(f"suspicious({kind!r})", kind, *options)
    assert status == 1
    assert f"first out of tolerance (2.0e-05): (network) ({kind}), " in printed
    assert SUSPECTS[kind][1] in printed
    assert "known culprit" not in printed


def suspicious(kind):
    return TorchFunction(SUSPECTS[kind][0])


def test_tanh_is_not_suspected_of_an_error_that_it_cannot_make(verify):
    status, printed = verify("torch.nn:ReLU", "Tanh")
    assert status == 1
    assert "no known culprit: compare what both networks compute there\n" in printed


# What shows in training alone.


def test_a_wrong_momentum_is_noted_and_shows_in_the_statistics_after_training(verify):
    status, printed = verify("TorchNet", "Net(momentum=0.1)")
    words = "momentum is 0.1, PyTorch's 0.1; MindSpore's is one minus PyTorch's: write momentum=0.9"
    assert status == 0
    assert f"note: norm: {words} (seen in training only)\n" in printed
    status, printed = verify("TorchNet", "Net(momentum=0.1)", "--steps", "2")
    assert status == 1
    assert re.search(r"^  norm.running_var: \d", printed, re.MULTILINE)
    assert printed.count(f"known culprit: {words}\n") == 1


class TorchShift(TNN.Module):
    """Offsets come from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.deform = torchvision.ops.DeformConv2d(3, 4, 3, padding=1)

    def forward(self, x, offset):
        return self.deform(x, offset)


class Shift(nn.Cell):
    """A rounding more puts an offset on the other side of an integer."""

    def __init__(self, rounding: float = 0.0) -> None:
        super().__init__()
        self.deform = DeformConv2d(3, 4, 3, padding=1)
        self.rounding = rounding

    def construct(self, x, offset):
        return self.deform(x, offset - self.rounding)


def test_offsets_that_sit_on_an_integer_are_the_known_culprit_of_gradients(verify):
    offset = random_array((2, 18, 8, 12))
    offset[0] = np.round(offset[0])
    np.savez("inputs.npz", random_array((2, 3, 8, 12)), offset)
    options = ("--inputs", "inputs.npz", "--gradients")
    status, printed = verify("TorchShift", "Shift(rounding=1e-6)", *options)
    assert status == 1
    assert "all within 1.0e-04" in printed
    assert "gradients out of tolerance: 1; first, from behind: input 2\n" in printed
    (near,) = re.findall(r"^known culprit: (\d+) of 3456 offsets of deform sit", printed, re.M)
    assert offset[0].size <= int(near) < offset[0].size + 10
    assert verify("TorchShift", "Shift", *options)[0] == 0


class TorchFrozen(TNN.Module):
    """A gradient that is wrong though the output is right."""

    def __init__(self) -> None:
        super().__init__()
        self.first = TNN.Conv2d(3, 4, 1)
        self.last = TNN.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.last(self.first(x))


class Frozen(nn.Cell):
    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1, has_bias=True)
        self.last = nn.Conv2d(4, 4, 1, has_bias=True)
        self.first.weight.requires_grad = not frozen

    def construct(self, x):
        return self.last(ops.stop_gradient(self.first(x)))


def test_gradients_out_of_tolerance_are_named_and_training_is_too(verify):
    status, printed = verify("TorchFrozen", "Frozen", "--gradients", "--steps", "3")
    assert status == 1
    assert "gradients out of tolerance: 3; first, from behind: first.bias\n" in printed
    assert re.search(r"^last.weight +\d.\de-0[5-9]$", printed, re.MULTILINE)
    assert re.search(r"^   1 .*(0\.0e\+00|e-0[5-9])$", printed, re.MULTILINE)
    assert re.search(r"^   3 .* ! out of tolerance$", printed, re.MULTILINE)
    assert "culprit" not in printed


def test_what_one_network_alone_trains_is_named(verify):
    _, printed = verify("TorchFrozen", "Frozen(frozen=True)", "--gradients")
    assert "note: trained in one network only: first.weight (PyTorch)\n" in printed
    assert not re.search("^first.weight ", printed, re.MULTILINE)


def test_more_is_left_out_where_the_outputs_differ(verify):
    status, printed = verify("TorchNet", "Net(stride=1)", "--gradients", "--steps", "1")
    assert status == 1
    assert printed.endswith("left out, as the outputs differ: gradients, steps\n")


# What networks take and give.


class TorchMany(TNN.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.embedding = TNN.Embedding(9, 3)
        self.conv = TNN.Conv2d(3, 4, 1)
        self.form = form

    def forward(self, tokens, x):
        return in_form(self.form, self.conv(x), self.embedding(tokens))


class Many(nn.Cell):
    def __init__(self, form: str, wrong: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 3)
        self.conv = nn.Conv2d(3, 4, 1, has_bias=True)
        self.form = form
        self.wrong = wrong

    def construct(self, tokens, x):
        found = self.embedding(tokens)
        return in_form(self.form, self.conv(x), 2 * found if self.wrong else found)


def in_form(form, first, second):
    if form == "tuple":
        return first, second
    if form == "list":
        return [first, second]
    if form == "dict":
        return {"first": first, "second": second}
    if form == "one":
        return first
    return (first, (second, first))


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "nested"])
def test_each_of_several_outputs_counts_and_inputs_keep_their_dtype(verify, form):
    np.savez("many.npz", np.arange(8, dtype=np.int32).reshape(2, 4), random_array((2, 3, 5, 6)))
    inputs = ("--inputs", "many.npz")
    status, printed = verify(f"TorchMany({form!r})", f"Many({form!r})", *inputs)
    assert status == 0
    assert "inputs: (2, 4) int32, (2, 3, 5, 6) float32\n" in printed
    assert "(2, 4, 5, 6), (2, 4, 3)" in printed
    status, printed = verify(f"TorchMany({form!r})", f"Many({form!r}, wrong=True)", *inputs)
    assert status == 1
    assert "after conv, in construct of the network (Many), 1.0e+00\n" in printed
    status, printed = verify(f"TorchMany({form!r})", "Many('one')", *inputs)
    assert status == 1
    assert "(2, 4, 5, 6), expected (2, 4, 5, 6), (2, 4, 3)" in printed


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_a_loss_takes_all_outputs_and_no_gradient_of_integers(verify, form):
    np.savez("many.npz", np.arange(8, dtype=np.int32).reshape(2, 4), random_array((2, 3, 5, 6)))
    options = ("--inputs", "many.npz", "--gradients", "--steps", "2")
    status, printed = verify(f"TorchMany({form!r})", f"Many({form!r})", *options)
    assert status == 0
    assert "input 1" not in printed
    assert re.search(r"^input 2 ", printed, re.MULTILINE)
    assert re.search(r"^embedding.weight ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.0, -9.0], [0.0, -10.0], 0.1),
        ([1e-3], [0.0], 1e-3),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [np.inf, 2.0], 0.5),
        ([np.nan], [1.0], np.inf),
        ([1.0], [np.nan], np.inf),
        ([np.inf], [-np.inf], np.inf),
        ([1.0], [[1.0]], np.inf),
        ([True, False], [True, True], 1.0),
        ([1 + 1j], [1 - 1j], 2 / np.sqrt(2)),
        ([], [], 0.0),
    ],
)
def test_the_relative_error_is_the_largest_difference_over_the_largest_value(
    actual, expected, error
):
    assert relative_error(np.array(actual), np.array(expected)) == pytest.approx(error)


# Names, and what a user may get wrong: one line with what to do.


def test_a_checkpoint_gives_both_their_weights(verify):
    net = TorchNet()
    state = {f"generator.{name}": tensor for name, tensor in net.state_dict().items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"params": state, "optimizer": {"state": {"lr": torch.ones(1)}}}, "net.pth")
    status, printed = verify("TorchNet", "Net", "--key", "params", checkpoint=("net.pth",))
    assert status == 0
    found = "prefix found: generator. (--prefix takes another)\n"
    assert printed.startswith(f"weights: net.pth\n{found}parameters that match: 12\n")
    torch.save({**state, **{f"ema.{name}": value for name, value in other.items()}}, "net.pth")
    options = ("--prefix", "ema.generator.")
    _, zeros = verify("TorchNet", "Net", *options, checkpoint=("net.pth",))
    assert set(rows(zeros).values()) == {0.0}


class TorchWrapped(TNN.Module):
    """The network as a part of another, as DataParallel has it."""

    def __init__(self) -> None:
        super().__init__()
        self.module = TorchNet()

    def forward(self, x):
        return self.module(x)


class TorchWithout(TorchWrapped):
    """Whose part is never called."""

    def forward(self, x):
        return x


def test_a_part_of_pytorchs_network_is_found_by_its_prefix(verify):
    status, printed = verify("TorchWrapped", "Net", "--gradients", "--steps", "1")
    assert status == 0, printed
    assert len(rows(printed)) == 11
    assert re.search(r"^conv.weight ", printed, re.MULTILINE)
    assert "running means and variances after it, 2: " in printed
    status, printed = verify("TorchWithout", "Net")
    assert status == 1
    assert "test_verify:TorchWithout does not call module, which test_verify:Net is" in printed


class TorchBlocks(TNN.Module):
    """A layer where the port has a function, and one that only PyTorch calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = TNN.Conv2d(3, 4, 1)
        self.act = TNN.ReLU()
        self.drop = TNN.Dropout(0.1)

    def forward(self, x):
        return self.drop(self.act(self.conv(x)))


class Blocks(nn.Cell):
    def __init__(self, has_bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, has_bias=has_bias)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(p=0.1)

    def construct(self, x):
        return self.relu(self.conv(x))


def test_layers_and_calls_of_one_network_only_are_named(verify):
    status, printed = verify("TorchBlocks", "Blocks")
    assert status == 0
    assert "layers in PyTorch only: act (ReLU)\n" in printed
    assert "layers in MindSpore only: relu (ReLU)\n" in printed
    assert "calls in PyTorch only: drop\n" in printed


def test_a_missing_bias_stops_it_unless_the_rest_is_to_be_compared(verify):
    status, printed = verify("TorchBlocks", "Blocks(has_bias=False)")
    words = "it has no bias, which PyTorch's has by default: write has_bias=True\n"
    assert status == 1
    assert "unexpected, in PyTorch's network only: 1\n  conv.bias (4,)\n" in printed
    assert f"note: conv: {words}" in printed
    assert "give both the same layers, or compare the rest by --partial\n" in printed
    assert rows(printed) == {}
    status, printed = verify("TorchBlocks", "Blocks(has_bias=False)", "--partial")
    assert status == 1
    assert "first out of tolerance (1.0e-04): conv (Conv2d), " in printed
    assert f"known culprit: {words}" in printed


class TorchPacked(TNN.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_offset = TNN.Conv2d(3, 27, 3, padding=1)
        self.weight = TNN.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        predicted = self.conv_offset(x)
        offset, mask = predicted[:, :18], predicted[:, 18:]
        return torchvision.ops.deform_conv2d(x, offset, self.weight, None, padding=1, mask=mask)


class Packed(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.conv_offset = nn.Conv2d(3, 27, 3, pad_mode="pad", padding=1, has_bias=True)
        self.weight = ms.Parameter(ms.Tensor(np.zeros((4, 3, 3, 3), np.float32)))

    def construct(self, x):
        packed = self.conv_offset(x)
        return deformable_conv2d(x, self.weight, packed, (3, 3), (1, 1, 1, 1), (1, 1, 1, 1))


def test_packed_offsets_are_compared_in_their_order(verify):
    options = ("--packed-offsets", "--gradients", "--steps", "2")
    status, printed = verify("TorchPacked", "Packed", *options)
    assert status == 0, printed
    assert rows(printed)["conv_offset"] < 1e-5


class TorchFlat(TNN.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = TNN.MaxPool2d(2)
        self.head = TNN.Linear(3 * 4 * 6, 2)

    def forward(self, x):
        return self.head(self.pool(x).flatten(1))


class Flat(nn.Cell):
    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, stride)
        self.head = nn.Dense(3 * 4 * 6, 2)

    def construct(self, x):
        return self.head(self.pool(x).flatten(start_dim=1))


def test_a_port_that_fails_after_it_differed_is_told_where_it_differed(verify):
    status, printed = verify("TorchFlat", "Flat")
    assert status == 1
    assert "first out of tolerance (1.0e-04): pool (MaxPool2d), inf\n" in printed
    assert "known culprit: stride is 1" in printed
    assert printed.splitlines()[-1].startswith("verify: test_verify:Flat fails, mend it there: ")


def instance_norm():
    return nn.InstanceNorm2d(3, affine=False)


def test_an_instance_norm_fails_on_a_cpu_and_what_stands_in_for_it_is_noted(verify):
    try:
        instance_norm()
    except AttributeError:
        pytest.skip("this MindSpore's InstanceNorm cannot be made")
    status, printed = verify("torch.nn:InstanceNorm2d(3)", "instance_norm")
    assert status == 1
    assert "write nn.GroupNorm instead, nn.GroupNorm(3, 3, affine=False)\n" in printed
    assert "all within" not in printed
    assert verify("torch.nn:InstanceNorm2d(3)", "group_norm")[0] == 0


def group_norm():
    return nn.GroupNorm(3, 3, affine=False)


class Failing(TNN.Module):
    def forward(self, x):
        raise KeyError("nothing here")


def broken(x):
    return 1 / 0


class FailingCell(nn.Cell):
    def construct(self, x):
        return broken(x)


class OnlyPyNative(nn.Cell):
    """Graph mode does not know such a class."""

    def construct(self, x):
        with open("net.txt", "w"):
            return x


@pytest.mark.parametrize(
    ("theirs", "ours", "options", "words"),
    [
        ("Net", "Net", (), "--torch: test_verify:Net must return a Module of PyTorch's, got Net"),
        ("TorchNet", "TorchNet", (), "test_verify:TorchNet must return a Cell, got TorchNet"),
        ("TorchNot", "Net", (), "no factory 'test_verify:TorchNot'"),
        ("TorchNet", "Net", ("--inputs", "no.npz"), "there is no file no.npz; write one: numpy"),
        ("TorchNet", "Net", ("--inputs", "text.npz"), "text.npz is no .npz file of arrays; write"),
        ("TorchNet", "Net", ("--inputs", "one.npy"), "one.npy is no .npz file of arrays; write"),
        ("TorchNet", "Net", ("--inputs", "none.npz"), "none.npz holds no array; write one"),
        ("TorchNet", "Net", ("--inputs", "wide.npz"), "(1, 3, 8, 8) float64, mend it there or"),
        ("TorchNet", "Net", ("--input", "1,4,8,8"), "on inputs (1, 4, 8, 8) float32, mend it"),
        ("TorchFlat", "Net", (), "the parameters of test_verify:Net and test_verify:TorchFlat do"),
        ("Failing", "FailingCell", (), "KeyError: 'nothing here' (" + __file__),
        (
            "torch.nn:Identity",
            "FailingCell",
            (),
            f"ZeroDivisionError: division by zero ({__file__}",
        ),
        (
            "torch.nn:Identity",
            "OnlyPyNative",
            ("--graph-mode",),
            "OnlyPyNative fails in graph mode",
        ),
    ],
)
def test_what_a_user_may_get_wrong_is_one_line_with_a_mend(verify, theirs, ours, options, words):
    Path("text.npz").write_text("text")
    np.save("one.npy", np.zeros(3))
    np.savez("none.npz")
    np.savez("wide.npz", np.zeros((1, 3, 8, 8)))
    status, printed = verify(theirs, ours, *options)
    assert status == 1
    last = printed.splitlines()[-1]
    assert last.startswith("verify: ")
    assert words in last


def test_a_checkpoint_that_does_not_fit_is_refused(verify):
    torch.save(TorchBlocks().state_dict(), "blocks.pth")
    status, printed = verify("TorchNet", "Net", checkpoint=("blocks.pth",))
    assert status == 1
    assert (
        "blocks.pth does not fit test_verify:TorchNet: size mismatch for conv.weight: " in printed
    )
    assert "name the factory, with the arguments, that the checkpoint was made with\n" in printed
    state = TorchNet().state_dict()
    del state["offset.bias"]
    torch.save({**state, "head.bias": torch.zeros(2)}, "net.pth")
    _, printed = verify("TorchNet", "Net", checkpoint=("net.pth",))
    assert "TorchNet: offset.bias missing, head.bias unexpected; name the factory" in printed
    assert verify("TorchNet", "Net", "--partial", checkpoint=("net.pth",))[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--input", "1,3,8,8", "--inputs", "inputs.npz"),
        ("--input", "1,0,8"),
        ("--input", "3", "--steps", "0"),
        ("--input", "3", "--tolerance", "nan"),
        ("--input", "3", "--seed", "-1"),
    ],
    ids=" ".join,
)
def test_options_that_are_wrong_are_usage(capsys, options):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "--torch", "test_verify:TorchNet", "--net", "test_verify:Net", *options])
    assert stopped.value.code == 2
    assert "python -m ms_deform verify: error: " in capsys.readouterr().err


def test_without_torch_it_says_how_to_install_it(verify, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    status, printed = verify("TorchNet", "Net")
    assert status == 1
    assert 'needs torch: pip install "torch" "numpy>=1.25,<2"\n' in printed


def test_help_shows_every_option_in_an_example_that_parses(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\nexamples:\n")
    examples = rest.partition("\n\n")[0].replace("\\\n", "").splitlines()
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", usage)) - {"--help"}
    assert options >= {"--torch", "--net", "--input", "--inputs", "--gradients", "--steps"}
    assert options <= {word for line in examples for word in shlex.split(line)}
    calls = []
    monkeypatch.setattr(command, "run", lambda options: calls.append(options) or 0)
    for line in examples:
        assert main(shlex.split(line.partition("python -m ms_deform ")[2])) == 0
    assert len(calls) == len(examples) > 4


class TorchChain(TNN.Module):
    """A layer again and again, or tanh and what makes its error twice as large."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        names = ("tanh", "square") if kind == "tanh" else map(str, range(30))
        for name in names:
            self.add_module(name, CHAIN[name][0]() if name in CHAIN else TNN.Identity())

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class Chain(nn.Cell):
    def __init__(self, kind: str) -> None:
        super().__init__()
        names = ("tanh", "square") if kind == "tanh" else map(str, range(30))
        for name in names:
            self.insert_child_to_cell(name, CHAIN[name][1]() if name in CHAIN else Nearly())

    def construct(self, x):
        for layer in self.cells():
            x = layer(x)
        return x


class Nearly(nn.Cell):
    def construct(self, x):
        return x * (1 + 3e-6)


class Square(nn.Cell):
    def construct(self, x):
        return x * x


CHAIN = {"tanh": (TNN.Tanh, nn.Tanh), "square": (lambda: TorchFunction(torch.square), Square)}


def test_an_error_that_begins_within_tolerance_is_traced_back(verify):
    options = (*inputs_that_show("tanh"), "--tolerance", "1.5e-4")
    status, printed = verify("TorchChain('tanh')", "Chain('tanh')", *options)
    assert status == 1
    assert "first out of tolerance (1.5e-04): square (Square), 2.0e-04\n" in printed
    assert "the error begins before: tanh (Tanh), 1.0e-04\n" in printed
    assert "known culprit: MindSpore's tanh" in printed


def test_no_layer_is_to_blame_for_an_error_that_grows_from_layer_to_layer(verify):
    options = ("--tolerance", "6e-5")
    status, printed = verify("TorchChain('nearly')", "Chain('nearly')", *options)
    assert status == 1
    assert (
        "the error grows from layer to layer: by rounding, for which there is a larger --tol"
        in printed
    )
    assert "culprit" not in printed


@ops.constexpr
def factor():
    return 2 if ms.get_context("mode") == ms.GRAPH_MODE else 1


class OnlyInGraphMode(nn.Cell):
    """Wrong there alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, has_bias=True)
        self.drop = nn.Dropout(p=0.1)

    def construct(self, x):
        x = ops.relu(self.conv(x))
        return factor() * x


def test_outputs_that_differ_in_graph_mode_alone_are_out_of_tolerance(verify):
    assert verify("TorchBlocks", "OnlyInGraphMode")[0] == 0
    status, printed = verify("TorchBlocks", "OnlyInGraphMode", "--graph-mode")
    assert status == 1
    assert "outputs in graph mode: 1.0e+00 ! out of tolerance\n" in printed


def test_nothing_is_said_of_layers_that_are_ported_rightly():
    """Attributes are kept in a form of their own by each cell."""
    conv = {"pad_mode": "pad", "has_bias": True}
    right = [
        (TNN.Conv1d(4, 6, 3, 2, 1), nn.Conv1d(4, 6, 3, 2, padding=1, **conv)),
        (TNN.Conv2d(4, 6, 3, padding="same"), nn.Conv2d(4, 6, 3, has_bias=True)),
        (TNN.Conv2d(4, 6, 1, 2), nn.Conv2d(4, 6, 1, 2, has_bias=True)),
        (TNN.Conv2d(4, 6, 3, 2, groups=2), nn.Conv2d(4, 6, 3, 2, group=2, **conv)),
        (TNN.Conv3d(4, 6, 3, padding=1), nn.Conv3d(4, 6, 3, padding=1, **conv)),
        (TNN.ConvTranspose1d(4, 6, 3), nn.Conv1dTranspose(4, 6, 3, **conv)),
        (TNN.ConvTranspose2d(4, 6, 4, 2, 1), nn.Conv2dTranspose(4, 6, 4, 2, padding=1, **conv)),
        (TNN.MaxPool1d(3, 2, 1), nn.MaxPool1d(3, 2, "pad", 1)),
        (TNN.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, "pad", 1)),
        (TNN.MaxPool2d(3, 2), nn.MaxPool2d(3, 2, "valid")),
        (TNN.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, "pad", 1)),
        (TNN.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, "pad", ceil_mode=True)),
        (TNN.BatchNorm2d(4), nn.BatchNorm2d(4)),
        (TNN.BatchNorm3d(4), nn.BatchNorm3d(4)),
        (TNN.BatchNorm2d(4, 1e-3, 0.01), nn.BatchNorm2d(4, 1e-3, 0.99)),
        (TNN.InstanceNorm2d(4), nn.GroupNorm(4, 4)),
        (TNN.LayerNorm(4), nn.LayerNorm((4,), epsilon=1e-5)),
        (TNN.LeakyReLU(0.1), nn.LeakyReLU(0.1)),
        (TNN.GELU("tanh"), nn.GELU()),
        (TNN.Dropout(0.1), nn.Dropout(p=0.1)),
        (TNN.Upsample(scale_factor=2), nn.Upsample(scale_factor=2.0)),
    ]
    for module, cell in right:
        assert list(culprits(cell, module)) == [], module


def test_mistakes_that_show_in_few_inputs_are_known_by_their_attributes():
    wrong = {
        "epsilon=1e-05": (TNN.LayerNorm(4), nn.LayerNorm((4,))),
        "momentum=0.9": (TNN.BatchNorm3d(4), nn.BatchNorm3d(4, momentum=0.1)),
        "p=0.1": (TNN.Dropout(0.1), nn.Dropout(p=0.9)),
        "group=2": (TNN.Conv2d(4, 6, 1, groups=2), nn.Conv2d(4, 6, 1, has_bias=True)),
        "mode='bilinear'": (TNN.Upsample(2, mode="bilinear"), nn.Upsample(2)),
    }
    for mend, (module, cell) in wrong.items():
        (culprit,) = culprits(cell, module)
        assert culprit.text.endswith(f": write {mend}")
