# SPDX-License-Identifier: Apache-2.0
"""MindSpore's GPU target, from a bundle that scripts/pack_mindspore.py has made."""

from __future__ import annotations

import json
import re

from gpu_proof.run import Failed, Work, last_line, pytest_counts
from mindspore_bundle import run


def mindspore(work: Work) -> None:
    try:
        bundle = run.unpack(work.options.mindspore, work.scratch / "mindspore")
    except ValueError as error:
        raise Failed(str(error)) from None
    # The tests need the library for the CPU, too.
    if work.python("-m", "ms_deform", "build") != 0:
        raise Failed(last_line(work.log))
    times = work.scratch / "call_times.json"
    # They come first: where MindSpore has no GPU, their error says why.
    if work.wait(work.start(run.call_times(bundle, times), work.log)) != 0:
        raise Failed(error_in(work.log.read_text(errors="replace")) or last_line(work.log))
    work.found["microseconds"] = json.loads(times.read_text())
    status = work.wait(work.start(run.tests(bundle), work.log))
    summary = summary_in(work.log.read_text(errors="replace"))
    work.found["tests"] = pytest_counts(summary)
    if status != 0:
        raise Failed(summary or last_line(work.log))


def error_in(printed: str) -> str:
    """The text of the exception that ended Python; MindSpore puts it under a heading."""
    found = re.search(r"^\w+Error:[\s-]*(?:Cuda error:[\s-]*)?(.+)", printed, re.MULTILINE)
    return found[1] if found else ""


def summary_in(printed: str) -> str:
    """pytest's last line, which MindSpore's own messages may follow."""
    lines = re.findall(
        r"^(\d+ (?:passed|failed|deselected|error).*) in [\d.]+s", printed, re.MULTILINE
    )
    return lines[-1] if lines else ""
