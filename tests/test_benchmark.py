# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a tiny layer, with whichever peers are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import readme
from ms_deform.install.library import find_library

SCRIPTS = Path(__file__).parents[1] / "scripts"
EMULATED_CARD = Path(__file__).with_name("emulated_card")
# Of the tiny row: input, offset, mask, weight, bias, output
TINY_ELEMENTS = 2 * 4 * 9 * 12 + 2 * 27 * 5 * 6 + 6 * 4 * 9 + 6 + 2 * 6 * 5 * 6
PEERS = ("torchvision", "onnxruntime", "openvino", "ncnn", "builtin")

pytestmark = pytest.mark.needs("matplotlib", "tqdm")

# In front of the benchmark's own program: its row is tiny, and one round is enough.
TINY_ROWS = f"""
import sys

sys.path.insert(0, {str(SCRIPTS)!r})
from benchmark import cli, cuda, devices, peers, rows
from benchmark.roof import Rates

rows.ROWS["c4"] = rows.Row(n=2, c=4, o=6, h=9, w=12, s=2)
sys.argv += ["--rounds", "1", "--json", "rows.json"]
"""
# Without ncnn and with two more peers: MindSpore's own, and one whose results are one percent off.
WITH_WRONG_PEER = """
sys.modules["ncnn"] = None


class Wrong(peers.MsDeform):
    def results(self):
        return [1.01 * array for array in super().results()]


peers.MindSporeBuiltin.by_default = True
devices.SIDES["cpu"]["wrong"] = Wrong
"""
# A machine's that is too slow to measure one.
WITH_LOW_ROOF = """
class Roof:
    name, meaning = "of roof", ""

    def __init__(self, dtype):
        pass

    def __call__(self):
        return Rates(flops=1e12, bytes=1e5)


cuda.Roof = Roof
"""

(README,) = readme.shell_blocks("test_benchmark")
ROWS_COMMAND, CUDA_COMMAND = README.lines()


def benchmark(folder, *arguments):
    return run(folder, [sys.executable, str(SCRIPTS / "benchmark.py"), *arguments])


def run(folder, command):
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def run_as_printed(folder, command, changes):
    """A command of the README, in a checkout with this Python and a benchmark that is changed."""
    python, program = folder / ".venv/bin/python", folder / "scripts/benchmark.py"
    for file in (python, program):
        file.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    program.write_text(f"{TINY_ROWS}{changes}\nif __name__ == '__main__':\n    cli.main()\n")
    done = run(folder, ["bash", "-c", command])
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "rows.json").read_text())


@pytest.fixture(scope="module")
def rows_run(tmp_path_factory):
    """The folder it wrote to, what it printed, and its report."""
    folder = tmp_path_factory.mktemp("rows")
    return folder, *run_as_printed(folder, ROWS_COMMAND, WITH_WRONG_PEER)


def assert_picture(path):
    from matplotlib.image import imread

    height, width, _ = imread(path).shape
    assert min(height, width) > 300


def test_report_says_where_and_with_what_it_was_measured(rows_run):
    _, _, report = rows_run
    assert report["machine"]["cpu"]
    assert {"date", "threads", "dtype", "isa", "rounds", "summary"} <= set(report)
    assert {"ms_deform", "mindspore"} <= set(report["versions"])


@pytest.mark.parametrize("kind", ["forward", "training"])
def test_each_side_has_a_time_or_a_reason(rows_run, kind):
    _, _, report = rows_run
    (entry,) = (entry for entry in report["rows"] if entry["pass"] == kind)
    timed = set(entry["milliseconds"])
    assert timed | set(entry["left_out"]) | set(report["missing"]) == {"ms_deform", *PEERS, "wrong"}
    assert {"ms_deform", "builtin"} <= timed
    assert timed - {"ms_deform"} == set(entry["ratio"]) == set(entry["difference"])
    assert all(milliseconds > 0 for milliseconds in entry["milliseconds"].values())
    assert 0 < entry["roof_share"] < 1


def test_table_shows_the_row(rows_run):
    _, printed, _ = rows_run
    lines = [line.split()[:2] for line in printed.splitlines()]
    for line in (["c4", "forward"], ["c4", "training"], ["geometric", "mean"]):
        assert line in lines


def test_missing_peer_is_left_out_with_a_word(rows_run):
    _, printed, report = rows_run
    assert "ncnn" in report["missing"]
    assert "left out: ncnn: " in printed


def test_peer_with_another_result_is_not_timed(rows_run):
    _, printed, report = rows_run
    for entry in report["rows"]:
        assert "differs by 0.01" in entry["left_out"]["wrong"]
    assert "-: wrong its result differs" in printed


def test_rows_are_drawn(rows_run):
    folder, _, _ = rows_run
    assert_picture(folder / "c4.png")


