# SPDX-License-Identifier: Apache-2.0
"""Which libraries need which, and stubs of those whose work is not needed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class Symbol(NamedTuple):
    name: str
    version: str
    kind: str  # as nm has it
    size: int


def dynamic_symbols(library: Path, defined: bool) -> list[Symbol]:
    which = "--defined-only" if defined else "--undefined-only"
    symbols = []
    for line in _output("nm", "-D", "-P", "-t", "d", which, library).splitlines():
        # Name, kind, address and size, the last two where there are any.
        versioned, kind, *_, size = f"{line} 0".replace("@@", "@").split()[:4]
        name, _, version = versioned.partition("@")
        symbols.append(Symbol(name, version, kind, int(size)))
    return symbols


def needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-d", library))


def closure(roots: Iterable[Path], available: Mapping[str, Path]) -> set[Path]:
    """The roots, and what they need of what is available under its soname."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        library = waiting.pop()
        if library not in found:
            found.add(library)
            waiting += [available[name] for name in needed(library) if name in available]
    return found


_HEAD = """
#include <stdexcept>
#include <string>

namespace {

[[maybe_unused]] char handle[64];

[[noreturn, maybe_unused]] void Missing(const char* name) {
  throw std::runtime_error(std::string("not in this bundle of MindSpore: ") + name);
}

}  // namespace

extern "C" {
"""
# What MindSpore's GPU device calls of every library when it starts and when it ends.
_MAKES_HANDLE = re.compile(r"cu(blas|dnn|solverDn|sparse)Create(_v2)?")
_SUCCEEDS = re.compile(r"cu\w+(Destroy|SetMathMode|SetPointerMode|SetStream)(_v2)?|nvrtcVersion")


def stub_source(library: str, symbols: Iterable[Symbol]) -> str:
    """C++ that defines the symbols: a function throws its name, data are zeros."""
    return "\n".join([_HEAD, *(_definition(library, each) for each in sorted(symbols)), "}\n"])


def _definition(library: str, symbol: Symbol) -> str:
    name = symbol.name
    if symbol.kind in "BDRV":
        return f"alignas(16) char {name}[{symbol.size}];"
    if _MAKES_HANDLE.fullmatch(name):
        return f"int {name}(void** made) {{ *made = handle; return 0; }}"
    if _SUCCEEDS.fullmatch(name):
        return f"int {name}() {{ return 0; }}"
    return f'void {name}() {{ Missing("{name} of {library}"); }}'


_COMPILER = ("g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-s")


def build_stub(path: Path, source: str, version: str = "") -> None:
    """The library at path, under its name; version: of its symbols, if they have one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit, script = (path.with_name(f"{path.name}{suffix}") for suffix in (".cc", ".map"))
    unit.write_text(source)
    command = [*_COMPILER, f"-Wl,-soname,{path.name}", unit]
    if version:
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-o", path], check=True)
    unit.unlink()
    script.unlink(missing_ok=True)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
