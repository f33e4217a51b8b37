# SPDX-License-Identifier: Apache-2.0
"""The benchmark's report as text: tables, a summary and a legend."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from benchmark.side import OURS

Report = dict[str, Any]  # what --json writes


def machine_name(report: Report) -> str:
    machine = report["machine"]
    if "gpu" in machine:
        return f"{machine['gpu']}, {report['isa']}"
    return f"{machine['cpu']}, {report['threads']} threads, {report['isa']}"


def heading(report: Report) -> str:
    lines = [
        f"{machine_name(report)}, {report['dtype']}, {report['rounds']} rounds",
        ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
    ]
    lines += [f"left out: {name}: {why}" for name, why in report["missing"].items()]
    if report["missing"]:
        lines.append("pip install '.[bench]' installs the peers")
    return "\n".join(lines)


class Table:
    """A line for each row and pass, a column for each peer."""

    def __init__(self, names: Iterable[str], peers: list[str], roof: str) -> None:
        self.width = 2 + max(len("geometric mean"), *map(len, names))
        self.peers = peers
        self.roof = roof

    def _line(self, first: str, kind: str, own: list[str], cells: Iterable[str]) -> str:
        left = f"{first:{self.width}}{kind:8}" + "".join(f"{cell:>14}" for cell in own)
        return left + "".join(f"{cell:>20}" for cell in cells)

    def header(self) -> str:
        own = [f"{OURS} ms", self.roof]
        return self._line("row", "pass", own, (f"{peer} ms" for peer in self.peers))

    def line(self, entry: Report) -> str:
        milliseconds, ratio = entry["milliseconds"], entry["ratio"]
        own = [f"{milliseconds[OURS]:.2f}", f"{entry['roof_share']:.0%}"]
        cells = (
            f"{milliseconds[peer]:.2f} {ratio[peer]:6.2f}x" if peer in ratio else "-"
            for peer in self.peers
        )
        return self._line(entry["name"], entry["pass"], own, cells)

    def summary(self, summary: Report) -> Iterator[str]:
        for kind, found in summary.items():
            for label in ("geometric mean", "minimum"):
                cells = (
                    f"{found[peer][label]:.2f}x" if peer in found else "-" for peer in self.peers
                )
                yield self._line(label, kind, ["", ""], cells)

    def memory(self, rows: list[Report]) -> Iterator[str]:
        cells = (f"{peer} MiB" for peer in self.peers)
        yield self._line("extra memory", "pass", [f"{OURS} MiB", "of it scratch"], cells)
        for entry in rows:
            taken = {side: f"{count / 2**20:.1f}" for side, count in entry["memory"].items()}
            own = [taken[OURS], f"{entry['scratch'] / 2**20:.1f}"]
            cells = (taken.get(peer, "-") for peer in self.peers)
            yield self._line(entry["name"], entry["pass"], own, cells)


def summarise(rows: list[Report]) -> Report:
    """For each pass and peer, over the rows: the geometric mean of the ratios, and the least."""
    ratios: dict[str, dict[str, list[tuple[float, str]]]] = defaultdict(lambda: defaultdict(list))
    for entry in rows:
        for peer, ratio in entry["ratio"].items():
            ratios[entry["pass"]][peer].append((ratio, entry["name"]))
    return {
        kind: {
            peer: {
                "geometric mean": statistics.geometric_mean(ratio for ratio, _ in each),
                "minimum": min(each)[0],
                "minimum row": min(each)[1],
                "rows": len(each),
            }
            for peer, each in by_peer.items()
        }
        for kind, by_peer in ratios.items()
    }


def legend(rows: list[Report], roof: str) -> Iterator[str]:
    """What the figures mean, why cells are empty, and how far the peers' results differ."""
    yield "x: the peer's time over ours, the median of the rounds."
    rates = [rates for entry in rows for rates in entry["roof"]]
    yield f"{roof}: " + ", ".join(_ranges(rates)) + "."
    differences, reasons = defaultdict(list), defaultdict(dict)
    for entry in rows:
        for peer, difference in entry["difference"].items():
            differences[peer].append(difference)
        for peer, why in entry["left_out"].items():
            reasons[f"{peer} {why}"][entry["name"]] = None
    if differences:
        largest = ", ".join(f"{peer} {max(each):.0e}" for peer, each in differences.items())
        yield f"Results differ from ours, in parts of the largest element, by at most: {largest}."
    names = {entry["name"] for entry in rows}
    for why, where in reasons.items():
        yield f"-: {why}" + ("" if len(where) == len(names) else f" ({', '.join(where)})")


