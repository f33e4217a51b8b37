# SPDX-License-Identifier: Apache-2.0
"""Builds the kernel libraries: for the package build, the command line and the tests alike.

It needs a C++ compiler, and neither MindSpore nor its headers.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from ms_deform._version import __version__
from ms_deform.install.library import ABI, PACKAGE, LibraryError, library_path, read_info

# The CPU's kernels are compiled once for each instruction set of the machine, best first, with
# these flags; the library picks one when it runs. Every aarch64 machine has NEON.
CPU_INSTRUCTION_SETS: dict[str, dict[str, str]] = {
    "x86_64": {
        "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c",
        "avx2": "-mavx2 -mfma -mf16c",
        "baseline": "",
    },
    # GCC would move loads ahead of what they are for, and spill the sums that stay in registers.
    "aarch64": {"neon": "-fno-schedule-insns"},
}
_CPU_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    # It needs a libstdc++ of GCC 5; without it manylinux_2_17 will do, which is MindSpore's glibc.
    "-fno-sized-deallocation",
    "-Wall",
    "-Wextra",
]
_CPU_LINK_FLAGS = ["-shared", "-fopenmp", "-Wl,--no-undefined", "-Wl,-z,relro,-z,now"]

# The CUDA kernels are compiled once for each dtype, and each for all architectures: machine code
# for these, as far as nvcc knows them, and PTX of the last for GPUs that are newer.
CUDA_DTYPES = ("float32", "float64", "float16", "bfloat16")
CUDA_ARCHITECTURES = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
_NVCC_VERSIONS = ((11, 6), (13, 99))
_CUDA_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
_CUDA_LINK_FLAGS = ["-shared", "-cudart=static", "-Xcompiler=-fPIC", "-Xlinker=-z,relro,-z,now"]
# What the extra `cuda` of setup.cfg brings, as a command that needs no checkout.
_PIP_CUDA = (
    'pip install "nvidia-cuda-nvcc>=13.0,<13.1" "nvidia-cuda-crt>=13.0,<13.1" '
    '"nvidia-cuda-runtime>=13.0,<13.1" "nvidia-cuda-cccl>=13.0,<13.1" "nvidia-nvvm>=13.0,<13.1"'
)

TARGETS = ("cpu", "cuda")


class BuildError(RuntimeError):
    """A library could not be built; the message says what to do."""


def build(
    target: str = "cpu",
    force: bool = False,
    directory: str | os.PathLike[str] | None = None,
    extra_flags: Sequence[str] = (),
    architectures: Sequence[str] = (),
) -> Path:
    """Builds the target's library unless the one in place is up to date, and returns its path.

    The library is for the machine that the compiler compiles for.

    Args:
        target: One of `TARGETS`.
        force: Build even if the library is up to date.
        directory: Where the library goes. Default: where `find_library` looks for it.
        extra_flags: Compiler and linker flags after those of CXXFLAGS, for CUDA of NVCCFLAGS.
        architectures: Of the target "cuda": GPUs to build for, such as "sm_80". Default: those of
            `CUDA_ARCHITECTURES` that nvcc knows.

    Raises:
        BuildError: If there is no compiler, it fails or compiles for a machine that the target does
            not support, or the directory cannot be written.
    """
    toolchain = _cuda_toolchain(architectures) if target == "cuda" else _cpu_toolchain()
    recipe = _Recipe.read(target, toolchain, extra_flags)
    library = library_path(target, directory)
    if not force and recipe.made(library):
        return library
    try:
        with build_folder(library) as folder:
            # A builder that held the lock before may have done the work.
            if force or not recipe.made(library):
                built = recipe.compile(folder)
                built.chmod(0o755)
                with built.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(built, library)
    except OSError as error:
        raise BuildError(
            f"ms_deform: cannot write to {library.parent} ({error.strerror}); choose a directory "
            "of your own: MS_DEFORM_LIBRARY_DIR=DIR python -m ms_deform build"
        ) from error
    return library


@contextmanager
def build_folder(product: Path) -> Iterator[Path]:
    """A folder to build the product in, and the lock of all who build it.

    It is beside the product, so that what is finished is renamed and not copied: whoever loads it
    meanwhile sees the old one or the new one, whole.
    """
    product.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(product.with_name(f".{product.name}.lock")):
        prefix = f".build-{product.name}-"
        for left_by_a_killed_builder in product.parent.glob(f"{prefix}*"):
            shutil.rmtree(left_by_a_killed_builder)
        with TemporaryDirectory(prefix=prefix, dir=product.parent) as folder:
            yield Path(folder)


def kernel_sources() -> Path:
    """The folder aot_kernels: inside an installed package, beside it in a checkout."""
    for folder in (PACKAGE / "aot_kernels", PACKAGE.parent / "aot_kernels"):
        if folder.is_dir():
            return folder
    raise BuildError(
        f"ms_deform: no kernel sources inside or beside {PACKAGE}; install the package again, "
        "from its wheel or its repository: pip install --force-reinstall --no-deps PATH"
    )


def find_compiler() -> list[str]:
    """The C++ compiler's command, from CXX or g++."""
    command = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(command[0]) is None:
        raise BuildError(
            f"ms_deform: no C++ compiler: {command[0]} is not on the PATH; install one "
            "(Debian: apt-get install g++) or name it in CXX"
        )
    return command


