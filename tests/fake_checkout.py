# SPDX-License-Identifier: Apache-2.0
"""A checkout whose kernels compile at once: building and packaging are the same for any kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

import ms_deform

REPOSITORY = Path(__file__).resolve().parent.parent

_LIBRARY_INFO = REPOSITORY / "aot_kernels" / "common" / "library_info.h"
_KERNELS = "namespace MS_DEFORM_ISA { extern const int compiled = 1; }\n"
_ENTRY = """
#include "common/library_info.h"
MS_DEFORM_LIBRARY_INFO("cpu");
extern "C" __attribute__((visibility("default"))) const char *ms_deform_cpu_isa() {
  return "baseline";
}
"""


def write_kernels(folder: Path) -> Path:
    """Writes a tiny aot_kernels and returns it."""
    (folder / "common").mkdir(parents=True)
    (folder / "cpu").mkdir()
    shutil.copy(_LIBRARY_INFO, folder / "common")
    (folder / "common" / "shared.cc").write_text("extern const int shared = 1;\n")
    (folder / "cpu" / "kernels.cc").write_text(_KERNELS)
    (folder / "cpu" / "entry.cc").write_text(_ENTRY)
    return folder


def write_checkout(root: Path) -> Path:
    """Writes this package with a tiny aot_kernels and returns the root."""
    unwanted = shutil.ignore_patterns("lib", "aot_kernels", "__pycache__")
    shutil.copytree(Path(ms_deform.__file__).parent, root / "ms_deform", ignore=unwanted)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, root)
    (root / "README.md").write_text("A fake checkout.\n")
    write_kernels(root / "aot_kernels")
    return root
