# SPDX-License-Identifier: Apache-2.0
"""The libraries that a bundle needs, and stubs for those that it only has to have."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Symbol(NamedTuple):
    name: str
    version: str
    kind: str
    size: int


def dynamic_symbols(library: Path, which: str) -> list[Symbol]:
    """which: --defined-only or --undefined-only."""
    lines = _output("nm", "-D", "-P", "-t", "d", which, library).splitlines()
    symbols = []
    for line in lines:
        name, kind, *numbers = line.split()
        name, _, version = name.replace("@@", "@").partition("@")
        symbols.append(Symbol(name, version, kind, int(numbers[1]) if len(numbers) == 2 else 0))
    return symbols


def needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-d", library))


def closure(roots: Iterable[Path], available: dict[str, Path]) -> set[Path]:
    """The roots and all that they need of what is available, by soname."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        library = waiting.pop()
        if library not in found:
            found.add(library)
            waiting += [available[name] for name in needed(library) if name in available]
    return found


def build_stub(path: Path, source: str, version: str) -> None:
    """A library that is found under the name of its file; version: of its symbols, if any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = path.with_name(f"{path.name}.cc")
    unit.write_text(source)
    command = ["g++", "-shared", "-fPIC", "-Os", "-s", f"-Wl,-soname,{path.name}", unit]
    script = path.with_name(f"{path.name}.map")
    if version:
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-o", path], check=True)
    unit.unlink()
    script.unlink(missing_ok=True)


def stub_source(library: str, symbols: Iterable[Symbol]) -> str:
    lines = [_HEAD.replace("LIBRARY", library)]
    for symbol in sorted(set(symbols)):
        lines.append(_definition(symbol))
    return "\n".join([*lines, "}", ""])


_HEAD = """
#include <stdexcept>
#include <string>
static char handle[64];
[[noreturn]] static void Missing(const char* name) {
  throw std::runtime_error(std::string("not in this bundle: ") + name + " of LIBRARY");
}
extern "C" {"""
# What MindSpore's GPU device calls of every library when it starts and ends.
_MAKES_HANDLE = re.compile(r"cu(blas|dnn|solverDn|sparse)Create(_v2)?")
_SUCCEEDS = re.compile(r"cu\w+(Destroy|SetMathMode|SetPointerMode|SetStream)(_v2)?|nvrtcVersion")


def _definition(symbol: Symbol) -> str:
    name = symbol.name
    if symbol.kind in "BDRVG":
        return f"__attribute__((aligned(16))) char {name}[{symbol.size}];"
    if _MAKES_HANDLE.fullmatch(name):
        return f"int {name}(void** to) {{ *to = handle; return 0; }}"
    if _SUCCEEDS.fullmatch(name):
        return f"int {name}() {{ return 0; }}"
    return f'void {name}() {{ Missing("{name}"); }}'


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
