# SPDX-License-Identifier: Apache-2.0
"""Builds the kernel libraries: for the package build, the command line and the tests alike.

It needs a C++ compiler, and neither MindSpore nor its headers.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from ms_deform._version import __version__
from ms_deform.library import ABI, PACKAGE, LibraryError, library_path, read_info

# Kernels are compiled once for each instruction set of the machine, best first, with these flags;
# the library picks one when it runs. Every aarch64 machine has NEON.
InstructionSets = dict[str, str]
_CPU_INSTRUCTION_SETS: dict[str, InstructionSets] = {
    "x86_64": {
        "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c",
        "avx2": "-mavx2 -mfma -mf16c",
        "baseline": "",
    },
    # GCC would move loads ahead of what they are for, and spill the sums that stay in registers.
    "aarch64": {"neon": "-fno-schedule-insns"},
}
_COMPILE_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    f"-D_GLIBCXX_USE_CXX11_ABI={ABI}",
]
_LINK_FLAGS = ["-shared", "-fopenmp", "-Wl,--no-undefined", "-Wl,-z,relro,-z,now"]


@dataclass(frozen=True)
class Target:
    """A library: its folder of aot_kernels, and its instruction sets for each machine."""

    folder: str
    instruction_sets: dict[str, InstructionSets]


TARGETS = {"cpu": Target("cpu", _CPU_INSTRUCTION_SETS)}


class BuildError(RuntimeError):
    """A library could not be built; the message says what to do."""


def build(
    target: str = "cpu",
    force: bool = False,
    directory: str | os.PathLike[str] | None = None,
    extra_flags: Sequence[str] = (),
) -> Path:
    """Builds the target's library unless the one in place is up to date, and returns its path.

    The library is for the machine that the compiler compiles for.

    Args:
        target: A key of `TARGETS`.
        force: Build even if the library is up to date.
        directory: Where the library goes. Default: where `find_library` looks for it.
        extra_flags: Compiler and linker flags after those of CXXFLAGS.

    Raises:
        BuildError: If there is no compiler, it fails or compiles for a machine that the target does
            not support, or the directory cannot be written.
    """
    recipe = _Recipe.read(target, extra_flags)
    library = library_path(target, directory)
    if not force and recipe.made(library):
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(library.with_name(f".{library.name}.lock")):
            # A builder that held the lock before may have done the work.
            if force or not recipe.made(library):
                # Beside the library, so that the finished one is renamed and not copied: whoever
                # loads it meanwhile sees the old one or the new one, whole.
                with TemporaryDirectory(prefix=".build-", dir=library.parent) as scratch:
                    built = recipe.compile(Path(scratch))
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


def kernel_sources() -> Path:
    """The folder aot_kernels: inside an installed package, beside it in a checkout."""
    for folder in (PACKAGE / "aot_kernels", PACKAGE.parent / "aot_kernels"):
        if folder.is_dir():
            return folder
    raise BuildError(
        f"ms_deform: no kernel sources inside or beside {PACKAGE}; install the package again: "
        "pip install --force-reinstall --no-deps ms_deform"
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
    return _run([*find_compiler(), "--version"]).partition("\n")[0]


def compiler_machine() -> str:
    """The machine that the C++ compiler compiles for, as `platform.machine` names it."""
    return _run([*find_compiler(), "-dumpmachine"]).strip().partition("-")[0]


@dataclass(frozen=True)
class _Recipe:
    """All that decides the bytes of a library."""

    compiler: list[str]
    sources: Path
    files: tuple[Path, ...]
    instruction_sets: InstructionSets
    flags: tuple[str, ...]
    defines: tuple[str, ...]
    target: str
    digest: str

    @classmethod
    def read(cls, target: str, extra_flags: Sequence[str]) -> _Recipe:
        machine = compiler_machine()
        instruction_sets = TARGETS[target].instruction_sets.get(machine)
        if instruction_sets is None:
            raise BuildError(
                f"ms_deform: {shlex.join(find_compiler())} compiles for {machine}, the {target} "
                f"library is only for {', '.join(TARGETS[target].instruction_sets)}; name another "
                "compiler in CXX"
            )
        sources = kernel_sources()
        files = tuple(
            file
            for folder in ("common", TARGETS[target].folder)
            for file in sorted((sources / folder).rglob("*"))
            if file.suffix in (".h", ".cc")
        )
        flags = (*shlex.split(os.environ.get("CXXFLAGS", "")), *extra_flags)
        defines = (
            f"-DMS_DEFORM_VERSION={__version__}",
            f"-DMS_DEFORM_ISAS={'+'.join(instruction_sets)}",
            *(f"-DMS_DEFORM_HAVE_{name.upper()}" for name in instruction_sets),
        )
        told = (compiler_version(), _COMPILE_FLAGS, _LINK_FLAGS, instruction_sets, flags, defines)
        digest = hashlib.sha256(repr(told).encode())
        for file in files:
            digest.update(f"{file.relative_to(sources)}\n".encode() + file.read_bytes())
        return cls(
            compiler=find_compiler(),
            sources=sources,
            files=files,
            instruction_sets=instruction_sets,
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
        kernels = self.sources / TARGETS[self.target].folder / "kernels.cc"
        units = [
            (f"kernels-{name}", kernels, [f"-DMS_DEFORM_ISA={name}", *flags.split()])
            for name, flags in self.instruction_sets.items()
        ]
        defines = [*self.defines, f"-DMS_DEFORM_SOURCES={self.digest}"]
        units += [
            (f"{file.parent.name}-{file.stem}", file, defines)
            for file in self.files
            if file.suffix == ".cc" and file != kernels
        ]

        def compile_unit(unit: tuple[str, Path, list[str]]) -> str:
            name, source, flags = unit
            built = str(scratch / f"{name}.o")
            flags = [*_COMPILE_FLAGS, f"-I{self.sources}", *flags, *self.flags]
            _run([*self.compiler, *flags, "-c", str(source), "-o", built])
            return built

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            objects = list(threads.map(compile_unit, units))
        library = scratch / "library.so"
        _run([*self.compiler, *objects, *_LINK_FLAGS, *self.flags, "-o", str(library)])
        return library


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(
            f"ms_deform: the compiler failed ({done.returncode}): {shlex.join(command)}\n"
            f"{done.stderr.strip()}"
        )
    return done.stdout
