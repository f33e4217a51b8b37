# SPDX-License-Identifier: Apache-2.0
"""A checkout whose kernels compile at once: building and packaging are the same for any kernels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import ms_deform
from ms_deform.install.builder import find_compiler
from ms_deform.install.library import ABI, library_path

REPOSITORY = Path(__file__).resolve().parent.parent

_LIBRARY_INFO = REPOSITORY / "aot_kernels" / "common" / "library_info.h"
_KERNELS = {
    "cpu": ("kernels.cc", "namespace MS_DEFORM_ISA { extern const int compiled = 1; }\n"),
    "cuda": ("kernels.cu", "__global__ static void Compiled() {}\n"),
}
_ENTRY = """
#include "common/library_info.h"
MS_DEFORM_LIBRARY_INFO("TARGET");
extern "C" __attribute__((visibility("default"))) const char *ms_deform_TARGET_isa() {
  return "ISA";
}
"""


def write_kernels(folder: Path, target: str = "cpu", isa: str = "baseline") -> Path:
    """Writes a tiny aot_kernels and returns it; isa: what its library says that it uses."""
    (folder / "common").mkdir(parents=True)
    (folder / target).mkdir()
    shutil.copy(_LIBRARY_INFO, folder / "common")
    (folder / "common" / "shared.cc").write_text("extern const int shared = 1;\n")
    name, kernels = _KERNELS[target]
    (folder / target / name).write_text(kernels)
    (folder / target / "entry.cc").write_text(_ENTRY.replace("TARGET", target).replace("ISA", isa))
    return folder


def build_library(target: str, directory: Path, isa: str = "baseline") -> Path:
    """A library without kernels that says it is the target's, built without the target's tools."""
    kernels = write_kernels(directory / "aot_kernels", target, isa)
    path = library_path(target, directory)
    macros = {"VERSION": ms_deform.__version__, "ISAS": "baseline", "SOURCES": 16 * "0"}
    defines = [f"-DMS_DEFORM_{name}={value}" for name, value in macros.items()]
    flags = ["-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={ABI}", f"-I{kernels}", *defines]
    entry = kernels / target / "entry.cc"
    subprocess.run([*find_compiler(), *flags, entry, "-o", path], check=True)
    return path


def write_checkout(root: Path) -> Path:
    """Writes this package with a tiny aot_kernels and returns the root."""
    unwanted = shutil.ignore_patterns("lib", "aot_kernels", "__pycache__")
    shutil.copytree(Path(ms_deform.__file__).parent, root / "ms_deform", ignore=unwanted)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, root)
    (root / "README.md").write_text("A fake checkout.\n")
    write_kernels(root / "aot_kernels")
    return root
