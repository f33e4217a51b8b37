# SPDX-License-Identifier: Apache-2.0
"""The READMEs' code blocks, and which test runs a block of shell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "README_CN.md")

# What would take minutes, a GPU or the network runs as it is printed on a stand-in for them, in the
# tests of the scripts that it starts: words of such a block, and the test file. test_documentation
# runs all other blocks.
_RUN_BY = {
    "scripts/demo.sh": "test_scripts",
    "scripts/test.sh": "test_scripts",
    "scripts/benchmark.py": "test_benchmark",
    "msrun": "test_data_parallel",
}


class Block(NamedTuple):
    title: str  # of its section, and its place there
    language: str
    text: str

    def lines(self) -> list[str]:
        """A shell block's commands, without comments."""
        lines = [shlex.join(shlex.split(line, comments=True)) for line in self.text.splitlines()]
        return [line for line in lines if line]


def blocks(readme: str) -> list[Block]:
    found = []
    for part in re.split(r"^## ", (ROOT / readme).read_text(), flags=re.MULTILINE):
        title = part.partition("\n")[0]
        code = re.findall(r"^```(\w+)\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
        found += [Block(f"{title} {n}", name, text) for n, (name, text) in enumerate(code)]
    return found


def shell_blocks(test: str) -> list[Block]:
    """The blocks of README.md that the test file is to run."""
    return [
        block for block in blocks("README.md") if block.language == "sh" and _runner(block) == test
    ]


def runners() -> set[str]:
    return {*_RUN_BY.values(), "test_documentation"}


def _runner(block: Block) -> str:
    return next(
        (test for word, test in _RUN_BY.items() if word in block.text), "test_documentation"
    )
