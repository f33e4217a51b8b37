# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows, runs; what MindSpore's form asks for, is there."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import pytest

import ms_deform

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README_CN.md")
PUBLIC = [name for name in ms_deform.__all__ if not name.startswith("__")]
_FUNCTION = ("Args", "Returns", "Raises", "Supported Platforms", "Examples")
_LAYER = ("Args", "Inputs", "Outputs", "Raises", "Supported Platforms", "Examples")
SECTIONS = {
    "deform_conv2d": _FUNCTION,
    "DeformConv2d": _LAYER,
    "DeformConv2dPack": _LAYER,
    "ModulatedDeformConv2dPack": _LAYER,
    "deformable_conv2d": _FUNCTION,
    "export_mindir": _FUNCTION,
    "export_onnx": _FUNCTION,
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
    if name == "export_onnx":
        pytest.importorskip("onnx", reason="the example needs onnx: pip install '.[onnx]'")
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


# Commands of the README that change the machine or take long: the file that runs them instead, and
# the words there that do.
ELSEWHERE = {
    "scripts/demo.sh": (".ci/run", "scripts/demo.sh"),
    "scripts/test.sh": (".ci/run", "scripts/test.sh"),
    "scripts/test.sh -k border": (".ci/run", "scripts/test.sh"),
    "EXTRAS=parity scripts/test.sh": (".ci/run", "EXTRAS=$extras scripts/test.sh"),
    "EXTRAS=bench scripts/test.sh -k benchmark": (".ci/run", "extras=parity,demo,bench"),
    ".ci/run": (".ci/run", "stage"),
    "pip install .": ("scripts/venv.sh", "pip install"),
    "python -m ms_deform build --cuda": ("tests/test_command_line.py", '"build", "--cuda"'),
    "CXX=aarch64-linux-gnu-g++ MS_DEFORM_LIBRARY_DIR=aarch64 python -m ms_deform build": (
        "tests/kernel_driver.py",
        "aarch64-linux-gnu-g++",
    ),
    ".venv/bin/python scripts/benchmark.py c4 --plot c4.png": ("tests/test_benchmark.py", "--plot"),
    ".venv/bin/python scripts/benchmark.py --device cuda --dtype float16 --memory": (
        "tests/test_benchmark.py",
        '"--device", "cuda"',
    ),
    "python scripts/train_parallel.py --steps 20": ("tests/test_data_parallel.py", '"--steps"'),
    "python -m ms_deform build --aicpu": ("tests/test_aicpu_package.py", '"build", "--aicpu"'),
    "python -m ms_deform install-aicpu $HOME/vendors/ms_deform": (
        "tests/test_aicpu_package.py",
        '"install-aicpu"',
    ),
    "export ASCEND_CUSTOM_OPP_PATH=$HOME/vendors/ms_deform:$ASCEND_CUSTOM_OPP_PATH": (
        "tests/test_aicpu_package.py",
        "ASCEND_CUSTOM_OPP_PATH",
    ),
}
_MSRUN = ("tests/test_data_parallel.py", "--worker_num=2")
_NEEDED = ("torch", "torchvision", "onnx", "onnxruntime", "matplotlib")


class Block(NamedTuple):
    language: str
    text: str


def sections(readme: str) -> dict[str, list[Block]]:
    """The code blocks of each section that has any."""
    found = {}
    for part in re.split(r"^## ", (ROOT / readme).read_text(), flags=re.MULTILINE):
        blocks = re.findall(r"^ *```(\w+)\n(.*?)\n *```", part, re.DOTALL | re.MULTILINE)
        if blocks:
            title = part.partition("\n")[0]
            found[title] = [Block(name, textwrap.dedent(text)) for name, text in blocks]
    return found


def commands(block: Block) -> list[str]:
    """A shell block's commands without comments and quotes."""
    lines = [" ".join(shlex.split(line, comments=True)) for line in block.text.splitlines()]
    return [line for line in lines if line]


def run_python(text: str, index: int, folder: Path) -> None:
    """Runs a program; one whose first line is its file's name stays there for others to import."""
    name = re.match(r"# (\w+\.py)\n", text)
    program = folder / (name[1] if name else f"example{index}.py")
    program.write_text(text)
    if not name or "__main__" in text:
        run([sys.executable, program.name], folder)


def run(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(Path(ms_deform.__file__).parents[1]),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def run_command(command: str, folder: Path) -> None:
    where = _MSRUN if command.startswith("msrun ") else ELSEWHERE.get(command)
    if where is None:
        run(["bash", "-c", command], folder)
    else:
        file, words = where
        assert words in (ROOT / file).read_text(), f"{file} does not run: {command}"


@pytest.mark.parametrize("title", sections("README.md"))
def test_code_blocks_of_the_readme_run(title, tmp_path):
    blocks = sections("README.md")[title]
    imported = set(re.findall(r"^(?:import|from) (\w+)", "\n".join(b.text for b in blocks), re.M))
    for module in sorted(imported.intersection(_NEEDED)):
        pytest.importorskip(module, reason=f"this section's examples need {module}")
    for index, block in enumerate(blocks):
        if block.language == "python":
            run_python(block.text, index, tmp_path)
        else:
            assert block.language == "sh"
            for command in commands(block):
                run_command(command, tmp_path)


def test_both_readmes_have_the_same_code():
    """Up to comments, so that the test above runs the code of both."""
    english, chinese = (
        [[re.sub(r" *#.*", "", block.text) for block in blocks] for blocks in sections(r).values()]
        for r in READMES
    )
    assert english == chinese


@pytest.mark.parametrize("readme", READMES)
def test_every_code_block_is_python_or_shell(readme):
    text = (ROOT / readme).read_text()
    assert text.count("```") == 2 * sum(map(len, sections(readme).values()))
    assert not re.search(r"^    \S", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)


@pytest.mark.parametrize("readme", READMES)
def test_files_that_the_readme_links_to_exist(readme):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / readme).read_text())
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
