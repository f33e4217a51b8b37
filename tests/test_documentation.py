# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows, runs; what MindSpore's form asks for, is there."""

from __future__ import annotations

import ast
import configparser
import doctest
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import pytest

import ms_deform
import readme
from aicpu_sdk_builds import build_sdk
from fake_checkout import write_checkout, write_kernels
from ms_deform.install.builder import BuildError, find_compiler, find_nvcc
from ms_deform.install.library import find_library
from readme import ROOT

PUBLIC = [name for name in ms_deform.__all__ if not name.startswith("__")]
_FUNCTION = ("Args", "Returns", "Raises", "Supported Platforms", "Examples")
_LAYER = ("Args", "Inputs", "Outputs", "Raises", "Supported Platforms", "Examples")
SECTIONS = {
    "deform_conv2d": _FUNCTION,
    "DeformConv2d": _LAYER,
    "DCNv2Pack": _LAYER,
    "DeformConv2dPack": _LAYER,
    "SecondOrderDeformableAlignment": _LAYER,
    "ModulatedDeformConv2dPack": _LAYER,
    "deformable_conv2d": _FUNCTION,
    "export_mindir": _FUNCTION,
    "export_onnx": _FUNCTION,
    "last_error": ("Returns", "Raises", "Supported Platforms", "Examples"),
    "pack_offset": _FUNCTION,
    "unpack_offset": _FUNCTION,
    "record_offsets": _FUNCTION,
    "release_scratch": ("Raises", "Supported Platforms", "Examples"),
    "scratch_bytes": ("Returns", "Raises", "Supported Platforms", "Examples"),
    "set_backend": ("Args", "Raises", "Supported Platforms", "Examples"),
    "set_deterministic": ("Args", "Raises", "Supported Platforms", "Examples"),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_examples_print_what_they_say(name):
    require_packages(name)
    ms.runtime.synchronize()  # an example before may have left a call in progress
    examples = doctest.DocTestFinder(recurse=False).find(getattr(ms_deform, name), name)
    results = [doctest.DocTestRunner().run(example) for example in examples]
    assert sum(result.attempted for result in results) >= 3
    assert sum(result.failed for result in results) == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_have_mindspores_sections(name):
    text = getattr(ms_deform, name).__doc__
    for section in SECTIONS[name]:
        assert re.search(rf"^    {section}:$", text, re.MULTILINE), section


@pytest.mark.parametrize("name", ("DeformConv2d", "deform_conv2d"))
def test_docstrings_of_the_operator_name_the_papers(name):
    text = getattr(ms_deform, name).__doc__
    assert "https://arxiv.org/abs/1703.06211" in text
    assert "https://arxiv.org/abs/1811.11168" in text


# Packages that the test extra lacks, by a word of the example that takes them.
NEEDS = {
    "export_onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "viz.": "matplotlib",
    "scripts/port": "torchvision",
}


def require_packages(text: str) -> None:
    for word, module in NEEDS.items():
        if word in text:
            pytest.importorskip(module, reason=f"this example needs {module}")


PYTHON_BLOCKS = [block for block in readme.blocks("README.md") if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.title)
def test_python_of_the_readme_runs(block, scratch_folder):
    require_packages(block.text)
    # From a file: graph mode reads the sources.
    program = Path("program.py")
    program.write_text(block.text)
    runpy.run_path(str(program.absolute()), run_name="__main__")
    ms.runtime.synchronize()


class Checkout:
    """A checkout whose kernels compile at once, and a machine around it for the README's shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = write_checkout(folder / "ms_deform")
        kernels = self.root / "aot_kernels"
        shutil.copytree(write_kernels(folder / "cuda", "cuda") / "cuda", kernels / "cuda")
        (kernels / "aicpu" / "op_proto").mkdir(parents=True)
        for file in ("common/geometry.cc", "aicpu/entry.cc", "aicpu/op_proto/operators.cc"):
            (kernels / file).touch()
        shutil.copytree(
            ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__")
        )
        library = shutil.copy(find_library("cpu"), folder)
        (folder / "sdk").mkdir()
        installed = folder / "installed"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": f"{installed}:{Path(ms_deform.__file__).parents[1]}",
            # pip installs this package alone, beside the environment and without the network; that
            # NO turns isolation off with a 0 is pip's.
            "PIP_TARGET": str(installed),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # The kernels that compute, where a command does not build its own.
            "MS_DEFORM_LIBRARY_DIR": str(Path(library).parent),
            "MS_DEFORM_AICPU_SDK": str(build_sdk(folder / "sdk", find_compiler())),
            "MS_DEFORM_AICPU_CXX": shlex.join(find_compiler()),
        }

    def compile_for_one_gpu(self, nvcc: list[str]) -> None:
        """Puts an nvcc in place that knows one GPU of many, which take ten seconds."""
        script = self.folder / "nvcc"
        lists = 'if [ "$1" = --list-gpu-code ]; then echo sm_80; exit; fi'
        script.write_text(f'#!/bin/sh\n{lists}\nexec {shlex.join(nvcc)} "$@"\n')
        script.chmod(0o755)
        self.environment["NVCC"] = str(script)

    def run(self, text: str) -> str:
        """Runs a block of shell to its end; what it printed."""
        done = subprocess.run(
            ["bash", "-ec", text],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


# They start nvcc, or import torch several times.
LONG_BLOCKS = ("Install 1", "Port 0")


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=[pytest.mark.long] * (block.title in LONG_BLOCKS), id=block.title)
        for block in readme.shell_blocks("test_documentation")
    ],
)
def test_shell_of_the_readme_runs(block, tmp_path):
    require_packages(block.text)
    checkout = Checkout(tmp_path)
    if "--cuda" in block.text:
        try:
            checkout.compile_for_one_gpu(find_nvcc())
        except BuildError as error:
            pytest.skip(str(error))
    assert checkout.run(block.text)


def test_each_block_of_shell_has_a_test():
    """A test file that is to run blocks asks for them by its own name."""
    for test in readme.runners():
        assert readme.shell_blocks(test), test
        assert f'readme.shell_blocks("{test}")' in (ROOT / "tests" / f"{test}.py").read_text(), test


def test_both_readmes_have_the_same_code():
    """Up to comments and the sections' names, so that the tests above run the code of both."""
    english, chinese = (
        [(block.language, re.sub(r" *#.*", "", block.text)) for block in readme.blocks(name)]
        for name in readme.NAMES
    )
    assert english == chinese


@pytest.mark.parametrize("name", readme.NAMES)
def test_every_code_block_is_python_or_shell(name):
    text, blocks = (ROOT / name).read_text(), readme.blocks(name)
    assert text.count("```") == 2 * len(blocks)
    assert {block.language for block in blocks} == {"python", "sh"}
    assert not re.search(r"^    \S", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)


@pytest.mark.parametrize("name", readme.NAMES)
def test_files_that_the_readme_links_to_exist(name):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text())
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


@pytest.mark.parametrize("name", readme.NAMES)
def test_sections_that_the_readme_links_to_exist(name):
    text = (ROOT / name).read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in headings}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links
    assert set(links) <= anchors


def messages() -> Iterator[str]:
    """The texts in the sources of the package; Python has joined their parts."""
    for path in Path(ms_deform.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_pip_commands_in_messages_name_requirements_of_setup_cfg():
    """ms_deform is on no index, so a command that asks for `ms_deform[onnx]` would fail."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    known = {line.partition(";")[0] for text in lists for line in text.split("\n")}
    known |= {re.split("[<>=]", line)[0] for line in known}
    commands = [
        re.findall(r'"([^"]+)"', command)
        for text in messages()
        for command in re.findall(r'pip install((?: "[^"]+")+)', text)
    ]
    assert len(commands) >= 4
    for requirements in commands:
        assert set(requirements) <= known
    assert not [text for text in messages() if "ms_deform[" in text]
