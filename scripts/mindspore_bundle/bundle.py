# SPDX-License-Identifier: Apache-2.0
"""Copies what was read of the installed packages, with stubs for what has only to be there."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from shutil import copy

from mindspore_bundle.libraries import build_stub, closure, dynamic_symbols, needed, stub_source

SITE = Path(sysconfig.get_paths()["purelib"])
PLUGIN = SITE / "mindspore/lib/plugin/libmindspore_gpu.so.11.6"
# Where the plugin looks first for what it needs (its DT_RPATH).
CUDA_LIBRARIES = PLUGIN.with_name("gpu11.6")
RUNTIME = SITE / "nvidia/cuda_runtime/lib/libcudart.so.11.0"
DRIVER = "libcuda.so.1"
# Imported with MindSpore, but not used: reading data, metrics.
ABSENT_PACKAGES = [SITE / name for name in ("mindspore/dataset", "mindspore/mindrecord", "scipy", "PIL")]
ABSENT_EXTENSIONS = ("_c_dataengine.", "_c_mindrecord.")
# Loaded with MindSpore, but not used: its kernels, for a CPU and a GPU.
STUBBED = [
    SITE / "mindspore/lib" / name
    for name in ("plugin/libmindspore_ops_cpu.so", "plugin/gpu/libcuda_ops.so.11", "libdnnl.so.3")
]


def assemble(read: Iterable[Path], folder: Path) -> None:
    """The part that was read of the packages, in the folder, with NVIDIA's runtime."""
    files = {path for path in read if SITE in path.parents and path.is_file()}
    files -= {path for path in files if set(path.parents).intersection(ABSENT_PACKAGES)}
    files -= {path for path in files if path.name.startswith(ABSENT_EXTENSIONS)}
    libraries = {path.name: path for path in files if is_library(path)}
    extensions = [path for path in libraries.values() if ".cpython-" in path.name or ".abi3." in path.name]
    for stubbed in STUBBED:
        libraries.pop(stubbed.name, None)
    kept = closure([*extensions, PLUGIN], libraries)
    for path in [*(files - set(libraries.values()) - set(STUBBED)), *kept]:
        _copy(path, folder / path.relative_to(SITE))
    for package in ABSENT_PACKAGES:
        _copy(Path(__file__).with_name("absent.py"), folder / package.relative_to(SITE) / "__init__.py")
    stub(kept, [Path(path) for path in read if is_library(path) and path.is_file()], folder)
    _copy(RUNTIME, folder / CUDA_LIBRARIES.relative_to(SITE) / RUNTIME.name)


def stub(kept: set[Path], loaded: Iterable[Path], folder: Path) -> None:
    """Stubs of the libraries that those kept need and the folder does not have."""
    wanted = {symbol for library in kept for symbol in dynamic_symbols(library, "--undefined-only")}
    names = {symbol.name for symbol in wanted}
    others = {path for path in loaded if SITE not in path.parents} | kept
    provided = {s.name for library in others for s in dynamic_symbols(library, "--defined-only")}
    for library in STUBBED:
        symbols = [s for s in dynamic_symbols(library, "--defined-only") if s.name in names - provided]
        path = folder / library.relative_to(SITE)
        build_stub(path, stub_source(path.name, symbols), "")
    for soname in needed(PLUGIN):
        if re.match(r"lib(cu|nv)", soname) and soname not in (RUNTIME.name, DRIVER, STUBBED[1].name):
            symbols = [symbol for symbol in wanted if symbol.version == soname]
            path = folder / CUDA_LIBRARIES.relative_to(SITE) / soname
            build_stub(path, stub_source(soname, symbols), soname)


def is_library(path: Path) -> bool:
    return re.search(r"\.so(\.\d+)*$", path.name) is not None


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    copy(path, to)
