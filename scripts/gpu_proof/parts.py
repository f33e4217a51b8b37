# SPDX-License-Identifier: Apache-2.0
"""The parts of the proof, in their order.

To add one: a function here, and a line in PARTS, or in parts_for where an option asks for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

from gpu_proof import kernels
from gpu_proof.mindspore_target import mindspore
from gpu_proof.run import Failed, LeftOut, Part, Report, Work, last_line, pytest_counts
from gpu_proof.table import PASSES

DTYPES = ("float32", "float16", "bfloat16")
# Verbose: the log of a kernel that hangs ends in the test that it hangs in.
PYTEST = ("-m", "pytest", "--confcutdir", "tests/gpu", "-v", "-p", "no:cacheprovider")
SANITIZER_TESTS = "tests/gpu/test_gpu_sanitizer.py"
# Those that must end in time, and those that may.
SANITIZERS = {"memcheck": True, "racecheck": True, "initcheck": False, "synccheck": False}
PROFILED_ROWS = ("c4", "resnext-c4", "edvr", "birefnet-7x7")
PROFILED_DTYPES = ("float32", "float16")
PROFILE_ENDS = 15  # seconds that ncu may take after the last launch


def wheels(work: Work) -> None:
    """Installs what the caller has brought, where all parts find it."""
    files = sorted(work.options.wheels.absolute().glob("*.whl"))
    site = work.scratch / "site"
    options = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    if work.python("-m", "pip", "install", *options, "--target", site, *files) != 0:
        raise Failed(last_line(work.log))
    os.environ["PYTHONPATH"] = f"{site}{os.pathsep}{os.environ['PYTHONPATH']}"
    sys.path.insert(0, str(site))


def card(work: Work) -> None:
    work.found.update(work.ask("card"))


def build(work: Work) -> None:
    work.found.update(work.ask("build", work.reports["card"]["architecture"]))
    work.found["kernels"] = kernels.compiled(work.log.read_text())


def tests(work: Work) -> None:
    status = work.python(*PYTEST, "tests/gpu", "--ignore", SANITIZER_TESTS)
    printed = work.log.read_text(errors="replace")
    work.found["tests"] = pytest_counts(last_line(work.log))
    work.found["skipped"] = re.findall(r"^SKIPPED \[\d+\] (.*)", printed, re.MULTILINE)
    if status != 0:
        raise Failed(last_line(work.log))
    if "passed" not in work.found["tests"]:
        raise Failed("; ".join(work.found["skipped"]) or "no test ran")


def benchmark(work: Work) -> None:
    from benchmark.rows import ROWS, find_rows

    names = [key for name in work.options.rows or ROWS for key in find_rows(name)]
    work.found.update(rows=names, reports={}, lost=[])
    for dtype in DTYPES:
        time_rows(work, dtype, names)
    if work.found["lost"]:
        raise Failed("; ".join(work.found["lost"]))


def time_rows(work: Work, dtype: str, names: list[str]) -> None:
    """In one process, and in another after a row that ends it: a GPU's error can be for good."""
    lost = work.found["lost"]
    measured: list[Report] = []
    fruitless = 0
    while names:
        file = work.scratch / f"{dtype}.json"
        file.unlink(missing_ok=True)
        options = ("--device", "cuda", "--dtype", dtype, "--rounds", 3, "--memory", "--json", file)
        try:
            status = work.python("scripts/benchmark.py", *names, *options)
        finally:
            if file.exists():
                report = json.loads(file.read_text())
                measured += report["rows"]
                work.found["reports"][dtype] = {**report, "rows": measured}
        if status == 0:
            return
        fruitless = 0 if file.exists() else fruitless + 1
        passes = Counter(entry["name"] for entry in measured)
        first, *names = [name for name in names if passes[name] < len(PASSES)]
        lost.append(f"{dtype} {first}: {last_line(work.log)}")
        if fruitless == 2 and names:
            lost.append(f"{dtype}: the other rows were not tried")
            return


