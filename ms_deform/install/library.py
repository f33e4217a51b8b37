# SPDX-License-Identifier: Apache-2.0
"""Finds a backend's library, and refuses one that does not fit before anything of it is loaded."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ms_deform._version import __version__

PACKAGE = Path(__file__).resolve().parents[1]
# Device target: what the builder and `find_library` call the library of the backend "aot".
LIBRARY_TARGETS = {"CPU": "cpu", "GPU": "cuda"}
# The C++ ABI that MindSpore is built with: with the other one, the first attribute that a kernel
# reads from its AotExtra crashes the process.
ABI = 0

_MARKER = re.compile(
    rb"@ms_deform version=(\S+) abi=(\d+) target=(\S+) isas=(\S+) sources=([0-9a-f]{16})@"
)
# e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize,
# e_phnum, e_shentsize, e_shnum, e_shstrndx of a 64-bit little-endian ELF file.
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_ELF_IDENT = b"\x7fELF\x02\x01"
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}

_BUILD = "python -m ms_deform build"
# For what the builder does not see: it takes a library built from the present sources as good.
_REBUILD = "python -m ms_deform build --force"
_INSTALL_OPENMP = (
    "install GCC's OpenMP library, which MindSpore needs, too (Debian: apt-get install libgomp1)"
)


class LibraryError(RuntimeError):
    """A library that is missing or refused; the message ends with the command that mends it."""


@dataclass(frozen=True)
class LibraryInfo:
    """What a library says of itself: its ELF header, and what `common/library_info.h` writes."""

    machine: str
    version: str
    abi: int
    target: str
    isas: tuple[str, ...]
    sources: str


def library_path(target: str, directory: str | os.PathLike[str] | None = None) -> Path:
    """Where the target's library is built and looked for."""
    directory = directory or os.environ.get("MS_DEFORM_LIBRARY_DIR") or PACKAGE / "lib"
    return Path(directory).absolute() / f"libms_deform_{target}.so"


def find_library(target: str) -> Path:
    """The absolute path of the target's library, checked.

    Raises:
        LibraryError: If the library is missing or must not be used.
    """
    path = library_path(target)
    try:
        # The change time moves with the content and with the permissions.
        return _check(path, path.stat().st_ctime_ns)
    except OSError as error:
        raise LibraryError(
            f"ms_deform: no {target} library at {path} ({error.strerror}){_checkout_hint()} "
            f"build it: {_BUILD}{' --cuda' if target == 'cuda' else ''}"
        ) from None


def _checkout_hint() -> str:
    """For who has installed the package and then stays in its sources, which Python prefers."""
    if not (PACKAGE.parent / "setup.cfg").is_file():
        return ";"
    return f". If pip has installed ms_deform, leave {PACKAGE.parent}; else"


def read_info(path: Path) -> LibraryInfo:
    """What the library at path was built from and for, without loading it.

    Raises:
        LibraryError: If the file is not a whole library of ms_deform.
    """
    if not path.is_file():
        raise _refusal(path, "must be a regular file", _BUILD)
    data = path.read_bytes()
    if len(data) < _ELF_HEADER.size or not data.startswith(_ELF_IDENT):
        raise _refusal(path, "is not a 64-bit ELF library", _BUILD)
    header = _ELF_HEADER.unpack_from(data)
    elf_machine, sections, section_size, section_count = (header[i] for i in (2, 6, 11, 12))
    whole = sections + section_size * section_count
    if len(data) < whole:
        raise _refusal(path, f"is truncated: {len(data)} of {whole} bytes", _BUILD)
    marker = _MARKER.search(data)
    if marker is None:
        raise _refusal(path, "does not say what it was built for", _BUILD)
    version, abi, target, isas, sources = (field.decode() for field in marker.groups())
    machine = _ELF_MACHINES.get(elf_machine, f"ELF machine {elf_machine}")
    return LibraryInfo(machine, version, int(abi), target, tuple(isas.split("+")), sources)


def loaded_isa(target: str) -> str:
    """The instruction set or GPU that the target's library runs on here, or why there is none."""
    return library_function(target, "isa", ctypes.c_char_p)().decode()


def library_function(target: str, name: str, returns: type | None) -> Callable[[], Any]:
    """What the target's library has for Python under a name.

    Raises:
        LibraryError: If the library is missing or must not be used.
    """
    function = getattr(ctypes.CDLL(str(find_library(target))), f"ms_deform_{target}_{name}")
    function.restype = returns
    return function


@cache
def _check(path: Path, changed: int) -> Path:
    resolved = path.resolve(strict=True)
    _check_permissions(resolved)
    info = read_info(resolved)
    if info.machine != platform.machine():
        raise _refusal(path, f"is for {info.machine}, this machine is {platform.machine()}", _BUILD)
    if info.version != __version__:
        raise _refusal(
            path, f"is of version {info.version}, this is ms_deform {__version__}", _BUILD
        )
    if info.abi != ABI:
        raise _refusal(
            path, f"has C++ ABI _GLIBCXX_USE_CXX11_ABI={info.abi}, MindSpore needs {ABI}", _BUILD
        )
    try:
        ctypes.CDLL(str(resolved))
    except OSError as error:
        # A system without a compiler may lack it; the rest that the library links to, Python needs.
        mend = _INSTALL_OPENMP if str(error).startswith("libgomp") else _REBUILD
        raise _refusal(path, f"does not load: {error}", mend) from None
    return resolved


def _check_permissions(path: Path) -> None:
    """Refuses a library that someone could replace who cannot already replace this package."""
    owners = {0, os.geteuid(), *(item.stat().st_uid for item in (PACKAGE, *PACKAGE.parents))}
    for item in (path, *path.parents):
        status = item.stat()
        if status.st_uid not in owners:
            raise _refusal(path, f"is not trusted: user {status.st_uid} owns {item}", _REBUILD)
        # In a sticky directory (/tmp) only owners replace what is there: safe above the library's
        # own directory, but not as that directory.
        if status.st_mode & stat.S_ISVTX and item != path.parent:
            continue
        # A user's own primary group is private to the user where the umask is 002.
        shared_group = status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid()
        if status.st_mode & stat.S_IWOTH or shared_group:
            reason = f"is not trusted: others can write to {item}"
            raise _refusal(path, reason, f"chmod go-w {item}")


def _refusal(path: Path, reason: str, mend: str) -> LibraryError:
    return LibraryError(f"ms_deform: library {path} {reason}; mend it: {mend}")