@pytest.mark.long
def test_scaling_along_each_axis_is_measured_and_drawn(tmp_path):
    arguments = ["--scaling", "--passes", "forward", "--rounds", "1"]
    run = benchmark(
        tmp_path, "n1,c4,o4,h8,w8", *arguments, "--json", "scaling.json", "--plot", "scaling.png"
    )
    assert run.returncode == 0, run.stderr
    points = json.loads((tmp_path / "scaling.json").read_text())["scaling"]
    assert {point["axis"] for point in points} == {"N", "HxW", "C", "threads"}
    assert all(point["milliseconds"]["ms_deform"] > 0 for point in points)
    assert_picture(tmp_path / "scaling.png")


@pytest.mark.long
def test_what_other_processes_cost_is_measured(tmp_path):
    arguments = ["--busy", "1,2", "--peers", "", "--passes", "forward", "--rounds", "1"]
    run = benchmark(tmp_path, "n1,c4,o4,h8,w8", *arguments, "--json", "busy.json")
    assert run.returncode == 0, run.stderr
    (entry,) = json.loads((tmp_path / "busy.json").read_text())["busy"]
    assert set(entry["sides"]) == {"ms_deform", "ms_deform kernels"}
    for found in entry["sides"].values():
        assert list(found) == ["0", "1", "2"]
        assert found["0"]["loss"] == 1
        assert all(each["milliseconds"] > 0 and each["loss"] > 0 for each in found.values())
    assert "ms_deform kernels" in run.stdout


@pytest.mark.long
def test_extra_memory_is_measured(tmp_path):
    # The columns matrix that our kernels do without would take 36 MiB.
    row = "n1,c64,o8,h128,w128"
    arguments = ["--memory", "--peers", "", "--passes", "forward", "--rounds", "1"]
    run = benchmark(tmp_path, row, *arguments, "--json", "memory.json")
    assert run.returncode == 0, run.stderr
    (entry,) = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert 0 < entry["memory"]["ms_deform"] < 30 * 2**20
    assert 0 < entry["scratch"] < 30 * 2**20


@pytest.mark.long
@pytest.mark.needs("torchvision")
def test_a_gpu_is_timed_beside_torchvision_on_it(tmp_path, emulated_cuda, monkeypatch):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(emulated_cuda.parent))
    monkeypatch.setenv("PYTHONPATH", str(EMULATED_CARD))
    _, report = run_as_printed(tmp_path, CUDA_COMMAND, WITH_LOW_ROOF)
    assert report["machine"]["gpu"] == "emulated GPU"
    for entry in report["rows"]:
        assert set(entry["ratio"]) == {"torchvision"}, entry["left_out"]
        # The roof here is so slow at copying that its products do not count.
        copying = 3 * TINY_ELEMENTS if entry["pass"] == "training" else TINY_ELEMENTS
        assert entry["bytes"] == 4 * copying
        expected = 4 * copying / 1e5 / (1e-3 * entry["milliseconds"]["ms_deform"])
        assert entry["roof_share"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("host_cycles", "queues"),
    [(0.9e6, [1]), (3.5e6, [1, 2, 4]), (1e9, [1, 2, 4, 8, 16, 32, 64])],
)
def test_a_gpu_idles_until_the_call_is_queued_so_that_the_hosts_time_does_not_count(
    monkeypatch, host_cycles, queues
):
    from benchmark import cuda

    slept = []

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):
            pass

        def query(self):
            return slept[-1] < host_cycles

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return 250

    class Call(cuda.OnGpu):
        def __init__(self):
            pass

        def __call__(self):
            pass

    gpu = SimpleNamespace(Event=Event, _sleep=slept.append)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=gpu))
    monkeypatch.setattr(cuda, "_cache_filler", lambda: SimpleNamespace(zero_=lambda: None))
    assert Call().seconds() == 0.25
    assert slept == [1_000_000 * queue for queue in queues]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c9"], "no row c9; there are c3, c4"),
        (["n1,c4,x9"], "no row n1,c4,x9"),
        (["--peers", "paddle"], "--peers: no paddle, only torchvision"),
        (["--passes", "backward"], "--passes: no backward, only forward"),
        (["--rounds", "0"], "--rounds and --threads must be at least 1"),
        (["--busy", "1,0"], "numbers with commas, at least 1"),
        (["--busy", "2", "--plot", "a.png"], "--busy goes without --scaling and --plot"),
        (["--device", "cuda", "--scaling"], "--scaling, --busy and --isa are for the device cpu"),
        (["--model"], "--model is for the device cuda, or for --scaling threads"),
        (["--model", "--scaling"], "--model is for the device cuda, or for --scaling threads"),
    ],
)
def test_wrong_argument_is_named(arguments, message, monkeypatch, capsys):
    from benchmark import cli

    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.parse_arguments()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "python -m ms_deform build --cuda"),
        (["--isa", "mmx"], "MS_DEFORM_CPU_ISA=mmx is not available here"),
    ],
)
def test_what_this_machine_lacks_ends_it_in_a_line(tmp_path, monkeypatch, arguments, message):
    shutil.copy(find_library("cpu"), tmp_path)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    run = benchmark(tmp_path, *arguments)
    assert run.returncode == 1
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