def sanitizer(work: Work) -> None:
    """The tools at the same time, as most of it is work of the host."""
    logs = {tool: work.scratch / f"{tool}.log" for tool in SANITIZERS}
    running = {
        tool: work.start([sys.executable, *PYTEST, SANITIZER_TESTS, "-k", tool], log)
        for tool, log in logs.items()
    }
    work.found["tools"] = {tool: sanitized(work, running[tool], logs[tool]) for tool in SANITIZERS}
    work.log.write_text("\n".join(log.read_text(errors="replace") for log in logs.values()))
    wrong = [
        f"{tool}: {told}"
        for tool, told in work.found["tools"].items()
        if told != "clean" and (SANITIZERS[tool] or told != "out of time")
    ]
    if wrong:
        raise Failed("; ".join(wrong))


def sanitized(work: Work, process: subprocess.Popen, log: Path) -> str:
    """clean, or what else there is to say."""
    try:
        status = work.wait(process)
    except Failed as reason:
        return str(reason)
    printed = log.read_text(errors="replace")
    skipped = re.search(r"^SKIPPED \[\d+\] \S+ (.*)", printed, re.MULTILINE)
    if skipped:
        return skipped[1]
    if status == 0:
        return "clean"
    return next(iter(re.findall(r"=== (.* SUMMARY: .*)", printed)), last_line(log))


def profile(work: Work) -> None:
    if shutil.which("ncu") is None:
        raise LeftOut("no ncu on the PATH; a CUDA toolkit has it")
    table, queued = work.scratch / "ncu.csv", work.scratch / "queued.json"
    rows = work.options.rows or PROFILED_ROWS
    seconds = max(0.0, work.seconds_left() - PROFILE_ENDS)
    # The clocks stay as they are: they may be shared, and the benchmark has run on them.
    command = ["ncu", *kernels.NCU_OPTIONS, "--clock-control", "none", "--log-file", table]
    command += ["--profile-from-start", "off", "--target-processes", "all"]
    command += ["--kernel-name-base", "demangled", "--kernel-name", "regex:ms_deform"]
    command += [sys.executable, "-m", "gpu_proof.launches", queued, "--seconds", seconds]
    command += ["--rows", *rows, "--dtypes", *PROFILED_DTYPES]
    status = work.wait(work.start(command, work.log))
    printed = table.read_text(errors="replace") if table.exists() else ""
    with work.log.open("a") as log:
        log.write(printed)
    launches = kernels.profiled(printed)
    calls = json.loads(queued.read_text()) if queued.exists() else []
    work.found["launches"] = named(launches, calls)
    if status != 0 or not launches:
        raise Failed(next(iter(re.findall("==ERROR== .*", printed)), last_line(work.log)))


def named(launches: list[Report], calls: list[Report]) -> list[Report]:
    """The launches with their row, dtype and limiter; their streams come in the calls' order."""
    streams = list(dict.fromkeys(launch["stream"] for launch in launches))
    call_of = dict(zip(streams, calls))
    return [
        {**launch, **call_of.get(launch["stream"], {}), "limiter": kernels.limiter(launch)}
        for launch in launches
    ]


def plot(work: Work) -> None:
    reports = work.reports.get("benchmark", {}).get("reports")
    if not reports:
        raise LeftOut("nothing was timed")
    try:
        from gpu_proof.plot import draw
    except ImportError as error:
        raise LeftOut(str(error)) from None
    draw(work.reports["card"], reports, work.folder / "plot.png")


# The seconds add up to less than nine minutes, those of parts that options ask for included.
PARTS = [
    Part("card", 25, card),
    Part("build", 80, build, ("card",)),
    Part("tests", 100, tests, ("build",)),
    Part("benchmark", 175, benchmark, ("build",)),
    Part("sanitizer", 85, sanitizer, ("build",)),
    Part("profile", 50, profile, ("build",)),
    Part("plot", 10, plot),
]


def parts_for(options: Namespace) -> list[Part]:
    brought = [Part("wheels", 10, wheels)] if options.wheels else []
    if options.mindspore:
        return [*brought, *PARTS[:2], Part("mindspore", 300, mindspore, ("build",))]
    return [*brought, *(part for part in PARTS if part.name in ("card", "build", *options.parts))]