def compiler_version() -> str:
    """The first line that the C++ compiler says of itself."""
    return run([*find_compiler(), "--version"]).partition("\n")[0]


def compiler_machine() -> str:
    """The machine that the C++ compiler compiles for, as `platform.machine` names it."""
    return run([*find_compiler(), "-dumpmachine"]).strip().partition("-")[0]


def find_nvcc() -> list[str]:
    """nvcc's command: NVCC, or that on the PATH, in CUDA_HOME, /usr/local/cuda, PyPI's wheels."""
    wheels = Path(sysconfig.get_path("purelib"), "nvidia", "cu13")
    home = os.environ.get("CUDA_HOME", "")
    # It may hold an nvcc that only tells MindSpore a version: see install/mindspore_gpu.py.
    toolkits = (home if Path(home, "bin", "ptxas").exists() else "/usr/local/cuda", wheels)
    places = ["nvcc", *(f"{toolkit}/bin/nvcc" for toolkit in toolkits)]
    candidates = (
        [shlex.split(os.environ["NVCC"])] if "NVCC" in os.environ else [[p] for p in places]
    )
    for command in candidates:
        found = shutil.which(command[0])
        if found is not None:
            # The wheels keep their libraries in lib, nvcc looks in lib64.
            of_wheels = [f"-L{wheels / 'lib'}"] if wheels in Path(found).parents else []
            return [found, *command[1:], *of_wheels]
    raise BuildError(
        f"ms_deform: no nvcc: none of {', '.join(command[0] for command in candidates)} is there; "
        f"install a CUDA toolkit, 11.6 to 13, or name its nvcc in NVCC; from PyPI: {_PIP_CUDA}"
    )


def nvcc_version() -> tuple[int, int]:
    """The release of `find_nvcc`, such as (13, 0)."""
    return nvcc_release(find_nvcc())


def nvcc_release(nvcc: list[str]) -> tuple[int, int]:
    """The release that an nvcc says it is of."""
    told = run([*nvcc, "--version"])
    found = re.search(r"release (\d+)\.(\d+)", told)
    if found is None:
        raise BuildError(f"ms_deform: {shlex.join(nvcc)} is not an nvcc: {told.strip()}")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class _Toolchain:
    """What compiles and links a library."""

    compiler: list[str]
    version: str
    compile_flags: list[str]
    link_flags: list[str]
    environment_flags: str  # the variable with the user's own
    kernels: str  # the source that is compiled once for each variant
    variants: dict[str, list[str]]  # name: flags
    made_for: tuple[str, ...]  # what the library says that it is for
    defines: tuple[str, ...]  # of the other sources


def _cpu_toolchain() -> _Toolchain:
    machine = compiler_machine()
    instruction_sets = CPU_INSTRUCTION_SETS.get(machine)
    if instruction_sets is None:
        raise BuildError(
            f"ms_deform: {shlex.join(find_compiler())} compiles for {machine}, the cpu "
            f"library is only for {', '.join(CPU_INSTRUCTION_SETS)}; name another "
            "compiler in CXX"
        )
    return _Toolchain(
        compiler=find_compiler(),
        version=compiler_version(),
        compile_flags=_CPU_FLAGS,
        link_flags=_CPU_LINK_FLAGS,
        environment_flags="CXXFLAGS",
        kernels="kernels.cc",
        variants={
            name: [f"-DMS_DEFORM_ISA={name}", *flags.split()]
            for name, flags in instruction_sets.items()
        },
        made_for=tuple(instruction_sets),
        defines=tuple(f"-DMS_DEFORM_HAVE_{name.upper()}" for name in instruction_sets),
    )


