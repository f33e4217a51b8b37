# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package, and that imports run one way between them.

port and export know the core, the core knows the backends, the backends know install.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ms_deform

PACKAGE = Path(ms_deform.__file__).parent
MODULES = {
    ".".join(("ms_deform", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in ("lib", "aot_kernels")
}
INSTALL = sorted(name for name in MODULES if name.startswith("ms_deform.install."))
ROOMS = ("install", "backends", "core", "port", "export")
KNOWS = {
    "install": {"install"},
    "backends": {"install", "backends", "core"},
    "core": {"install", "backends", "core"},
    "port": {"install", "backends", "core", "port"},
    "export": {"install", "backends", "core", "export"},
}
# Of the core only these know what calls are; the backends must not know the operator.
KNOWN_TO_BACKENDS = {"ms_deform.geometry", "ms_deform.layout"}
# The command line, which is in front of all rooms.
FRONT = ("ms_deform.__main__",)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    known = {name.removesuffix(".__init__") for name in MODULES}
    return {name for name in found if name in known and name not in ("ms_deform", module)}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {*FRONT, "ms_deform.__init__"}))
def test_a_module_imports_from_rooms_that_its_own_knows(module):
    own = room(module)
    for name in imports(module) - {"ms_deform._version"}:
        assert room(name) in KNOWS[own], f"{module} imports {name}"
        if own == "backends" and room(name) == "core":
            assert name in KNOWN_TO_BACKENDS, f"{module} imports {name}"


def test_there_are_modules_in_every_room():
    assert {room(module) for module in MODULES} == set(ROOMS)
    assert imports("ms_deform.backends.aot") >= {"ms_deform.geometry", "ms_deform.install.library"}


def test_what_installs_needs_no_mindspore():
    assert len(INSTALL) > 5
    program = "import sys; sys.modules['mindspore'] = None\n" + "\n".join(
        f"import {name}" for name in [*INSTALL, "ms_deform.doctor", "ms_deform.__main__"]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
