# SPDX-License-Identifier: Apache-2.0
"""The benchmark's report as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from benchmark.devices import SIDES
from benchmark.report import Report, machine_name, picoseconds_per_flop, speed_ups
from benchmark.side import DTYPES, PASSES

COLOURS = {name: f"C{index}" for index, name in enumerate((*SIDES["cpu"], *PASSES, *DTYPES))}


def draw(report: Report, path: Path) -> None:
    statistic = "median"
    if "prediction" in report:
        figure, statistic = draw_prediction(report), "least"
    elif "scaling" in report:
        figure = draw_scaling(report)
    else:
        figure = draw_rows(report)
    run = f"{report['dtype']}, {statistic} of {report['rounds']} rounds, {report['date'][:10]}"
    figure.supxlabel(f"{machine_name(report)}, {run}", fontsize=9, color="0.4")
    figure.savefig(path, dpi=110)


def draw_rows(report: Report) -> Figure:
    """A panel of ratios for each pass, and one of the shares of the roof."""
    passes = list(dict.fromkeys(entry["pass"] for entry in report["rows"]))
    names = list(dict.fromkeys(entry["name"] for entry in report["rows"]))
    figure = Figure(figsize=(max(9, 2 + 0.6 * len(names)), 3.2 * len(passes) + 3.4))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(passes) + 1, squeeze=False, sharex=True)[:, 0]
    entries = {(entry["name"], entry["pass"]): entry for entry in report["rows"]}

    for axes, kind in zip(panels, passes):
        ratios = [entries[name, kind]["ratio"] for name in names]
        peers = dict.fromkeys(peer for ratio in ratios for peer in ratio)
        axes.set_yscale("log")
        draw_bars(axes, names, {peer: [r.get(peer) for r in ratios] for peer in peers}, start=1)
        axes.axhline(1, color="black", linewidth=1)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{kind}: a peer's time over ours", loc="left")
    shares = {kind: [entries[name, kind]["roof_share"] for name in names] for kind in passes}
    draw_bars(panels[-1], names, shares, start=0)
    panels[-1].set_ylim(0, 1)
    panels[-1].yaxis.set_major_formatter(PercentFormatter(1))
    panels[-1].set_title(f"our share: {report['roof']}", loc="left")
    return figure


def draw_bars(
    axes: Axes, names: list[str], series: dict[str, list[float | None]], start: float
) -> None:
    """A group of bars for each name, from `start`; a missing one leaves no gap."""
    for index in range(len(names)):
        bars = [(label, values[index]) for label, values in series.items() if values[index]]
        width = 0.8 / max(len(bars), 1)
        for place, (label, value) in enumerate(bars):
            centre = index - 0.4 + (place + 0.5) * width
            axes.bar(centre, value - start, width, bottom=start, color=COLOURS[label])
    handles = [Patch(color=COLOURS[label], label=label) for label in series]
    axes.legend(handles=handles, ncols=5, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def draw_scaling(report: Report) -> Figure:
    """A panel for each axis; flat lines are perfect scaling."""
    points = report["scaling"]
    kinds = list(dict.fromkeys(entry["axis"] for entry in points))
    figure = Figure(figsize=(2 + 3.6 * len(kinds), 4))
    figure.set_layout_engine("constrained")
    figure.suptitle(f"{points[0]['row']} with one thing changed: flat is perfect scaling")
    panels = figure.subplots(1, len(kinds), sharey=True)
    for axes, axis in zip(panels, kinds):
        lines: dict[tuple[str, str], list[tuple[str, float]]] = {}
        for entry in points:
            for side in entry["milliseconds"] if entry["axis"] == axis else ():
                point = entry["value"], picoseconds_per_flop(entry, side)
                lines.setdefault((side, entry["pass"]), []).append(point)
        for (side, kind), line in lines.items():
            style = "-" if kind == "forward" else "--"
            axes.plot(*zip(*line), style, marker="o", color=COLOURS[side], label=f"{side}, {kind}")
        axes.set_xlabel(axis)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("ps of thread time / operation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def draw_prediction(report: Report) -> Figure:
    """A panel for each pass: speed-ups against threads, predicted ones and measured ones."""
    entries = report["prediction"]
    kinds = list(dict.fromkeys(entry["pass"] for entry in entries))
    names = list(dict.fromkeys(entry["row"] for entry in entries))
    figure = Figure(figsize=(2.4 + 4 * len(kinds), 5))
    figure.set_layout_engine("constrained")
    figure.suptitle("speed-up over one thread, predicted from the times of all pieces of work")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    colours = colormaps["turbo"].resampled(len(names) + 1)
    for axes, kind in zip(panels, kinds):
        counts = list(entries[0]["seconds"])
        axes.plot(counts, counts, color="black", linewidth=1, linestyle=":", label="perfect")
        for entry in entries:
            if entry["pass"] == kind:
                colour = colours(names.index(entry["row"]))
                predicted, measured = (speed_ups(entry[key]) for key in ("seconds", "measured"))
                axes.plot(*zip(*predicted.items()), color=colour, linewidth=1.2, label=entry["row"])
                axes.plot(*zip(*measured.items()), "o", color=colour, markersize=4)
        axes.set_title(f"{kind} (points: measured)", loc="left")
        axes.set_xlabel("threads")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure
