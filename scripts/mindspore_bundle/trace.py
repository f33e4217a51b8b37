# SPDX-License-Identifier: Apache-2.0
"""python -m mindspore_bundle.trace FILE ARGUMENTS: pytest with them; FILE lists what it read."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from runpy import run_module

_OPENED: set[str] = set()


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        _OPENED.add(arguments[0])


def _source_of(name: str) -> str:
    return re.sub(r"/__pycache__/(\w+)\..*", r"/\1.py", name)


def main() -> None:
    listing = Path(sys.argv.pop(1))
    sys.addaudithook(_note)
    try:
        run_module("pytest", run_name="__main__")
    finally:
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        listing.write_text("\n".join(sorted({*map(_source_of, _OPENED), *mapped})))


if __name__ == "__main__":
    main()
