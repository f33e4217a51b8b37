# SPDX-License-Identifier: Apache-2.0
"""Time deform_conv2d beside other implementations, forward and training, in one run.

All sides take turns, so that other load on the machine hits them alike; a ratio is the median over
the rounds, above 1 where ms_deform is faster. Each peer must give the same result before it is
timed. Peers that are not installed are left out: pip install '.[bench]'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from benchmark import cuda, many_threads, model, other_work
from benchmark.devices import SIDES
from benchmark.measure import (
    AXES,
    Contest,
    cost,
    extra_memory,
    in_fresh_process,
    scaling_points,
    scratch_bytes,
)
from benchmark.report import (
    Report,
    Table,
    busy_header,
    busy_lines,
    heading,
    legend,
    prediction_header,
    prediction_legend,
    prediction_line,
    scaling_header,
    scaling_line,
    summarise,
)
from benchmark.roof import FmaPeak, bytes_moved
from benchmark.rows import ROWS, find_rows
from benchmark.side import DTYPES, OURS, PASSES, Call, make_call
from ms_deform import __version__
from ms_deform.install.library import LibraryError, loaded_isa

ALL_AXES = "all"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    rows_help = f"of {', '.join(ROWS)}; a network's name stands for all its rows; or a geometry "
    rows_help += f"such as {ROWS['c4g']} (default: all; with --scaling alone: c4)"
    add("rows", nargs="*", metavar="ROW", help=rows_help)
    peers = [name for name in SIDES["cpu"] if name != OURS]
    add("--device", default="cpu", choices=("cpu", "cuda"), help="(default: %(default)s)")
    quick = [name for name in peers if SIDES["cpu"][name].by_default]
    peers_help = f"comma-separated, of {', '.join(peers)} (default: all but builtin, MindSpore's "
    peers_help += "own, which takes ten seconds for most rows; with --scaling: none); on cuda: "
    peers_help += "torchvision"
    add("--peers", help=peers_help)
    add("--passes", default=",".join(PASSES), help="(default: %(default)s)")
    add("--rounds", type=int, default=5, help="turns of each side (default: %(default)s)")
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    add("--threads", type=int, default=threads, help="of every side (default here: %(default)s)")
    add("--dtype", default="float32", choices=DTYPES)
    add("--isa", help="our instruction set: avx512, avx2 or baseline (default: the best)")
    add("--memory", action="store_true", help="also the extra memory, in fresh processes")
    scaling_help = f"instead: cost against one of {', '.join(AXES)} (default: each)"
    add("--scaling", nargs="?", const=ALL_AXES, choices=(ALL_AXES, *AXES), help=scaling_help)
    model_help = "instead, with --device cuda: count our kernels' work on that GPU, without one "
    model_help += "(default: h100); with --scaling threads: predict our speed-up on up to "
    model_help += f"{many_threads.THREADS[-1]} threads, without so many cores"
    add("--model", nargs="?", const="h100", choices=model.GPUS, help=model_help)
    busy_help = "instead: what each side loses beside such numbers of busy processes, as in 1,2,4"
    add("--busy", type=_counts, metavar="COUNTS", help=busy_help)
    add("--json", type=Path, metavar="FILE", help="write all of it")
    add("--plot", type=Path, metavar="FILE", help="draw it, as .png, .svg or .pdf")
    arguments = parser.parse_args()

    if arguments.busy and (arguments.scaling or arguments.plot):
        parser.error("--busy goes without --scaling and --plot")
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    if arguments.device == "cuda":
        quick = peers = [name for name in SIDES["cuda"] if name != OURS]
        if arguments.scaling or arguments.isa or arguments.busy:
            parser.error("--scaling, --busy and --isa are for the device cpu")
    elif arguments.model and arguments.scaling != "threads":
        parser.error("--model is for the device cuda, or for --scaling threads")
    if arguments.peers is None:
        arguments.peers = "" if arguments.scaling else ",".join(quick)
    arguments.peers = [name for name in arguments.peers.split(",") if name]
    arguments.passes = arguments.passes.split(",")
    for option, known in (("peers", peers), ("passes", PASSES)):
        unknown = set(getattr(arguments, option)) - set(known)
        if unknown:
            parser.error(f"--{option}: no {', '.join(unknown)}, only {', '.join(known)}")
    one_row = arguments.scaling and not arguments.model
    names = arguments.rows or (["c4"] if one_row else list(ROWS))
    try:
        arguments.rows = {key: row for name in names for key, row in find_rows(name).items()}
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _counts(text: str) -> list[int]:
    counts = [int(word) for word in text.split(",")]
    if min(counts) < 1:
        raise ValueError
    return counts


_counts.__name__ = "numbers with commas, at least 1"


def set_environment(threads: int, isa: str | None) -> None:
    """What MindSpore, the kernels and the peers read once, when they are loaded."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("GLOG_v", "3")
    if isa:
        os.environ["MS_DEFORM_CPU_ISA"] = isa


