# SPDX-License-Identifier: Apache-2.0
"""Builds the AICPU kernels with the test double of CANN's SDK, and CANN's folders out of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ms_deform.install.aicpu_package import KERNEL_FLAGS, kernel_files
from ms_deform.install.builder import kernel_sources

TESTS = Path(__file__).parent
SDK = TESTS / "aicpu_sdk"
INCLUDE = SDK / "include"
PROTOTYPES = SDK / "prototypes"
_STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread")


def build_aicpu_driver(folder: Path, compiler: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """Compiles aicpu_driver.cc with the kernels and the double, by the kernels' own flags."""
    sources = [*kernel_files(), SDK / "context.cc", SDK / "node.cc", TESTS / "aicpu_driver.cc"]
    return _program(folder / "aicpu_driver", compiler, sources, flags)


def build_library_driver(folder: Path, compiler: Sequence[str], library: Path) -> Path:
    """Compiles aicpu_driver.cc for a library of the kernels, which LD_LIBRARY_PATH must lead to."""
    sources = [TESTS / "aicpu_driver.cc"]
    flags = [f"-L{library.parent}", f"-l:{library.name}"]
    return _program(folder / "library_driver", compiler, sources, flags)


def build_parallel_driver(folder: Path, compiler: Sequence[str]) -> Path:
    double = [SDK / name for name in ("parallel_driver.cc", "context.cc", "node.cc")]
    calls = [kernel_sources() / name for name in ("aicpu/call.cc", "common/geometry.cc")]
    return _program(folder / "parallel_driver", compiler, [*calls, *double])


def _program(
    path: Path, compiler: Sequence[str], sources: Sequence[Path], flags: Sequence[str] = ()
) -> Path:
    includes = [f"-I{folder}" for folder in (kernel_sources(), INCLUDE, TESTS)]
    command = [*compiler, *KERNEL_FLAGS, *_STRICT, *includes, *sources, *flags, "-o", path]
    subprocess.run(command, check=True)
    return path


class Tree(NamedTuple):
    """Where a CANN has what the double stands for."""

    headers: Mapping[str, str]  # of each folder, the headers, with blanks between
    libraries: str
    context: str
    protobuf: str
    prototypes: str
    host_libraries: str


def build_tree(root: Path, tree: Tree, compiler: Sequence[str]) -> Path:
    """Puts the double's headers and archives into the folders of a CANN."""
    for folder, names in tree.headers.items():
        for name in names.split():
            _link(INCLUDE / name, root / folder / name)
    for header in PROTOTYPES.rglob("*.h"):
        _link(header, root / tree.prototypes / header.relative_to(PROTOTYPES))
    libraries = root / tree.libraries
    _archive(libraries / tree.context, ["context"], compiler)
    _archive(libraries / tree.protobuf, ["node"], compiler)
    host = root / tree.host_libraries
    _archive(host / "librt2_registry.a", ["registry", "registry_functions"], compiler, abi=0)
    for name, sources in (("libregister.so", ["operator_factory"]), ("libexe_graph.so", [])):
        _shared(host / name, sources, compiler)
    return root


HEADERS = "cpu_context.h cpu_kernel.h cpu_tensor.h cpu_tensor_shape.h cpu_types.h"
OPP_ARCHIVES = ("libcpu_kernels_context.a", "libascend_protobuf.a")
FOLDER = Tree({"include": HEADERS}, "lib", *OPP_ARCHIVES, "include", "lib")


def build_sdk(folder: Path, compiler: Sequence[str]) -> Path:
    """A folder with include and lib, as MS_DEFORM_AICPU_SDK names one."""
    return build_tree(folder, FOLDER, compiler)


def _link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(source)


def _archive(path: Path, sources: Sequence[str], compiler: Sequence[str], abi: int = 1) -> None:
    with _objects(sources, compiler, abi) as objects:
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ar", "rcs", path, *objects], check=True)


def _shared(path: Path, sources: Sequence[str], compiler: Sequence[str]) -> None:
    with _objects(sources, compiler, abi=0) as objects:
        name = f"-Wl,-soname,{path.name}"
        subprocess.run([*compiler, "-shared", name, *objects, "-o", path], check=True)


@contextmanager
def _objects(sources: Sequence[str], compiler: Sequence[str], abi: int) -> Iterator[list[Path]]:
    with TemporaryDirectory() as folder:
        objects = [Path(folder, f"{source}.o") for source in sources]
        for source, made in zip(sources, objects):
            made.write_bytes(_compiled(source, tuple(compiler), abi))
        yield objects


@cache
def _compiled(source: str, compiler: tuple[str, ...], abi: int) -> bytes:
    flags = ["-std=c++14", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", *_STRICT]
    includes = [f"-I{folder}" for folder in (INCLUDE, PROTOTYPES)]
    with TemporaryDirectory() as folder:
        made = Path(folder, "made.o")
        command = [*compiler, *flags, *includes, "-c", SDK / f"{source}.cc", "-o", made]
        subprocess.run(command, check=True)
        return made.read_bytes()
