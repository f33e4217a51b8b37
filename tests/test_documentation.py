# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows, runs; what MindSpore's form asks for, is there."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
import textwrap
from pathlib import Path

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


@pytest.mark.parametrize("readme", READMES)
def test_python_examples_of_the_readme_run(readme, tmp_path):
    blocks = re.findall(r"```python\n(.*?)\n *```", (ROOT / readme).read_text(), re.DOTALL)
    assert blocks
    for index, block in enumerate(blocks):
        program = tmp_path / f"example{index}.py"  # graph mode needs the source in a file
        program.write_text(textwrap.dedent(block))
        subprocess.run([sys.executable, program], cwd=tmp_path, check=True)


@pytest.mark.parametrize("readme", READMES)
def test_files_that_the_readme_links_to_exist(readme):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / readme).read_text())
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