def describe_run(arguments: argparse.Namespace) -> Report:
    isa = loaded_isa(arguments.device)
    sides = SIDES[arguments.device]
    machine = {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.platform()}
    if arguments.device == "cuda":
        if not isa.startswith("sm_"):
            sys.exit(isa)  # why there is no GPU
        machine["gpu"] = cuda.device_name()
    elif arguments.isa not in (None, isa):
        sys.exit(isa)  # what there is instead
    versions = {OURS: __version__, **sides[OURS].versions()}
    missing = {}
    for name in arguments.peers:
        try:
            versions.update(sides[name].versions())
        except ImportError as error:
            missing[name] = str(error)
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine,
        "threads": arguments.threads,
        "dtype": arguments.dtype,
        "isa": isa,
        "rounds": arguments.rounds,
        "versions": versions,
        "missing": missing,
    }


def cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def present_peers(arguments: argparse.Namespace, report: Report) -> list[str]:
    return [name for name in arguments.peers if name not in report["missing"]]


def rows_and_passes(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    return [(name, kind) for name in arguments.rows for kind in arguments.passes]


def time_rows(arguments: argparse.Namespace, report: Report) -> None:
    peers = present_peers(arguments, report)
    passes = rows_and_passes(arguments)
    roof = make_roof(arguments)
    report["roof"] = roof.name
    table = Table(arguments.rows, peers, roof.name)
    print(table.header(), flush=True)
    report["rows"] = []
    with tqdm(total=len(passes) * (arguments.rounds + 1), unit="round", disable=None) as progress:
        for name, kind in passes:
            progress.set_description(f"{name} {kind}")
            row, training = arguments.rows[name], kind == "training"
            call = make_call(row, arguments.dtype, training, arguments.threads, arguments.device)
            entry = {"name": name, "geometry": row._asdict(), "pass": kind}
            entry.update(time_call(call, peers, roof, arguments.rounds, progress))
            if arguments.memory:
                entry.update(measure_memory(call, list(entry["milliseconds"])))
            report["rows"].append(entry)
            if arguments.json:  # what is there already, should the run be cut short
                write_report(report, arguments.json)
            progress.write(table.line(entry))
            sys.stdout.flush()
    report["summary"] = summarise(report["rows"])
    print(*table.summary(report["summary"]), "", sep="\n")
    if arguments.memory:
        print(*table.memory(report["rows"]), "", sep="\n")
    print(*legend(report["rows"], roof.meaning), sep="\n")


def time_call(
    call: Call, peers: list[str], roof: FmaPeak | cuda.Roof, rounds: int, progress: tqdm
) -> Report:
    contest = Contest(peers, call)
    progress.update()
    rates, times = [], defaultdict(list)
    for _ in range(rounds):
        for side, milliseconds in contest.round():
            times[side].append(milliseconds)
            rates.append(roof())
        progress.update()
    mine = times[OURS]
    least = statistics.median(rate.least_seconds(call) for rate in rates)
    return {
        "flops": call.row.flops(call.training),
        "bytes": bytes_moved(call),
        "roof": [rate._asdict() for rate in rates],
        "roof_share": 1e3 * least / statistics.median(mine),
        "milliseconds": {side: statistics.median(each) for side, each in times.items()},
        "rounds": times,
        "ratio": {
            side: statistics.median(other / own for other, own in zip(times[side], mine))
            for side in contest.differences
        },
        "difference": contest.differences,
        "left_out": contest.left_out,
    }


def make_roof(arguments: argparse.Namespace) -> FmaPeak | cuda.Roof:
    if arguments.device == "cuda":
        return cuda.Roof(arguments.dtype)
    return FmaPeak(arguments.dtype, arguments.threads)


def measure_memory(call: Call, sides: list[str]) -> Report:
    if call.device == "cuda":
        memory = {side: SIDES[call.device][side](call).extra_memory() for side in sides}
        return {"memory": memory, "scratch": memory[OURS]}
    task = (call.row, call.dtype, call.training, call.threads)
    return {
        "memory": {
            side: in_fresh_process(call.threads, extra_memory, side, *task) for side in sides
        },
        "scratch": in_fresh_process(call.threads, scratch_bytes, *task),
    }


def time_scaling(arguments: argparse.Namespace, report: Report) -> None:
    """Cost per operation along each axis: a flat line is perfect scaling."""
    name, row = next(iter(arguments.rows.items()))
    peers = present_peers(arguments, report)
    axes = AXES if arguments.scaling == ALL_AXES else (arguments.scaling,)
    points = [point for axis in axes for point in scaling_points(axis, row, arguments.threads)]
    report["scaling"] = []
    print(scaling_header(name), flush=True)
    total = len(points) * len(arguments.passes)
    with tqdm(total=total, unit="point", disable=None) as progress:
        for kind in arguments.passes:
            training = kind == "training"
            for axis, label, changed, threads in points:
                progress.set_description(f"{kind} {axis} {label}")
                task = (peers, changed, arguments.dtype, training, threads, arguments.rounds)
                if threads == arguments.threads:
                    milliseconds = cost(*task)
                else:
                    milliseconds = in_fresh_process(threads, cost, *task)
                entry = {
                    "row": name,
                    "pass": kind,
                    "axis": axis,
                    "value": label,
                    "threads": threads,
                    "flops": changed.flops(training),
                    "milliseconds": milliseconds,
                }
                report["scaling"].append(entry)
                progress.write(scaling_line(entry))
                progress.update()
                sys.stdout.flush()


def predict_scaling(arguments: argparse.Namespace, report: Report) -> None:
    """Our speed-up on more threads than there are here, and on those that there are."""
    calls = rows_and_passes(arguments)
    here = many_threads.threads_here()
    report["prediction"] = []
    print(prediction_header(many_threads.THREADS, here), flush=True)
    for name, kind in tqdm(calls, unit="row", disable=None):
        row, training = arguments.rows[name], kind == "training"
        call = many_threads.KernelCall(make_call(row, arguments.dtype, training, arguments.threads))
        predictions = many_threads.predict(call, many_threads.THREADS, arguments.rounds)
        entry = {
            "row": name,
            "pass": kind,
            "flops": row.flops(training),
            "seconds": {count: found.seconds for count, found in predictions.items()},
            "serial": {count: found.serial for count, found in predictions.items()},
            # More rounds: of several threads one that another process holds up delays all.
            "measured": many_threads.measure(call, here, 3 * arguments.rounds),
        }
        report["prediction"].append(entry)
        tqdm.write(prediction_line(entry))
        sys.stdout.flush()
    print(prediction_legend(report["prediction"]))


def time_beside_others(arguments: argparse.Namespace, report: Report) -> None:
    calls = rows_and_passes(arguments)
    peers = present_peers(arguments, report)
    report["busy"] = []
    print(busy_header(arguments.busy), flush=True)
    for name, kind in tqdm(calls, unit="row", disable=None):
        call = make_call(
            arguments.rows[name], arguments.dtype, kind == "training", arguments.threads
        )
        sides = other_work.losses(peers, call, arguments.busy, arguments.rounds)
        entry = {"row": name, "pass": kind, "sides": sides}
        report["busy"].append(entry)
        for line in busy_lines(entry):
            tqdm.write(line)
        sys.stdout.flush()


def write_report(report: Report, path: Path) -> None:
    whole = path.with_name(f".{path.name}")
    whole.write_text(json.dumps(report, indent=1))
    os.replace(whole, path)


def print_model(arguments: argparse.Namespace) -> None:
    gpu = model.GPUS[arguments.model]
    cells = {
        (name, kind): model.line(row, arguments.dtype, kind == "training", gpu)
        for name, row in arguments.rows.items()
        for kind in arguments.passes
    }
    for (name, kind), line in {("row", "pass"): model.HEADER, **cells}.items():
        print(f"{name:16}{kind:10}" + "".join(f"{cell:>10}" for cell in line))
    print(f"\n{arguments.model}, {arguments.dtype}\n{model.LEGEND}")


def main() -> None:
    arguments = parse_arguments()
    if arguments.model and arguments.device == "cuda":
        print_model(arguments)
        return
    if arguments.plot:  # before minutes of measuring, if matplotlib is missing
        from benchmark.plot import draw
    set_environment(arguments.threads, arguments.isa)
    try:
        report = describe_run(arguments)
    except LibraryError as error:
        sys.exit(str(error))
    print(heading(report), flush=True)
    if arguments.model:
        predict_scaling(arguments, report)
    elif arguments.busy:
        time_beside_others(arguments, report)
    elif arguments.scaling:
        time_scaling(arguments, report)
    else:
        time_rows(arguments, report)
    if arguments.json:
        write_report(report, arguments.json)
    if arguments.plot:
        draw(report, arguments.plot)
