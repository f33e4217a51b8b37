# SPDX-License-Identifier: Apache-2.0
"""The benchmark predicts how the CPU kernels scale from the times of their pieces of work."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from benchmark import many_threads
from benchmark.many_threads import Piece, Run, schedule
from benchmark.rows import Row
from benchmark.side import make_call

# Several blocks, tiles and offset groups: work for five threads in every stage.
ROW = Row(n=1, c=136, o=72, h=24, w=31, og=2)

pytestmark = pytest.mark.needs("matplotlib", "tqdm")


@pytest.fixture(autouse=True)
def threads_of_other_tests() -> Iterator[None]:
    openmp = ctypes.CDLL("libgomp.so.1")
    before = openmp.omp_get_max_threads()
    yield
    openmp.omp_set_num_threads(before)


@pytest.fixture
def free_barriers(monkeypatch):
    for name in ("WAKE", "WAKE_NEXT", "BARRIER", "ARRIVAL"):
        monkeypatch.setattr(many_threads, name, 0)


def pieces(*seconds: float, barriers: int = 0) -> list[Piece]:
    return [Piece(barriers, each) for each in seconds]


@pytest.mark.usefixtures("free_barriers")
@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (Run(pieces(3, 1, 1, 1), 0, 1), 6),
        # The thread that is free first takes the next piece.
        (Run(pieces(3, 1, 1, 1), 0, 2), 3),
        (Run(pieces(1, 1, 1, 3), 0, 2), 4),
        (Run(pieces(3, 1), 0, 8), 3),
        # At a barrier threads wait for the last piece.
        (Run([*pieces(3, 1), *pieces(1, 1, barriers=1)], 0, 2), 4),
        (Run([*pieces(3, 1), *pieces(1, 1, barriers=2)], 0.5, 2), 4.5),
    ],
)
def test_pieces_go_to_threads_as_the_kernels_take_them(run, expected):
    assert schedule(run).seconds == expected


def test_waking_threads_and_barriers_take_their_time(monkeypatch):
    costs = {"WAKE": 4, "WAKE_NEXT": 2, "BARRIER": 0.5, "ARRIVAL": 0.125}
    for name, cost in costs.items():
        monkeypatch.setattr(many_threads, name, cost)
    one_barrier = 0.5 + 3 * 0.125
    # The second thread wakes up at 4 and does the second piece, the third is not waited for.
    predicted = schedule(Run([*pieces(5, 1), *pieces(2, 2, barriers=1)], 1, threads=3))
    assert predicted.seconds == 1 + 5 + one_barrier + 2 + one_barrier
    assert predicted.serial == 1 + 2 * one_barrier
    # But a call ends when all its threads have woken up.
    assert schedule(Run(pieces(1), 0, threads=3)).seconds == 6 + one_barrier
    alone = schedule(Run(pieces(5, 2), 1, threads=1))
    assert (alone.seconds, alone.serial) == (8, 1)


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_the_modelled_call_does_all_the_work(dtype):
    """One thread that works for five gives the bits that five threads give."""
    call = many_threads.KernelCall(make_call(ROW, dtype, training=True, threads=5))
    predicted = many_threads.predict(call, [5], rounds=1)
    results = {name: [array.copy() for array in arrays] for name, arrays in call.arrays.items()}
    for arrays in call.arrays.values():
        for array in arrays[5:]:
            array[...] = 0
    measured = many_threads.measure(call, [5], rounds=1)
    assert list(predicted) == list(measured) == [5]
    assert 0 < predicted[5].serial < predicted[5].seconds
    for name, arrays in call.arrays.items():
        for array, expected in zip(arrays, results[name]):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.long
def test_predictions_are_printed_written_and_drawn(tmp_path, monkeypatch, capsys):
    from benchmark import cli

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    command = ["benchmark.py", "n1,c8,o8,h9,w9", "--scaling", "threads", "--model", "--rounds", "1"]
    files = {f"--{kind}": tmp_path / name for kind, name in (("json", "a.json"), ("plot", "a.png"))}
    monkeypatch.setattr(
        sys, "argv", [*command, *(str(word) for item in files.items() for word in item)]
    )
    cli.main()
    entries = json.loads(files["--json"].read_text())["prediction"]
    assert [entry["pass"] for entry in entries] == ["forward", "training"]
    for entry in entries:
        assert list(map(int, entry["seconds"])) == list(many_threads.THREADS)
        assert all(0 < entry["serial"][key] < entry["seconds"][key] for key in entry["seconds"])
        assert list(map(int, entry["measured"])) == many_threads.threads_here()
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[:2] for line in lines if line.startswith("n1,c8")]
    assert rows == [["n1,c8,o8,h9,w9", "forward"], ["n1,c8,o8,h9,w9", "training"]]
    assert lines[-1].startswith("Predicted times over measured ones: ")
    assert files["--plot"].stat().st_size > 10_000
