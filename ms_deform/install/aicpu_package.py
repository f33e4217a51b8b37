# SPDX-License-Identifier: Apache-2.0
"""Builds the AICPU kernels as a CANN vendor package.

op_impl/cpu/config/cust_aicpu_kernel.json               the list of kernels
op_impl/cpu/aicpu_kernel/impl/libms_deform_aicpu.so      the kernels, for the device
op_proto/lib/linux/ARCH/libcust_opsproto_rt2.0.so        shapes and dtypes, for the host
op_proto/lib/linux/ARCH/libcust_op_proto.so              the same file
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from pathlib import Path

from ms_deform.install.aicpu_operators import LIBRARY, kernel_list
from ms_deform.install.aicpu_sdk import HOST_LIBRARIES, REGISTRY, Prototypes, Sdk
from ms_deform.install.builder import BuildError, build_folder, find_compiler, kernel_sources, run
from ms_deform.install.cann import AICPU_CONFIG, opp_path
from ms_deform.install.library import library_path

_IMPLEMENTATION = Path("op_impl/cpu/aicpu_kernel/impl") / LIBRARY
_PROTO = Path("op_proto/lib/linux") / platform.machine() / "libcust_opsproto_rt2.0.so"
# Of these libraries CANN's shape inference reads all, the register of operators only those whose
# names do not end in rt2.0.so (hicann/ge at ffdcbc9f, graph_metadef/graph/opsproto). A link, so
# that a process loads it once; copied into two files it is as good, since the operators that are
# registered first stay (operator_factory_impl.cc).
_PROTO_LINK = _PROTO.with_name("libcust_op_proto.so")
FILES = (Path(AICPU_CONFIG), _IMPLEMENTATION, _PROTO, _PROTO_LINK)

# GCC 7.3 is the device's compiler.
KERNEL_FLAGS = (
    *("-std=c++14", "-O3", "-fPIC", "-Wall", "-Wextra", "-fvisibility=hidden"),
    "-D_GLIBCXX_USE_CXX11_ABI=1",
)
# Of the SDK: the device runs kernels through these.
_SDK_EXPORTS = ("RunCpuKernel", "RunCpuKernelWithBlock")
# The library brings its own C++ library: the device's may be older than the compiler's.
_KERNEL_LINK_FLAGS = ("-shared", "-Wl,-Bsymbolic", "-static-libstdc++", "-static-libgcc")
# CANN's own libraries on the host have the older ABI.
_PROTO_FLAGS = (
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra"),
    "-D_GLIBCXX_USE_CXX11_ABI=0",
)
_DEVICE_COMPILER = "aarch64-linux-gnu-g++"


def package_path(directory: str | os.PathLike[str] | None = None) -> Path:
    """Where the package is built and looked for."""
    return library_path("aicpu", directory).with_name("aicpu")


def build_package(sdk: Sdk, directory: str | os.PathLike[str] | None = None) -> Path:
    """Builds the package and returns its folder.

    Raises:
        BuildError: If CANN's files for prototypes or a compiler are missing, or a compiler fails.
    """
    prototypes = Prototypes.find(sdk.root)
    package = package_path(directory)
    with build_folder(package) as folder:
        made = folder / "aicpu"
        for file in (AICPU_CONFIG, _IMPLEMENTATION, _PROTO):
            (made / file).parent.mkdir(parents=True)
        (made / AICPU_CONFIG).write_text(json.dumps(kernel_list(), indent=2) + "\n")
        build_kernels(sdk, made / _IMPLEMENTATION)
        _build_proto(prototypes, made / _PROTO)
        (made / _PROTO_LINK).symlink_to(_PROTO.name)
        shutil.rmtree(package, ignore_errors=True)
        made.rename(package)
    return package


def _device_compiler() -> list[str]:
    """From MS_DEFORM_AICPU_CXX, CANN's hcc, or the cross compiler of the distribution."""
    named = os.environ.get("MS_DEFORM_AICPU_CXX")
    opp = opp_path()
    hcc = opp and opp.parent / "toolkit/toolchain/hcc/bin/aarch64-target-linux-gnu-g++"
    command = shlex.split(named) if named else [str(hcc) if hcc and hcc.is_file() else ""]
    command = command if command[0] else [_DEVICE_COMPILER]
    if shutil.which(command[0]) is None:
        raise BuildError(
            f"ms_deform: no compiler for the device: {command[0]} is not on the PATH; install one "
            "(Debian: apt-get install g++-aarch64-linux-gnu) or name it in MS_DEFORM_AICPU_CXX"
        )
    return command


def kernel_files() -> list[Path]:
    """The sources of the kernels' library."""
    sources = kernel_sources()
    return [*sorted((sources / "aicpu").glob("*.cc")), sources / "common" / "geometry.cc"]


def build_kernels(sdk: Sdk, library: Path) -> None:
    """Builds the kernels' library for the device."""
    run(
        [
            *_device_compiler(),
            *KERNEL_FLAGS,
            *(f"-I{folder}" for folder in (kernel_sources(), *sdk.headers)),
            *map(str, kernel_files()),
            *_KERNEL_LINK_FLAGS,
            *_whole(sdk.context, sdk.protobuf),
            # The device's process has a protobuf of its own.
            f"-Wl,--exclude-libs={sdk.protobuf.name}",
            *("-o", str(library)),
        ]
    )
    missing = [name for name in _SDK_EXPORTS if name.encode() not in library.read_bytes()]
    if missing:
        raise BuildError(
            f"ms_deform: {sdk.context} has no {' and no '.join(missing)}, which the device calls "
            "kernels through; name a folder with another in MS_DEFORM_AICPU_SDK"
        )


def _build_proto(prototypes: Prototypes, library: Path) -> None:
    libraries = prototypes.libraries
    run(
        [
            *find_compiler(),
            *_PROTO_FLAGS,
            f"-I{prototypes.headers}",
            str(kernel_sources() / "aicpu" / "op_proto" / "operators.cc"),
            *_whole(libraries / REGISTRY),
            *("-Wl,--no-as-needed", f"-L{libraries}", *(f"-l:{name}" for name in HOST_LIBRARIES)),
            *("-o", str(library)),
        ]
    )


def _whole(*archives: Path) -> tuple[str, ...]:
    """All of the archives, and not only what the sources call."""
    return ("-Wl,--whole-archive", *map(str, archives), "-Wl,--no-whole-archive")
