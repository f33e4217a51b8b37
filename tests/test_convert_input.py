# SPDX-License-Identifier: Apache-2.0
"""Which factories and files `convert` takes, and that the others get one line with the mend."""

from __future__ import annotations

import importlib
import inspect
import shlex
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import save_file

from ms_deform.__main__ import main
from ms_deform.port.factory import make

NETS = '''
from mindspore import nn

class Net(nn.Cell):
    """A layer that takes inputs, and gives outputs."""

    def __init__(self, inputs, outputs=2):
        super().__init__()
        self.layer = nn.Dense(inputs, outputs)

def fixed():
    return Net(3)

def nothing():
    return None

def failing():
    return Net(0 / 0)

def refused():
    return Net(-1)

three = 3
made = fixed()
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the command runs: factories in a module and in a file elsewhere, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("some_nets.py").write_text(NETS)
    Path("models").mkdir()
    Path("models/beside.py").write_text("INPUTS = 3\n")
    Path("models/file_nets.py").write_text(f"from beside import INPUTS\n{NETS}")
    state = {"layer.weight": np.ones((2, 3)), "layer.bias": np.zeros(2)}
    save_file({name: array.astype(np.float32) for name, array in state.items()}, "net.safetensors")
    yield tmp_path
    for name in ("some_nets", "beside", "file_nets", "broken", "torch_nets"):
        sys.modules.pop(name, None)


def convert(checkpoint: str = "net.safetensors", net: str = "some_nets:fixed", output="net.ckpt"):
    return main(["convert", checkpoint, "--net", net, "-o", output])


@pytest.fixture
def refusal(capsys):
    """A function that gives the one line with which the command refuses."""

    def refuse(**arguments: str) -> str:
        assert convert(**arguments) == 1
        printed, told = capsys.readouterr()
        assert printed == ""
        assert told.startswith("convert: ")
        assert told.endswith("\n")
        assert len(told.splitlines()) == 1
        return told

    return refuse


@pytest.mark.parametrize(
    "net",
    [
        "some_nets:fixed",
        "some_nets:Net(3)",
        "some_nets:Net(inputs=3, outputs=+2)",
        "models/file_nets.py:fixed",
        "./models/file_nets.py:Net(3, outputs=2)",
    ],
)
def test_a_factory_is_named_by_module_or_file_with_literal_arguments(net):
    assert convert(net=net) == 0
    assert ms.load_checkpoint("net.ckpt")["layer.weight"].shape == (2, 3)


def test_the_source_of_a_file_can_be_had_as_graph_mode_wants_it():
    net = make("models/file_nets.py:fixed")
    assert "outputs=2" in inspect.getsource(type(net))


@pytest.mark.parametrize(
    "net",
    [
        "some_nets:Net(three)",
        "some_nets:Net(1 + len('ab'))",
        "some_nets:Net(*[3])",
        "some_nets:Net(**{'inputs': 3})",
        "some_nets:Net(inputs=__import__('pathlib').Path('run').touch())",
        "some_nets:__import__('pathlib').Path('run').touch()",
        "some_nets:Net(3",
        "some_nets:",
    ],
)
def test_nothing_but_a_factory_with_literal_arguments_is_evaluated(refusal, net):
    told = refusal(net=net)
    assert f"no factory {net!r}" in told
    assert "arguments must be literals: 'net:Net(num_feat=16)'" in told
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("some_nets:Nett", "some_nets has ['Net', 'fixed', 'nothing', 'failing', 'refused']"),
        ("some_nets:three", "no factory 'some_nets:three': some_nets has ['Net', "),
        ("some_nets:made", "no factory 'some_nets:made': some_nets has ['Net', "),
        ("no_module:Net", "(No module named 'no_module'); name it package.module:factory"),
        ("some_nets.inner:Net", "'some_nets' is not a package); name it package.module:factory"),
        ("models/file_nets:Net", "no factory 'models/file_nets:Net'; name it package.module"),
        (".some_nets:Net", "no factory '.some_nets:Net'; name it package.module"),
        (":Net", "name it package.module:factory"),
        ("models/none.py:Net", "there is no file models/none.py"),
        ("some_nets:nothing", "some_nets:nothing must return a Cell, got NoneType"),
    ],
)
def test_a_factory_that_is_not_there_is_named_with_what_is(refusal, net, message):
    assert message in refusal(net=net)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            "some_nets:Net",
            "some_nets:Net takes inputs, outputs: missing a required argument: 'inputs'; give "
            "literals: 'some_nets:Net(inputs=16)'",
        ),
        (
            "some_nets:Net(3, num_feat=16)",
            "some_nets:Net takes inputs, outputs: got an unexpected keyword argument 'num_feat'; "
            "give literals: 'some_nets:Net(inputs=16)'",
        ),
        (
            "some_nets:fixed(3)",
            "some_nets:fixed takes no arguments: too many positional arguments; name it "
            "some_nets:fixed",
        ),
    ],
)
def test_arguments_that_a_factory_does_not_take_are_named_with_those_it_takes(
    refusal, net, message
):
    assert refusal(net=net) == f"convert: {message}\n"


@pytest.mark.parametrize(
    ("factory", "message", "line"),
    [
        ("failing", "ZeroDivisionError: division by zero", "return Net(0 / 0)"),
        # MindSpore raises it, in a file of its own.
        ("refused", "in_channels", "self.layer = nn.Dense(inputs, outputs)"),
    ],
)
def test_the_line_where_a_factory_fails_is_named(refusal, folder, factory, message, line):
    told = refusal(net=f"some_nets:{factory}")
    number = 1 + [text.strip() for text in NETS.splitlines()].index(line)
    assert message in told
    assert f"some_nets:{factory} fails, mend it there" in told
    assert told.endswith(f"({folder / 'some_nets.py'}, line {number})\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\nimport no_such_package\n", "No module named 'no_such_package' ({path}, line 2)"),
        ("\nfrom mindspore import NoNet\n", "ImportError: cannot import name 'NoNet'"),
        ("def Net(:\n", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("\nraise SystemExit(2)\n", "SystemExit: 2 ({path}, line 2)"),
        ("x = 1\nx.y\n", "AttributeError: 'int' object has no attribute 'y' ({path}, line 2)"),
    ],
)
@pytest.mark.parametrize("name", ["broken", "broken.py"])
def test_the_line_where_a_module_fails_is_named(refusal, folder, name, source, message):
    Path("broken.py").write_text(source)
    told = refusal(net=f"{name}:Net")
    assert f"{name} cannot be imported, mend it there: " in told
    assert message.format(path=folder / "broken.py") in told


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty: download it again, or save it again"),
        (b"\n<!DOCTYPE html>\n<html></html>", "a web page, no checkpoint: download the file"),
        (b"<html><head></head></html>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "Git LFS's pointer to the checkpoint: fetch the file itself with git lfs",
        ),
    ],
)
def test_what_stands_in_for_a_checkpoint_is_told_apart(refusal, name, content, message):
    Path(name).write_bytes(content)
    assert f"{name} is {message}" in refusal(checkpoint=name)


# MindSpore leaves it open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kept", [6, 20, 170])
def test_a_truncated_safetensors_file_is_named(refusal, kept):
    content = Path("net.safetensors").read_bytes()
    assert kept < len(content)
    Path("net.safetensors").write_bytes(content[:kept])
    assert "net.safetensors is truncated, or no checkpoint of PyTorch's: download it again" in (
        refusal()
    )


def test_a_missing_file_is_named(refusal):
    assert "there is no file none.pth" in refusal(checkpoint="none.pth")


def test_a_missing_folder_is_named_before_anything_is_read(refusal):
    told = refusal(output="results/new/net.ckpt", checkpoint="none.pth")
    assert "there is no folder results/new; make it: mkdir -p results/new" in told
    subprocess.run(told.rpartition("make it: ")[2], shell=True, check=True)
    assert convert(output="results/new/net.ckpt") == 0
    assert Path("results/new/net.ckpt").is_file()


def test_an_output_that_cannot_be_written_is_named(capsys):
    Path("net.ckpt").mkdir()
    assert convert() == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("convert: net.ckpt cannot be written (")
    assert told.endswith("name another file by --output")


def test_the_file_that_mindspore_writes_is_the_one_that_is_named(capsys):
    assert convert(output="net") == 0
    assert "wrote net.ckpt\n" in capsys.readouterr().out
    assert Path("net.ckpt").is_file()


def mend(told: str) -> None:
    command = shlex.split(told[told.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True)


@pytest.mark.needs("torchvision")
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_in_a_newer_pickle_protocol_is_refused_with_the_command_that_mends_it(refusal):
    import torch

    torch.save(torch.nn.Linear(3, 2).state_dict(prefix="layer."), "net.pth", pickle_protocol=4)
    mend(refusal(checkpoint="net.pth"))
    assert convert("net_state.pth") == 0


TORCH_NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
"""


@pytest.mark.needs("torchvision")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
class TestTorchFiles:
    @pytest.fixture(autouse=True)
    def torch_net(self):
        Path("torch_nets.py").write_text(TORCH_NETS)

    def save(self, content: str, zipped: bool) -> None:
        import torch

        net = importlib.import_module("torch_nets").Net()
        names = {"torch": torch, "net": net}
        torch.save(eval(content, names), "net.pth", _use_new_zipfile_serialization=zipped)

    @pytest.mark.parametrize("content", ["net", "{'state_dict': net.state_dict(), 'net': net}"])
    def test_a_pickled_module_is_refused_with_the_command_that_mends_it(
        self, refusal, content, zipped
    ):
        self.save(content, zipped)
        told = refusal(checkpoint="net.pth")
        assert "such as a pickled module (torch_nets.Net), which may run any code" in told
        mend(told)
        assert convert("net_state.pth") == 0

    def test_a_truncated_file_is_named(self, refusal, zipped):
        self.save("net.state_dict()", zipped)
        content = Path("net.pth").read_bytes()
        for kept in (1, 10, 50, len(content) // 2, len(content) - 5):
            Path("net.pth").write_bytes(content[:kept])
            assert "net.pth is truncated, or no checkpoint of PyTorch's: download it again" in (
                refusal(checkpoint="net.pth")
            )

    def test_parameters_that_are_trained_arrive(self, zipped):
        self.save("{'params': dict(net.named_parameters())}", zipped)
        assert convert("net.pth") == 0

    def test_a_file_without_parameters_is_named_with_its_entries(self, refusal, zipped):
        self.save("{'epoch': 3, 'lr': [0.1]}", zipped)
        told = refusal(checkpoint="net.pth")
        assert "no parameters in the checkpoint, only ['epoch', 'lr']" in told

    def test_what_is_no_dict_is_named(self, refusal, zipped):
        self.save("[net.layer.weight]", zipped)
        told = refusal(checkpoint="net.pth")
        assert "net.pth must hold a dict of parameters, got list; save what state_dict()" in told

    def test_numbers_instead_of_names_are_reported(self, capsys, zipped):
        self.save("{0: torch.zeros(3)}", zipped)
        assert convert("net.pth") == 1
        assert "in the checkpoint only: 1\n  0 (3,)\n" in capsys.readouterr().out

    def test_parameters_beside_other_tensors_are_found(self, zipped):
        self.save("{'epoch': torch.tensor(3), 'state_dict': net.state_dict()}", zipped)
        assert convert("net.pth") == 0
