# SPDX-License-Identifier: Apache-2.0
"""What nvcc and ncu tell of the kernels."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Iterable

from gpu_proof.run import Report

# As `nvcc -Xptxas=-v` prints it.
_COMPILED = re.compile(
    r"Compiling entry function '(\w+)' for '\w+'"
    r".*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
    re.DOTALL,
)
# Of ncu's table, in its base units.
NCU_OPTIONS = (
    *("--section", "SpeedOfLight", "--section", "LaunchStats", "--section", "Occupancy"),
    *("--csv", "--print-units", "base"),
)
_METRICS = {
    "Duration": "nanoseconds",
    "Compute (SM) Throughput": "compute",
    "Memory Throughput": "memory",
    "DRAM Throughput": "dram",
    "L2 Cache Throughput": "l2",
    "Achieved Occupancy": "occupancy",
    "Theoretical Occupancy": "possible occupancy",
    "Registers Per Thread": "registers",
    "Grid Size": "blocks",
    "Waves Per SM": "waves",
}
# Percent of what the GPU can do, above which that is what limits a kernel.
_BUSY = 60


def compiled(printed: str) -> list[Report]:
    """The registers of each kernel, and the bytes that a thread spills."""
    found = _COMPILED.findall(printed)
    names = short_names(name for name, *_ in found)
    return [
        {"kernel": name, "registers": int(used), "spilled": int(stored) + int(loaded)}
        for name, (_, stored, loaded, used) in zip(names, found)
    ]


def short_names(mangled: Iterable[str]) -> list[str]:
    text = "\n".join(mangled)
    if shutil.which("c++filt"):
        text = subprocess.run(["c++filt"], input=text, capture_output=True, text=True).stdout
    return [short_name(name) for name in text.split("\n") if name]


def short_name(name: str) -> str:
    """Kernel<float, 64> of `void ms_deform::cuda::Kernel<float, (long)64>(...)`."""
    name = re.sub(r"\((?:unsigned )?(?:int|long|bool)\)|ms_deform::|cuda::|^void ", "", name)
    name = name.replace("> >", ">>")
    return re.sub(r"\b(\d+)u?l\b", r"\1", name).partition("(")[0]


def profiled(printed: str) -> list[Report]:
    """The launches in ncu's table, in their order: a stream, a kernel, and its metrics."""
    lines = [line for line in printed.split("\n") if line.startswith('"')]
    launches: dict[str, Report] = {}
    for line in csv.DictReader(lines):
        launch = launches.setdefault(
            line["ID"], {"stream": line["Stream"], "kernel": short_name(line["Kernel Name"])}
        )
        metric = _METRICS.get(line["Metric Name"])
        if metric:
            launch[metric] = float(line["Metric Value"].replace(",", ""))
    return list(launches.values())


def limiter(launch: Report) -> str:
    """What keeps a kernel from being faster."""
    compute, memory = launch.get("compute", 0), launch.get("memory", 0)
    if max(compute, memory) < _BUSY:
        return "latency"
    if compute >= memory:
        return "compute"
    return "DRAM" if launch.get("dram", 0) >= _BUSY else "caches and shared memory"
