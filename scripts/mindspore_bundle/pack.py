# SPDX-License-Identifier: Apache-2.0
"""Pack as much of this Python's MindSpore as its GPU target needs to run this project's operator.

For a machine with an NVIDIA GPU and its driver, the same version of Python, and neither MindSpore
nor a network: `scripts/prove_gpu.sh --mindspore FOLDER` runs the tests there. What belongs into the
bundle is what the tests read here, where libraries stand in for CUDA; before it is written they run
from it alone. CUDA's runtime is real: `pip install nvidia-cuda-runtime-cu11`.
"""

from __future__ import annotations

import argparse
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from shutil import copytree, move
from tempfile import TemporaryDirectory

import gpu_stand_in
from mindspore_bundle import run
from mindspore_bundle.packages import DRIVER, RUNTIME, assemble

# Machine code packs better when jumps to one place look alike.
FILTERS = (
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**28},
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="gets the bundle, one file")
    folder = parser.parse_args().folder
    if not RUNTIME.is_file():
        parser.error(f"no {RUNTIME}: pip install nvidia-cuda-runtime-cu11")
    with TemporaryDirectory() as name:
        scratch = Path(name)
        stand_in = gpu_stand_in.environment(_made(scratch / "stand_in"))
        bundle = scratch / "bundle"
        assemble(files_read(scratch / "read", stand_in), bundle / "site")
        copytree(Path(stand_in["CUDA_HOME"], "bin"), bundle / "cuda" / "bin")
        prove(bundle, stand_in)
        packed = scratch / run.archive_name(version("mindspore"))
        pack(bundle, packed)
        archive = Path(move(packed, _made(folder) / packed.name))
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB")


def files_read(listing: Path, stand_in: Mapping[str, str]) -> list[Path]:
    """What the tests read on the stand-in."""
    places = [str(run.ROOT / place) for place in (".", "tests", "scripts")]
    environment = {**os.environ, **stand_in, "PYTHONPATH": os.pathsep.join(places)}
    arguments = ["-m", "mindspore_bundle.trace", str(listing), *run.PYTEST_ARGUMENTS]
    _run([sys.executable, *arguments], environment)
    return list(map(Path, listing.read_text().split("\n")))


def prove(bundle: Path, stand_in: Mapping[str, str]) -> None:
    """Runs the tests from the bundle alone; only CUDA's runtime and driver are stood in for."""
    libraries = Path(stand_in["CUDA_HOME"], "lib")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_PRELOAD": f"{libraries / RUNTIME.name}:{libraries / DRIVER}",
        "MS_DEFORM_LIBRARY_DIR": stand_in["MS_DEFORM_LIBRARY_DIR"],
    }
    _run(run.call_times(bundle, bundle.with_name("call_times.json")), environment)
    _run(run.tests(bundle), environment)


def pack(bundle: Path, archive: Path) -> None:
    # Libraries beside each other, as they have much in common.
    files = sorted(filter(Path.is_file, bundle.rglob("*")), key=lambda path: (path.suffix, path))
    with (
        lzma.open(archive, "wb", filters=FILTERS) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for path in files:
            tar.add(path, path.relative_to(bundle))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    if subprocess.run(command, cwd=run.ROOT, env=environment).returncode != 0:
        sys.exit(f"no bundle was made, as this failed: {' '.join(command)}")
