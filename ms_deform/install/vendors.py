# SPDX-License-Identifier: Apache-2.0
"""CANN's list of the vendors whose operators it loads: the file vendors/config.ini.

Its line ``load_priority=NAME,NAME`` names folders beside it, those that are asked first in front.
CANN reads no vendor's folder that is not in it: hicann/ge at ffdcbc9f,
``compiler/engines/cpu_engine/common/util/util.cc``. It is written as CANN's packages of operators
do: CANN 8.1.RC1, ``tools/msopgen/template/custom_operator_sample/AICPU/*/scripts/install.sh``.
"""

from __future__ import annotations

import re
from pathlib import Path

CONFIG = "config.ini"

_LINE = re.compile(r"^(?!#)[^\r\n=]*load_priority[^\r\n=]*=(?P<names>[^\r\n]*)(?:\r?\n)?", re.M)


def listed(config: Path) -> list[str]:
    """The vendors that are loaded, in their order."""
    return _names(_LINE.search(_text(config)))


def add(config: Path, vendor: str) -> None:
    """Puts a vendor in front of all others, which stay as they are."""
    text = _text(config)
    line = _LINE.search(text)
    if line is None:
        # In front, because a part of CANN reads the first line only: hicann/metadef at 786891c0,
        # GetOppPluginVendors in base/common/plugin/plugin_manager.cc.
        _write(config, f"load_priority={vendor}\n{text}")
        return
    others = [name for name in _names(line) if name != vendor]
    _replace_names(config, text, line, [vendor, *others])


def remove(config: Path, vendor: str) -> None:
    """Takes a vendor out; a line that names no other goes with it, and a file that says no more."""
    text = _text(config)
    line = _LINE.search(text)
    names = _names(line)
    if line is None or vendor not in names:
        return
    others = [name for name in names if name != vendor]
    if others:
        _replace_names(config, text, line, others)
        return
    rest = text[: line.start()] + text[line.end() :]
    if rest.strip():
        _write(config, rest)
    else:
        config.unlink()


def _names(line: re.Match[str] | None) -> list[str]:
    return [name.strip() for name in line["names"].split(",") if name.strip()] if line else []


def _replace_names(config: Path, text: str, line: re.Match[str], names: list[str]) -> None:
    start, end = line.span("names")
    changed = f"{text[:start]}{','.join(names)}{text[end:]}"
    if changed != text:
        _write(config, changed)


# As bytes, so that the ends of lines stay.
def _text(config: Path) -> str:
    return config.read_bytes().decode() if config.is_file() else ""


def _write(config: Path, text: str) -> None:
    config.write_bytes(text.encode())
