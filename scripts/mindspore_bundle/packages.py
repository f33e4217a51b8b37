# SPDX-License-Identifier: Apache-2.0
"""Copies what was read of the installed packages, with stubs for what only has to be there."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from shutil import copy

from mindspore_bundle.libraries import build_stub, closure, dynamic_symbols, needed, stub_source

SITE = Path(sysconfig.get_paths()["purelib"])
PLUGIN = SITE / "mindspore/lib/plugin/libmindspore_gpu.so.11.6"
# The plugin looks there first for what it needs (its DT_RPATH).
CUDA_LIBRARIES = PLUGIN.with_name("gpu11.6")
RUNTIME = SITE / "nvidia/cuda_runtime/lib/libcudart.so.11.0"
DRIVER = "libcuda.so.1"
# Imported with MindSpore, but not used: reading of data, and metrics.
ABSENT = (
    "mindspore/dataset",
    "mindspore/mindrecord",
    "mindspore/_c_dataengine",
    "mindspore/_c_mindrecord",
    "PIL",
    "scipy",
)
# Parts of packages: their tests, and a compiler of kernels.
UNUSED = {"tests", "_akg"}
# Loaded with MindSpore, but not used: its kernels for a CPU and, 800 MB, for a GPU.
STUBBED = tuple(
    PLUGIN.parents[1] / name
    for name in ("libdnnl.so.3", "plugin/libmindspore_ops_cpu.so", "plugin/gpu/libcuda_ops.so.11")
)


def assemble(read: Iterable[Path], folder: Path) -> None:
    """Copies those of the files that belong to packages, and all sources of these packages."""
    read = {path for path in read if path.is_file()}
    installed = {path for path in read if SITE in path.parents}
    packages = {SITE / path.relative_to(SITE).parts[0] for path in installed}
    found = installed.union(*map(sources, packages))
    files = {path for path in found if not is_absent(path)}
    libraries = {path for path in files if is_library(path)}
    available = {path.name: path for path in libraries - set(STUBBED)}
    kept = closure([PLUGIN, *filter(is_extension, libraries)], available)
    for path in files - libraries | kept:
        _copy(path, _place(path, folder))
    for package in ABSENT:
        _copy(Path(__file__).with_name("absent.py"), folder / package / "__init__.py")
    _copy(RUNTIME, _place(CUDA_LIBRARIES / RUNTIME.name, folder))
    system = filter(is_library, read - installed)
    stub(kept, {path for path in system if not is_cuda(path.name)}, folder)


def stub(kept: set[Path], system: set[Path], folder: Path) -> None:
    """In the folder, those libraries that the kept ones need and that are nowhere else."""
    missing = {symbol for library in kept for symbol in dynamic_symbols(library, defined=False)}
    names = {symbol.name for symbol in missing}
    for library in kept | system:
        names -= {symbol.name for symbol in dynamic_symbols(library, defined=True)}
    for library in STUBBED:
        symbols = dynamic_symbols(library, defined=True)
        source = stub_source(library.name, [each for each in symbols if each.name in names])
        build_stub(_place(library, folder), source)
    present = (RUNTIME.name, DRIVER, *(library.name for library in STUBBED))
    for soname in filter(is_cuda, needed(PLUGIN)):
        if soname not in present:
            source = stub_source(soname, [each for each in missing if each.version == soname])
            build_stub(_place(CUDA_LIBRARIES / soname, folder), source, soname)


def sources(package: Path) -> Iterable[Path]:
    """What it may import later, such as where something fails: nothing did when files were read."""
    paths = package.rglob("*.py")
    return (path for path in paths if UNUSED.isdisjoint(path.relative_to(SITE).parts))


def is_absent(path: Path) -> bool:
    name = path.relative_to(SITE).as_posix()
    return name.startswith(tuple(f"{package}{end}" for package in ABSENT for end in "/."))


def is_library(path: Path) -> bool:
    return re.search(r"\.so(\.\d+)*$", path.name) is not None


def is_extension(path: Path) -> bool:
    return re.search(r"\.(cpython-\w+(-\w+)*|abi3)\.so$", path.name) is not None


def is_cuda(soname: str) -> bool:
    return re.match(r"lib(cu|nv)", soname) is not None


def _place(path: Path, folder: Path) -> Path:
    return folder / path.relative_to(SITE)


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    copy(path, to)
