# SPDX-License-Identifier: Apache-2.0
"""The speed that was found, as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from benchmark.plot import draw_bars
from gpu_proof.run import Report
from gpu_proof.table import PASSES, PEER


def draw(card: Report, reports: dict[str, Report], path: Path) -> None:
    """Panels of ratios and of shares, a bar for each dtype."""
    names = list(dict.fromkeys(e["name"] for report in reports.values() for e in report["rows"]))
    figure = Figure(figsize=(max(9, 2 + 0.6 * len(names)), 13))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(2 * len(PASSES), squeeze=False, sharex=True)[:, 0]
    for kind, ratios, shares in zip(PASSES, panels[::2], panels[1::2]):
        found = {
            dtype: {entry["name"]: entry for entry in report["rows"] if entry["pass"] == kind}
            for dtype, report in reports.items()
        }
        by_dtype = {
            dtype: [entries.get(name, {}).get("ratio", {}).get(PEER) for name in names]
            for dtype, entries in found.items()
        }
        ratios.set_yscale("log")
        draw_bars(ratios, names, {d: each for d, each in by_dtype.items() if any(each)}, start=1)
        ratios.axhline(1, color="black", linewidth=1)
        ratios.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ratios.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
        ratios.yaxis.set_minor_formatter(NullFormatter())
        ratios.set_title(f"{kind}: {PEER}'s time over ours", loc="left")
        by_dtype = {
            dtype: [entries.get(name, {}).get("roof_share") for name in names]
            for dtype, entries in found.items()
        }
        draw_bars(shares, names, by_dtype, start=0)
        shares.set_ylim(0, 1)
        shares.yaxis.set_major_formatter(PercentFormatter(1))
        shares.set_title(f"{kind}: our share of the roof", loc="left")
    text = f"{card['gpu']}, driver {card['driver']}, {card['date'][:10]}"
    figure.supxlabel(text, fontsize=9, color="0.4")
    figure.savefig(path, dpi=110)
