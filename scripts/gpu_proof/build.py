# SPDX-License-Identifier: Apache-2.0
"""Builds the library for an architecture, and writes what was built into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gpu_proof.run import Report
from ms_deform.install import builder
from ms_deform.install.library import read_info


def build(architecture: str) -> Report:
    try:
        info = read_info(builder.build("cuda", architectures=[architecture]))
        major, minor = builder.nvcc_version()
    except builder.BuildError as error:
        sys.exit(str(error))
    return {"built": info.isas, "sources": info.sources, "nvcc": f"{major}.{minor}"}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(build(sys.argv[2])))
