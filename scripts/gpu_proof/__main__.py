# SPDX-License-Identifier: Apache-2.0
"""Prove the CUDA kernels on this machine's NVIDIA GPU.

Builds them for it; runs tests/gpu, a benchmark beside torchvision's operator, NVIDIA's
compute-sanitizer, and ncu where that is there. It takes less than nine minutes, goes on after a
part that fails, and needs neither the network nor MindSpore. The folder gets a table for a README,
all figures as JSON, a plot, and a log of each part.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpu_proof import table
from gpu_proof.parts import PARTS, parts_for
from gpu_proof.run import run_parts

# Where a toolkit's programs are that are often not on the PATH; the newest of a pattern.
TOOL_FOLDERS = ("/usr/local/cuda/bin", "/usr/local/nvidia/bin", "/opt/nvidia/nsight-compute/*")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/prove_gpu.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=Path("gpu_proof"), help="(default: %(default)s)")
    add("--rows", nargs="+", metavar="ROW", help="as of scripts/benchmark.py (default: all)")
    add("--wheels", type=Path, metavar="DIR", help="with .whl files of packages that are missing")
    # In place of the other parts: with them it would take more than ten minutes.
    only = "with a bundle of scripts/pack_mindspore.py: prove MindSpore's GPU target, nothing else"
    add("--mindspore", type=Path, metavar="DIR", help=only)
    names = [part.name for part in PARTS]
    add("--parts", default=",".join(names), help="(default: %(default)s); card and build always")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"--parts: no {', '.join(unknown)}, only {', '.join(names)}")
    return options


def set_environment(scratch: Path) -> None:
    """What every part reads."""
    places = [f"{os.environ['CUDA_HOME']}/bin"] if "CUDA_HOME" in os.environ else []
    places += [found[-1] for found in map(sorted, map(glob, TOOL_FOLDERS)) if found]
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *places])
    # A library is not loaded from where others can write, as they may where the checkout is.
    os.umask(0o022)
    os.environ.setdefault("MS_DEFORM_LIBRARY_DIR", str(scratch / "lib"))
    os.environ["NVCCFLAGS"] = f"{os.environ.get('NVCCFLAGS', '')} -Xptxas=-v".strip()
    os.environ["PYTHONUNBUFFERED"] = "1"  # a log then has all that was printed before the end


def main() -> int:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what runs
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Any] = {}
    with TemporaryDirectory(prefix="gpu_proof-") as scratch:
        set_environment(Path(scratch))
        for reports in run_parts(parts_for(options), options, folder, Path(scratch)):
            name, report = list(reports.items())[-1]
            why = f": {report['why']}" if report["why"] else ""
            print(f"{name}: {report['state']} after {report['seconds']:.0f} s{why}", flush=True)
            (folder / "proof.json").write_text(json.dumps(reports, indent=1))
            (folder / "table.md").write_text(table.proof(reports))
    print(f"\n{(folder / 'table.md').read_text()}")
    wrong = [name for name, report in reports.items() if report["state"] in ("failed", "not run")]
    print(f"{folder}: {'failed: ' + ', '.join(wrong) if wrong else 'all is proven'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
