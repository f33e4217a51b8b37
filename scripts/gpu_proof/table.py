# SPDX-License-Identifier: Apache-2.0
"""What was found, as Markdown for a README."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from gpu_proof.run import Report

# Of torchvision's time over ours: the geometric mean, and every row.
TARGETS = {
    ("float32", "forward"): (3.0, 1.3),
    ("float16", "forward"): (5.0, 1.3),
    ("float32", "training"): (4.0, 1.5),
    ("float16", "training"): (6.0, 1.5),
}
PEER = "torchvision"
OURS = "ms_deform"
PASSES = ("forward", "training")


def proof(reports: dict[str, Report]) -> str:
    card = reports.get("card", {})
    found = {name: reports.get(name, {}) for name in ("build", "tests", "benchmark", "profile")}
    speed = found["benchmark"].get("reports", {})
    names = found["benchmark"].get("rows", [])
    sections = [
        f"# ms_deform on {card.get('gpu', 'no GPU')}",
        ", ".join(versions(card, found["build"])),
        table(("part", "state", "seconds", "found"), map(part_line, reports.items())),
    ]
    if speed:
        sections += [
            f"## {PEER}'s time over ours",
            ratios(names, speed),
            "\n".join(f"- {line}" for line in (*targets(names, speed), *left_out(speed))),
        ]
    for dtype, report in speed.items():
        sections += [f"## {dtype}", times(report["rows"]), roof_line(report["rows"])]
    if found["profile"].get("launches"):
        sections += ["## What limits the kernels", limits(found["profile"], found["build"])]
    return "\n\n".join(filter(None, sections)) + "\n"


def table(header: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in rows)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def versions(card: Report, build: Report) -> Iterator[str]:
    if "date" in card:
        yield card["date"][:10]
        yield f"{card['architecture']}, {card['memory'] / 2**30:.0f} GiB, driver {card['driver']}"
    if "nvcc" in build:
        yield f"nvcc {build['nvcc']}, kernels {build['sources']}"
    yield from (f"{name} {number}" for name, number in card.get("versions", {}).items())


def part_line(part: tuple[str, Report]) -> list[str]:
    name, report = part
    found = [report["why"], *(report.get("skipped") or [])]
    if "tests" in report:
        found.insert(0, ", ".join(f"{count} {what}" for what, count in report["tests"].items()))
    found += [f"{tool}: {told}" for tool, told in report.get("tools", {}).items()]
    if report.get("kernels"):
        spilling = [kernel for kernel in report["kernels"] if kernel["spilled"]]
        found.append(f"{len(report['kernels'])} kernels, {len(spilling)} of them spill registers")
    found += [f"{what}: {time:.0f} us" for what, time in report.get("microseconds", {}).items()]
    text = "; ".join(filter(None, found))
    return [name, report["state"], f"{report['seconds']:.0f}", text]


def ratios(names: list[str], speed: dict[str, Report]) -> str:
    """A line for each row, a column for each dtype and pass that the peer has."""
    columns = [key for key in TARGETS if ratios_of(speed, *key)]
    found = {key: ratios_of(speed, *key) for key in columns}
    lines = [
        [name, *(figure(found[key][name]) if name in found[key] else "-" for key in columns)]
        for name in names
    ]
    means = (figure(statistics.geometric_mean(found[key].values())) for key in columns)
    header = ("layer", *(f"{dtype} {kind}" for dtype, kind in columns))
    return table(header, iter([*lines, ["geometric mean", *means]]))


def ratios_of(speed: dict[str, Report], dtype: str, kind: str) -> dict[str, float]:
    return {
        entry["name"]: entry["ratio"][PEER]
        for entry in speed.get(dtype, {}).get("rows", [])
        if entry["pass"] == kind and PEER in entry["ratio"]
    }


def figure(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def targets(names: list[str], speed: dict[str, Report]) -> Iterator[str]:
    for (dtype, kind), (mean_wanted, least_wanted) in TARGETS.items():
        found = ratios_of(speed, dtype, kind)
        wanted = f"{dtype} {kind}, {mean_wanted:g}x in the mean and {least_wanted}x in every row"
        if not found:
            yield f"{wanted}: not measured"
            continue
        mean = statistics.geometric_mean(found.values())
        low = {name: ratio for name, ratio in found.items() if ratio < least_wanted}
        absent = [name for name in names if name not in found]
        met = mean >= mean_wanted and not low
        state = ("open" if absent else "**met**") if met else "**missed**"
        told = [f"{mean:.2f}x over {len(found)} rows"]
        if low:
            told.append(f"below: {', '.join(f'{name} {low[name]:.2f}x' for name in low)}")
        if absent:
            told.append(f"without: {', '.join(absent)}")
        yield f"{wanted}: {state}, {'; '.join(told)}"


def left_out(speed: dict[str, Report]) -> Iterator[str]:
    """Why the peer is not beside us."""
    reasons: dict[str, dict[str, None]] = {}
    for dtype, report in speed.items():
        if PEER in report["missing"]:
            reasons[f"{dtype}: no {PEER}: {report['missing'][PEER]}"] = {}
        for entry in report["rows"]:
            if PEER in entry["left_out"]:
                why = f"{dtype}: {PEER} left out: {entry['left_out'][PEER]}"
                reasons.setdefault(why, {})[entry["name"]] = None
    for why, where in reasons.items():
        yield why + (f" ({', '.join(where)})" if where else "")


def times(rows: list[Report]) -> str:
    header = ("layer", "pass", f"{OURS} ms", f"{PEER} ms", "of copy bandwidth", "of matrix rate")
    return table(
        (*header, f"{OURS} extra MiB", f"{PEER} extra MiB"), (times_line(entry) for entry in rows)
    )


def times_line(entry: Report) -> list[str]:
    milliseconds, memory = entry["milliseconds"], entry["memory"]
    seconds = 1e-3 * milliseconds[OURS]
    line = [entry["name"], entry["pass"]]
    line += [f"{milliseconds[side]:.3f}" if side in milliseconds else "-" for side in (OURS, PEER)]
    line += [f"{entry[what] / rate(entry, what) / seconds:.0%}" for what in ("bytes", "flops")]
    line += [f"{memory[side] / 2**20:.1f}" if side in memory else "-" for side in (OURS, PEER)]
    return line


def rate(entry: Report, what: str) -> float:
    return statistics.median(measured[what] for measured in entry["roof"])


def roof_line(rows: list[Report]) -> str:
    copied, computed = (
        statistics.median(rate(entry, what) for entry in rows) for what in ("bytes", "flops")
    )
    return (
        f"Copies moved {copied / 1e12:.2f} TB/s, matrix products ran at {computed / 1e12:.1f} "
        "TFLOP/s, between the turns. Shares count every tensor once, and the products alone."
    )


def limits(profile: Report, build: Report) -> str:
    spilled = {kernel["kernel"]: kernel["spilled"] for kernel in build["kernels"]}
    header = ("layer", "kernel", "us", "limited by", "compute", "memory", "DRAM", "L2")
    header += ("occupancy", "possible", "registers", "spilled bytes", "blocks", "waves")
    return table(header, (limits_line(launch, spilled) for launch in profile["launches"]))


def limits_line(launch: Report, spilled: dict[str, int]) -> list[str]:
    line = [f"{launch.get('row', '?')} {launch.get('dtype', '?')}", f"`{launch['kernel']}`"]
    line += [number(launch, "nanoseconds", 1e-3, "{:.1f}"), launch["limiter"]]
    shares = ("compute", "memory", "dram", "l2", "occupancy", "possible occupancy")
    line += [number(launch, share, 1e-2, "{:.0%}") for share in shares]
    line += [number(launch, "registers"), str(spilled.get(launch["kernel"], "?"))]
    return [*line, number(launch, "blocks"), number(launch, "waves", 1, "{:.1f}")]


def number(launch: Report, metric: str, factor: float = 1, form: str = "{:.0f}") -> str:
    return form.format(factor * launch[metric]) if metric in launch else "-"
