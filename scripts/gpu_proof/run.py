# SPDX-License-Identifier: Apache-2.0
"""Runs the parts of the proof, each within its time, and goes on after one that fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Report = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A part has failed; the message says why."""


class LeftOut(Exception):
    """A part cannot be done here, and need not be; the message says why."""


@dataclass
class Work:
    """What a part is given, and what it found, which stays if the part fails."""

    options: Namespace  # of the command line
    folder: Path  # for what stays
    scratch: Path  # for what does not
    reports: Mapping[str, Report]  # of the parts before it
    log: Path
    deadline: float  # by time.monotonic
    found: Report = field(default_factory=dict)

    def seconds_left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def start(self, command: Sequence[object], output: Path) -> subprocess.Popen:
        with output.open("ab") as file:
            return subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                preexec_fn=os.setpgrp,  # so that what it starts ends with it
            )

    def wait(self, process: subprocess.Popen) -> int:
        """The status of a process, which is ended if it is not done in time."""
        try:
            return process.wait(self.seconds_left())
        except subprocess.TimeoutExpired:
            raise Failed("out of time") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def python(self, *arguments: object) -> int:
        """The status of this Python with the arguments; what it prints goes to the log."""
        try:
            return self.wait(self.start([sys.executable, *arguments], self.log))
        except Failed as reason:  # where it was
            raise Failed(f"{reason}: {last_line(self.log)}".rstrip(": ")) from None

    def ask(self, module: str, *arguments: object) -> Report:
        """What a module of this package answers as a program."""
        answer = self.scratch / "answer.json"
        if self.python("-m", f"gpu_proof.{module}", answer, *arguments) != 0:
            raise Failed(last_line(self.log))
        return json.loads(answer.read_text())


def last_line(log: Path) -> str:
    """Most often why a command has failed."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def pytest_counts(line: str) -> dict[str, int]:
    """What pytest's last line counts."""
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", line)
    return {what: int(count) for count, what in found}


class Part(NamedTuple):
    name: str
    seconds: int  # what it may take; what it leaves is for those after it
    prove: Callable[[Work], None]
    needs: tuple[str, ...] = ()  # parts that must have passed


def run_parts(
    parts: Iterable[Part], options: Namespace, folder: Path, scratch: Path
) -> Iterator[dict[str, Report]]:
    """Runs one part after another; yields the reports of all so far, by the part's name."""
    reports: dict[str, Report] = {}
    deadline = time.monotonic()
    for part in parts:
        deadline += part.seconds
        work = Work(options, folder, scratch, reports, folder / f"{part.name}.log", deadline)
        work.log.write_text("")
        start = time.monotonic()
        state, why = _outcome(part, work)
        if not work.log.stat().st_size:
            work.log.unlink()
        reports[part.name] = {
            "state": state,
            "why": why,
            "seconds": round(time.monotonic() - start, 1),
            **work.found,
        }
        yield reports


def _outcome(part: Part, work: Work) -> tuple[str, str]:
    missing = [name for name in part.needs if work.reports[name]["state"] != "passed"]
    if missing:
        return "not run", f"it needs {' and '.join(missing)}"
    try:
        part.prove(work)
    except LeftOut as reason:
        return "left out", str(reason)
    except Failed as reason:
        return "failed", str(reason)
    except Exception as error:  # a fault of this script must not cost the other parts
        return "failed", f"{type(error).__name__}: {error}"
    return "passed", ""
