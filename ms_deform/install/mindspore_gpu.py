# SPDX-License-Identifier: Apache-2.0
"""What MindSpore's GPU target needs of CUDA 11 to start, and what brings it. Needs no MindSpore.

Seen with MindSpore 2.7 and 2.10: it looks for bin/nvcc in CUDA_HOME, asks it for its version, and
loads its plugin for CUDA 11.6 if that is 11.6 or a later 11. The plugin links to libraries of CUDA
11, of which MindSpore brings none.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from ms_deform.install.builder import BuildError, nvcc_release

_PLUGIN = "lib/plugin/libmindspore_gpu.so.11.6"
_DRIVER = "libcuda.so.1"
_RELEASES = ((11, 6), (11, 99))
_TOOLKITS = ("/usr/local/cuda", *(f"/usr/local/cuda-11.{minor}" for minor in (8, 7, 6)))
# What the extra `gpu` of setup.cfg brings, as a command that needs no checkout, and the folders of
# these packages, each with a folder lib.
_PIP_GPU = (
    'pip install "nvidia-cublas-cu11>=11,<12" "nvidia-cuda-nvrtc-cu11>=11.6,<12" '
    '"nvidia-cuda-runtime-cu11>=11.6,<12" "nvidia-cudnn-cu11>=8.5,<9" "nvidia-cufft-cu11>=10,<11" '
    '"nvidia-curand-cu11>=10,<11" "nvidia-cusolver-cu11>=11,<12" "nvidia-cusparse-cu11>=11,<12"'
)
_FOLDERS = (
    *("cublas", "cuda_nvrtc", "cuda_runtime", "cudnn"),
    *("cufft", "curand", "cusolver", "cusparse"),
)
# Where there is no toolkit of CUDA 11.
_WRITE_NVCC = (
    "# MindSpore asks the nvcc in CUDA_HOME for its version, and for nothing else",
    'mkdir -p "$HOME/cuda-11.8/bin"',
    r"printf '#!/bin/sh\necho Cuda compilation tools, release 11.8, V11.8.89\n' "
    '> "$HOME/cuda-11.8/bin/nvcc"',
    'chmod +x "$HOME/cuda-11.8/bin/nvcc"',
)


def obstacles() -> tuple[list[str], list[str]]:
    """Why MindSpore cannot start its GPU target in this environment, and a shell's commands for it.

    Both are empty where no reason is known.
    """
    plugin = _plugin()
    if plugin is None:
        return ["this MindSpore has no GPU target; that of PyPI for x86-64 has"], []
    reasons, commands = [], []
    home = _home_obstacle()
    if home is not None:
        reasons.append(home)
        commands += _set_home()
    missing = _missing_libraries(plugin)
    libraries = [name for name in missing if name != _DRIVER]
    if libraries:
        reasons.append(f"it does not find {', '.join(libraries)}")
        commands += _set_library_path()
    if _DRIVER in missing:
        reasons.append(
            f"it does not find {_DRIVER}, a part of NVIDIA's driver: install that; nvidia-smi then "
            "lists the GPU"
        )
    return reasons, commands


def _plugin() -> Path | None:
    spec = find_spec("mindspore")
    path = Path(spec.origin).parent / _PLUGIN if spec and spec.origin else None
    return path if path and path.exists() else None


def _home_obstacle() -> str | None:
    home = os.environ.get("CUDA_HOME")
    if not home:
        return "CUDA_HOME is not set, where it looks for bin/nvcc of CUDA 11.6 to 11.8"
    if _is_of_cuda_11(home):
        return None
    return f"there is no bin/nvcc of CUDA 11.6 to 11.8 in CUDA_HOME={home}"


def _is_of_cuda_11(home: str) -> bool:
    low, high = _RELEASES
    try:
        return low <= nvcc_release([str(Path(home, "bin", "nvcc"))]) <= high
    except (BuildError, OSError):
        return False


def _set_home() -> list[str]:
    for toolkit in _TOOLKITS:
        if _is_of_cuda_11(toolkit):
            return [f"export CUDA_HOME={toolkit}"]
    return [*_WRITE_NVCC, 'export CUDA_HOME="$HOME/cuda-11.8"']


def _set_library_path() -> list[str]:
    nvidia = Path(sysconfig.get_path("purelib"), "nvidia")
    folders = [nvidia / folder / "lib" for folder in _FOLDERS]
    install = [] if all(folder.is_dir() for folder in folders) else [_PIP_GPU]
    path = shlex.quote(":".join(map(str, folders)))
    before = '"${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"'
    return [*install, f"export LD_LIBRARY_PATH={path}{before}"]


def _missing_libraries(plugin: Path) -> list[str]:
    """The libraries that the dynamic linker does not find for the plugin; none where ldd is not."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    told = subprocess.run([ldd, plugin], capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(\S+) => not found", told)))
