# SPDX-License-Identifier: Apache-2.0
"""MindSpore's own GPU target on a machine without a GPU: python tests/gpu_stand_in.py ARGUMENTS

runs Python with those arguments where MindSpore's GPU plugin finds libraries of tests/gpu_stand_in
in CUDA's place, and ms_deform its CUDA library on the emulation of tests/cuda_emulation.

A library is made for each that the plugin needs, of what its symbols say that it needs of it. The
linker finds them in LD_LIBRARY_PATH, but for libcuda_ops.so.11, MindSpore's own kernels, it looks
beside the plugin first: there a library counts that was loaded before under that name (LD_PRELOAD).
A function that tests/gpu_stand_in does not have throws with its name.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

from cuda_emulation import build_emulated
from ms_deform.install.builder import kernel_sources
from ms_deform.install.library import ABI, find_library

SOURCES = Path(__file__).with_name("gpu_stand_in")
KERNELS = "libcuda_ops.so.11"
VARIABLE = "GPU_STAND_IN"  # names the folder, in a process that runs on it
_DRIVER = "libcuda.so.1"
_UNVERSIONED = (KERNELS, _DRIVER)  # the symbols of the others have their library's name as version
# The element types for which MindSpore's kernels are made.
_TYPES = "__half|float|double|bool|int|long"
_FLAGS = ("-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread")


def environment(folder: Path) -> dict[str, str]:
    """Builds all of it in the folder; the variables that make a process use it."""
    build(folder)
    emulated = folder / "ms_deform"
    emulated.mkdir()
    build_emulated(emulated)
    copy(find_library("cpu"), emulated)
    return {
        VARIABLE: str(folder),
        # MindSpore takes the plugin for the version that the nvcc there tells, and none without.
        "CUDA_HOME": str(folder),
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "LD_PRELOAD": str(folder / "lib" / KERNELS),
        "MS_DEFORM_LIBRARY_DIR": str(emulated),
    }


def build(folder: Path) -> None:
    """What stands in for a CUDA toolkit: lib and bin."""
    objects, libraries = folder / "objects", folder / "lib"
    objects.mkdir()
    libraries.mkdir()
    needed = _needed_symbols()
    _compile("-c", SOURCES / "missing.cc", "-o", objects / "missing.o")
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda soname: _build_library(folder, soname, needed[soname]), needed))
    # MindSpore reads the versions from the names of files, and from what nvcc says.
    (libraries / "libcudart.so.11.6.0").symlink_to("libcudart.so.11.0")
    (libraries / "libcudnn.so.8.5").symlink_to("libcudnn.so.8")
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 11.6, V11.6.0'\n")
    nvcc.chmod(0o755)


def _build_library(folder: Path, soname: str, needed: set[str]) -> None:
    objects = folder / "objects"
    source = _source(soname, needed, objects)
    built = []
    if source:
        built.append(objects / f"{soname}.o")
        _compile("-c", source, "-o", built[0])
    missing = needed.difference(*(_symbols(each, "--defined-only") for each in built))
    stubs = objects / f"{soname}.cc"
    stubs.write_text(_stubs(missing))
    command = ["-shared", f"-Wl,-soname,{soname}", stubs, objects / "missing.o", *built]
    if soname not in _UNVERSIONED:
        script = objects / f"{soname}.map"
        script.write_text(f"{soname} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    _compile(*command, "-o", folder / "lib" / soname)


def _mindspore() -> Path:
    spec = find_spec("mindspore")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _needed_symbols() -> dict[str, set[str]]:
    """What the plugin takes from each library."""
    plugins = _mindspore() / "lib" / "plugin"
    own = _symbols(plugins / "gpu" / KERNELS, "-D", "--defined-only")
    needed: dict[str, set[str]] = defaultdict(set)
    for symbol in _symbols(plugins / "libmindspore_gpu.so.11.6", "-D", "--undefined-only"):
        name, _, version = symbol.partition("@")
        if re.match(r"lib(cu|nv)", version):
            needed[version].add(name)
        elif re.match(r"cu[A-Z]", name):
            needed[_DRIVER].add(name)
        # Both have what the C++ library makes of templates.
        elif name in own and not re.match(r"_ZN?K?St", name):
            needed[KERNELS].add(name)
    return needed


def _symbols(path: Path, *which: str) -> set[str]:
    listing = subprocess.run(["nm", *which, path], check=True, capture_output=True, text=True)
    return {line.split()[-1].replace("@@", "@") for line in listing.stdout.splitlines()}


def _source(soname: str, needed: set[str], folder: Path) -> Path | None:
    """What there is for a library: cudart.cc for libcudart.so.11.0."""
    if soname == KERNELS:
        source = folder / "cuda_ops.cc"
        source.write_text(_instances(needed))
        return source
    source = SOURCES / f"{soname[3:].partition('.')[0]}.cc"
    return source if source.is_file() else None


def _instances(needed: set[str]) -> str:
    """Instantiates the templates of cuda_ops.h as the plugin's symbols spell them."""
    header = (SOURCES / "cuda_ops.h").read_text()
    templates = "|".join(re.findall(r"^cudaError (\w+)\(", header, re.MULTILINE))
    argument = rf"(\(\w+\)\d+|true|false|{_TYPES})"
    wanted = re.compile(rf"cudaError ({templates})<{argument}(, {argument})*>\(.*")
    names = "\n".join(sorted(needed))
    done = subprocess.run(["c++filt"], input=names, check=True, capture_output=True, text=True)
    readable = filter(wanted.fullmatch, done.stdout.splitlines())
    instances = [f"template {name};" for name in readable]
    return "\n".join(['#include "cuda_ops.h"', *instances, ""])


def _stubs(names: set[str]) -> str:
    functions = [f'extern "C" int {name}() {{ Missing("{name}"); }}' for name in sorted(names)]
    return "\n".join(['#include "missing.h"', *functions, ""])


def _compile(*arguments: str | Path) -> None:
    headers = _mindspore() / "include" / "mindspore" / "core" / "include"
    includes = [f"-I{SOURCES}", f"-I{kernel_sources()}", "-isystem", headers]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={ABI}"
    subprocess.run(["g++", *_FLAGS, abi, *includes, *arguments], check=True)


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        variables = {**os.environ, **environment(Path(name))}
        sys.exit(subprocess.run([sys.executable, *sys.argv[1:]], env=variables).returncode)
