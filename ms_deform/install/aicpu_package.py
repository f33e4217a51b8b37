# SPDX-License-Identifier: Apache-2.0
"""Builds the AICPU kernels as a CANN vendor package, and installs it.

op_impl/cpu/config/cust_aicpu_kernel.json               the list of kernels
op_impl/cpu/aicpu_kernel/impl/libms_deform_aicpu.so      the kernels, for the device
op_proto/lib/linux/ARCH/libcust_opsproto_rt2.0.so        shapes and dtypes, for the host
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from ms_deform.install.aicpu_operators import LIBRARY, OPERATORS, kernel_list
from ms_deform.install.builder import BuildError, build_folder, find_compiler, kernel_sources, run
from ms_deform.install.cann import AICPU_CONFIG, opp_path
from ms_deform.install.library import library_path

_IMPLEMENTATION = Path("op_impl/cpu/aicpu_kernel/impl") / LIBRARY
_PROTO = Path("op_proto/lib/linux") / platform.machine() / "libcust_opsproto_rt2.0.so"

# GCC 7.3 is the device's compiler.
KERNEL_FLAGS = (
    *("-std=c++14", "-O3", "-fPIC", "-Wall", "-Wextra", "-fvisibility=hidden"),
    "-D_GLIBCXX_USE_CXX11_ABI=1",
)
# Of the SDK: what finds kernels by name; the device loads the library through its RunCpuKernel.
_SDK_LIBRARIES = ("libascend_protobuf.a", "libcpu_kernels_context.a")
_SDK_EXPORTS = ("RunCpuKernel", "RunCpuKernelWithBlock")
# The library brings its own C++ library: the device's may be older than the compiler's.
_KERNEL_LINK_FLAGS = ("-shared", "-Wl,-Bsymbolic", "-static-libstdc++", "-static-libgcc")
# CANN's own libraries on the host have the older ABI.
_PROTO_FLAGS = (
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra"),
    "-D_GLIBCXX_USE_CXX11_ABI=0",
)
_PROTO_HEADER = "graph/operator_reg.h"
_DEVICE_COMPILER = "aarch64-linux-gnu-g++"


def package_path(directory: str | os.PathLike[str] | None = None) -> Path:
    """Where the package is built and looked for."""
    return library_path("aicpu", directory).with_name("aicpu")


def build_package(directory: str | os.PathLike[str] | None = None) -> Path:
    """Builds the package and returns its folder.

    Raises:
        BuildError: If CANN's SDK or a compiler is missing or fails.
    """
    sdk = Sdk.find()
    package = package_path(directory)
    with build_folder(package) as folder:
        made = folder / "aicpu"
        for file in (AICPU_CONFIG, _IMPLEMENTATION, _PROTO):
            (made / file).parent.mkdir(parents=True)
        (made / AICPU_CONFIG).write_text(json.dumps(kernel_list(), indent=2) + "\n")
        build_kernels(sdk, made / _IMPLEMENTATION)
        _build_proto(sdk, made / _PROTO)
        shutil.rmtree(package, ignore_errors=True)
        made.rename(package)
    return package


def install_package(
    target: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] | None = None
) -> Path:
    """Copies the built package to where ASCEND_CUSTOM_OPP_PATH points first, or to the target.

    Raises:
        BuildError: If there is no package, no target, or the target holds another vendor's.
    """
    package = package_path(directory)
    if not (package / AICPU_CONFIG).is_file():
        raise BuildError(
            f"ms_deform: no AICPU package at {package}; build it: python -m ms_deform build --aicpu"
        )
    custom = os.environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":")[0]
    if not (target or custom):
        raise BuildError(
            "ms_deform: where to? name a folder, python -m ms_deform install-aicpu DIR, or set "
            "ASCEND_CUSTOM_OPP_PATH"
        )
    folder = Path(target or custom).absolute()
    config = folder / AICPU_CONFIG
    if config.is_file() and not set(json.loads(config.read_text())) <= {o.name for o in OPERATORS}:
        raise BuildError(
            f"ms_deform: {folder} holds the AICPU operators of another vendor; choose another "
            "folder, and list both in ASCEND_CUSTOM_OPP_PATH"
        )
    try:
        shutil.copytree(package, folder, dirs_exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"ms_deform: cannot write to {folder} ({error}); choose a folder of your own: "
            "python -m ms_deform install-aicpu DIR"
        ) from error
    return folder


@dataclass(frozen=True)
class Sdk:
    """CANN's headers and libraries for AICPU kernels and operator prototypes."""

    kernel_include: Path
    kernel_library: Path
    proto_include: Path

    @classmethod
    def find(cls) -> Sdk:
        """That of MS_DEFORM_AICPU_SDK, with include and lib, or that of the installed CANN."""
        named = os.environ.get("MS_DEFORM_AICPU_SDK")
        opp = opp_path()
        if named:
            include = Path(named, "include")
            cann = opp is not None and not (include / _PROTO_HEADER).is_file()
            proto_include = opp.parent / "include" if cann else include
            return cls(include, Path(named, "lib"), proto_include)
        if opp is None:
            raise BuildError(
                "ms_deform: no CANN: ASCEND_OPP_PATH names no folder; source CANN's set_env.sh "
                "(usually /usr/local/Ascend/ascend-toolkit/set_env.sh), or name an SDK with "
                "include and lib in MS_DEFORM_AICPU_SDK"
            )
        kernels = opp / "built-in/op_impl/aicpu/aicpu_kernel"
        libraries = sorted(kernels.rglob(_SDK_LIBRARIES[1]))
        if not libraries:
            raise BuildError(
                f"ms_deform: no {_SDK_LIBRARIES[1]} below {kernels}; install CANN with its "
                "operators' development files (toolkit and kernels)"
            )
        return cls(kernels / "inc", libraries[0].parent, opp.parent / "include")


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
    archives = [f"{sdk.kernel_library / name}" for name in _SDK_LIBRARIES]
    run(
        [
            *_device_compiler(),
            *KERNEL_FLAGS,
            *(f"-I{folder}" for folder in (kernel_sources(), sdk.kernel_include)),
            *map(str, kernel_files()),
            *_KERNEL_LINK_FLAGS,
            *("-Wl,--whole-archive", *archives, "-Wl,--no-whole-archive"),
            *("-o", str(library)),
        ]
    )
    missing = [name for name in _SDK_EXPORTS if name.encode() not in library.read_bytes()]
    if missing:
        raise BuildError(
            f"ms_deform: the SDK at {sdk.kernel_library} has no {' and no '.join(missing)}, which "
            "the device calls kernels through; name another in MS_DEFORM_AICPU_SDK"
        )


def _build_proto(sdk: Sdk, library: Path) -> None:
    if not (sdk.proto_include / _PROTO_HEADER).is_file():
        raise BuildError(
            f"ms_deform: no {_PROTO_HEADER} in {sdk.proto_include}; source CANN's set_env.sh as "
            "well, for its headers (toolkit)"
        )
    source = kernel_sources() / "aicpu" / "op_proto" / "operators.cc"
    include = f"-I{sdk.proto_include}"
    run([*find_compiler(), *_PROTO_FLAGS, include, str(source), "-o", str(library)])