def _ranges(rates: list[dict[str, float]]) -> Iterator[str]:
    for what, unit in (("flops", "GFLOP/s"), ("bytes", "GB/s")):
        values = [rate[what] / 1e9 for rate in rates if rate[what]]
        if values:
            yield (
                f"{statistics.median(values):.0f} {unit}, from {min(values):.0f} to "
                f"{max(values):.0f}"
            )


def picoseconds_per_flop(entry: Report, side: str) -> float:
    """Of thread time: the same along an axis that scales perfectly."""
    return 1e9 * entry["milliseconds"][side] * entry["threads"] / entry["flops"]


def scaling_header(name: str) -> str:
    return (
        f"\n{name} with one thing changed: milliseconds, and picoseconds of thread time for an "
        f"arithmetic operation\n{'pass':10}{'axis':9}{'value':>9}  "
    )


def scaling_line(entry: Report) -> str:
    cells = [
        f"{side} {milliseconds:9.2f} ms {picoseconds_per_flop(entry, side):7.2f} ps"
        for side, milliseconds in entry["milliseconds"].items()
    ]
    return f"{entry['pass']:10}{entry['axis']:9}{entry['value']:>9}  " + "   ".join(cells)


def prediction_header(counts: Iterable[int], here: Iterable[int]) -> str:
    columns = "".join(f"{count:>7}" for count in counts)
    return (
        "\npredicted speed-up on numbers of threads, the share of the last that one thread works "
        "alone or waits, and speed-ups measured here\n"
        f"{'row':15}{'pass':10}{'ms on 1':>9}{columns}{'alone':>7}"
        + "".join(f"{f'meas. {count}':>9}" for count in here if count > 1)
    )


def speed_ups(seconds: dict[int, float]) -> dict[int, float]:
    """Over one thread."""
    return {count: seconds[1] / each for count, each in seconds.items()}


def prediction_line(entry: Report) -> str:
    last = max(entry["seconds"])
    alone = entry["serial"][last] / entry["seconds"][last]
    measured = speed_ups(entry["measured"])
    return (
        f"{entry['row']:15}{entry['pass']:10}{1e3 * entry['seconds'][1]:9.2f}"
        + "".join(f"{speed_up:7.1f}" for speed_up in speed_ups(entry["seconds"]).values())
        + f"{alone:7.0%}"
        + "".join(f"{speed_up:9.2f}" for count, speed_up in measured.items() if count > 1)
    )


def prediction_legend(entries: list[Report]) -> str:
    """How far predictions are from what was measured."""
    ratios = [
        entry["seconds"][count] / seconds
        for entry in entries
        for count, seconds in entry["measured"].items()
    ]
    return (
        f"Predicted times over measured ones: {statistics.median(ratios):.2f}, from "
        f"{min(ratios):.2f} to {max(ratios):.2f}. Caches, memory and clock that many threads share "
        "are not in the model."
    )


def busy_header(counts: Iterable[int]) -> str:
    columns = "".join(f"{f'{count} busy':>18}" for count in counts)
    return (
        "\nmilliseconds beside so many busy processes, and how often those without them\n"
        f"{'row':15}{'pass':10}{'side':19}{'none':>10}{columns}"
    )


def busy_lines(entry: Report) -> Iterator[str]:
    for side, found in entry["sides"].items():
        cells = (f"{each['milliseconds']:9.2f} {each['loss']:7.2f}x" for each in found.values())
        _, *beside_others = cells
        yield (
            f"{entry['row']:15}{entry['pass']:10}{side:19}{found[0]['milliseconds']:10.2f}"
            + "".join(beside_others)
        )
