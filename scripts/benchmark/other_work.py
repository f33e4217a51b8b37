# SPDX-License-Identifier: Apache-2.0
"""What a side loses beside processes that keep cores busy."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from benchmark.many_threads import KernelCall, set_threads
from benchmark.measure import Contest, turn
from benchmark.side import OURS, Call, Side

KERNELS = f"{OURS} kernels"


class Kernels(Side):
    """Our kernels without MindSpore, whose own threads have to be scheduled as well."""

    trains = True

    def __init__(self, call: Call) -> None:
        self.call = KernelCall(call)
        set_threads(call.threads)

    def __call__(self) -> None:
        self.call.run()


class BusyProcesses:
    """Processes that compute while they are let, in a `with` block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> BusyProcesses:
        program = [sys.executable, "-c", "while True: pass"]
        self._processes = [subprocess.Popen(program) for _ in range(self._count)]
        self._send(signal.SIGSTOP, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    @contextmanager
    def computing(self, count: int) -> Iterator[None]:
        self._send(signal.SIGCONT, count)
        try:
            yield
        finally:
            self._send(signal.SIGSTOP, count)

    def _send(self, number: signal.Signals, count: int) -> None:
        for process in self._processes[:count]:
            process.send_signal(number)


def losses(
    peers: Iterable[str], call: Call, counts: Sequence[int], rounds: int
) -> dict[str, dict[int, dict[str, float]]]:
    """For each side and number of busy processes, 0 first: milliseconds, and over those of none."""
    sides = {**Contest(peers, call).sides, KERNELS: Kernels(call)}
    taken: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with BusyProcesses(max(counts)) as busy:
        for _ in range(rounds):
            for count in (0, *counts):
                for name, side in sides.items():
                    with busy.computing(count):
                        taken[name][count].append(turn(side))
    return {
        name: {
            count: {
                "milliseconds": statistics.median(times),
                "loss": statistics.median(own / idle for own, idle in zip(times, of_side[0])),
            }
            for count, times in of_side.items()
        }
        for name, of_side in taken.items()
    }