def _cuda_toolchain(architectures: Sequence[str]) -> _Toolchain:
    nvcc, version = find_nvcc(), nvcc_version()
    low, high = _NVCC_VERSIONS
    if not low <= version <= high:
        raise BuildError(
            f"ms_deform: {shlex.join(nvcc)} is of CUDA {version[0]}.{version[1]}, expected 11.6 to "
            "13; name another in NVCC"
        )
    known = run([*nvcc, "--list-gpu-code"]).split()
    unknown = [name for name in architectures if name not in known]
    if unknown:
        raise BuildError(
            f"ms_deform: {shlex.join(nvcc)} does not compile for {', '.join(unknown)}; choose from "
            f"{', '.join(known)}"
        )
    chosen = [*architectures] or [name for name in CUDA_ARCHITECTURES if name in known]
    numbers = [name.partition("_")[2] for name in chosen]
    code = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    code.append(f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}")
    # By its whole path: next to nvcc there may be another one of that name.
    host = f"-ccbin={shutil.which(find_compiler()[0])}"
    return _Toolchain(
        compiler=nvcc,
        version=f"{version[0]}.{version[1]} with {compiler_version()}",
        compile_flags=[*_CUDA_FLAGS, host, *code],
        link_flags=[*_CUDA_LINK_FLAGS, host],
        environment_flags="NVCCFLAGS",
        kernels="kernels.cu",
        variants={dtype: [f"-DMS_DEFORM_DTYPE_{dtype.upper()}"] for dtype in CUDA_DTYPES},
        made_for=(*chosen, f"compute_{numbers[-1]}"),
        defines=(),
    )


@dataclass(frozen=True)
class _Recipe:
    """All that decides the bytes of a library."""

    toolchain: _Toolchain
    sources: Path
    files: tuple[Path, ...]
    flags: tuple[str, ...]
    defines: tuple[str, ...]
    target: str
    digest: str

    @classmethod
    def read(cls, target: str, toolchain: _Toolchain, extra_flags: Sequence[str]) -> _Recipe:
        sources = kernel_sources()
        files = tuple(
            file
            for folder in ("common", target)
            for file in sorted((sources / folder).rglob("*"))
            if file.suffix in (".h", ".cc", ".cu")
        )
        flags = (*shlex.split(os.environ.get(toolchain.environment_flags, "")), *extra_flags)
        defines = (
            f"-DMS_DEFORM_VERSION={__version__}",
            f"-DMS_DEFORM_ISAS={'+'.join(toolchain.made_for)}",
            *toolchain.defines,
        )
        digest = hashlib.sha256(repr((toolchain, flags, defines)).encode())
        for file in files:
            digest.update(f"{file.relative_to(sources)}\n".encode() + file.read_bytes())
        return cls(
            toolchain=toolchain,
            sources=sources,
            files=files,
            flags=flags,
            defines=defines,
            target=target,
            digest=digest.hexdigest()[:16],
        )

    def made(self, library: Path) -> bool:
        """Whether the library is whole and was made by this recipe."""
        try:
            return read_info(library).sources == self.digest
        except (LibraryError, OSError):
            return False

    def compile(self, scratch: Path) -> Path:
        """Compiles the units in parallel and links them, in the scratch directory."""
        toolchain = self.toolchain
        kernels = self.sources / self.target / toolchain.kernels
        units = [(f"kernels-{name}", kernels, flags) for name, flags in toolchain.variants.items()]
        defines = [*self.defines, f"-DMS_DEFORM_SOURCES={self.digest}"]
        units += [
            (f"{file.parent.name}-{file.stem}", file, defines)
            for file in self.files
            if file.suffix == ".cc" and file != kernels
        ]

        def compile_unit(unit: tuple[str, Path, list[str]]) -> str:
            name, source, flags = unit
            built = str(scratch / f"{name}.o")
            abi = f"-D_GLIBCXX_USE_CXX11_ABI={ABI}"
            flags = [*toolchain.compile_flags, abi, f"-I{self.sources}", *flags, *self.flags]
            run([*toolchain.compiler, *flags, "-c", str(source), "-o", built])
            return built

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            objects = list(threads.map(compile_unit, units))
        library = scratch / "library.so"
        link = [*objects, *toolchain.link_flags, *self.flags, "-o", str(library)]
        run([*toolchain.compiler, *link])
        return library


def run(command: list[str]) -> str:
    """What a compiler's command prints; BuildError with all that it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(
            f"ms_deform: the compiler failed ({done.returncode}): {shlex.join(command)}\n"
            f"{done.stderr.strip()}"
        )
    sys.stderr.write(done.stderr)  # warnings, and what else the flags ask for
    return done.stdout
