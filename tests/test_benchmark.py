# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a tiny layer, with whichever peers are installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ms_deform.install.library import find_library

SCRIPTS = Path(__file__).parents[1] / "scripts"
TINY = "n2,c4,o6,h9,w12,s2"
# input, offset, mask, weight, bias, output
TINY_ELEMENTS = 2 * 4 * 9 * 12 + 2 * 27 * 5 * 6 + 6 * 4 * 9 + 6 + 2 * 6 * 5 * 6
PEERS = ("torchvision", "onnxruntime", "openvino", "ncnn", "builtin")
MISSING = [module for module in ("matplotlib", "tqdm") if importlib.util.find_spec(module) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"the bench extra is not installed: no {', '.join(MISSING)}"
)

# The benchmark without ncnn and with one more peer, whose results are one percent off.
WITH_WRONG_PEER = f"""
import sys

sys.path.insert(0, {str(SCRIPTS)!r})
sys.modules["ncnn"] = None
from benchmark import cli, devices, peers


class Wrong(peers.MsDeform):
    def results(self):
        return [1.01 * array for array in super().results()]


devices.SIDES["cpu"]["wrong"] = Wrong
cli.main()
"""


# The benchmark on host memory, with the emulated library in the place of the GPU's.
ON_EMULATED_GPU = f"""
import sys

sys.path.insert(0, {str(SCRIPTS)!r})
from benchmark import cli, cuda, measure
from benchmark.devices import SIDES
from benchmark.roof import Rates
from benchmark.side import Side, make_call


class Roof:
    name, meaning = "of roof", ""

    def __init__(self, dtype):
        pass

    def __call__(self):
        return Rates(flops=1e12, bytes=1e5)


cuda.Roof = Roof
cuda.device_name = lambda: "emulated"
cli.loaded_isa = lambda target: "sm_00"
cli.make_call = lambda *call: make_call(*call)._replace(device="cpu")
measure.SIDES = {{"cpu": SIDES["cuda"]}}
cuda._OnGpu.seconds = Side.seconds
cli.main()
"""


def benchmark(folder, *arguments, program=(str(SCRIPTS / "benchmark.py"),)):
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
    )


@pytest.fixture(scope="module")
def rows_run(tmp_path_factory):
    """The folder it wrote to, what it printed, and its report."""
    folder = tmp_path_factory.mktemp("rows")
    arguments = ["--rounds", "1", "--json", "rows.json", "--plot", "rows.png"]
    peers = ["--peers", ",".join((*PEERS, "wrong"))]
    run = benchmark(folder, TINY, *arguments, *peers, program=("-c", WITH_WRONG_PEER))
    assert run.returncode == 0, run.stderr
    return folder, run.stdout, json.loads((folder / "rows.json").read_text())


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
    for line in ([TINY, "forward"], [TINY, "training"], ["geometric", "mean"]):
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
    assert_picture(folder / "rows.png")


def test_scaling_along_each_axis_is_measured_and_drawn(tmp_path):
    arguments = ["--scaling", "--passes", "forward", "--rounds", "1"]
    run = benchmark(
        tmp_path, "n1,c4,o4,h8,w8", *arguments, "--json", "scaling.json", "--plot", "scaling.png"
    )
    assert run.returncode == 0, run.stderr
    points = json.loads((tmp_path / "scaling.json").read_text())["scaling"]
    assert {point["axis"] for point in points} == {"N", "H x W", "C", "threads"}
    assert all(point["milliseconds"]["ms_deform"] > 0 for point in points)
    assert_picture(tmp_path / "scaling.png")


def test_extra_memory_is_measured(tmp_path):
    # The columns matrix that our kernels do without would take 36 MiB.
    row = "n1,c64,o8,h128,w128"
    arguments = ["--memory", "--peers", "", "--passes", "forward", "--rounds", "1"]
    run = benchmark(tmp_path, row, *arguments, "--json", "memory.json")
    assert run.returncode == 0, run.stderr
    (entry,) = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert 0 < entry["memory"]["ms_deform"] < 30 * 2**20
    assert 0 < entry["scratch"] < 30 * 2**20


def test_a_gpu_is_timed_beside_torchvision_on_it(tmp_path, emulated_cuda, monkeypatch):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(emulated_cuda.parent))
    pytest.importorskip("torchvision", reason="needs torch and torchvision: pip install '.[bench]'")
    arguments = [TINY, "--device", "cuda", "--rounds", "1", "--json", "rows.json"]
    run = benchmark(tmp_path, *arguments, program=("-c", ON_EMULATED_GPU))
    assert run.returncode == 0, run.stderr
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["machine"]["gpu"] == "emulated"
    for entry in report["rows"]:
        assert set(entry["ratio"]) == {"torchvision"}, entry["left_out"]
        # The roof here is so slow at copying that its products do not count.
        copying = 3 * TINY_ELEMENTS if entry["pass"] == "training" else TINY_ELEMENTS
        expected = 4 * copying / 1e5 / (1e-3 * entry["milliseconds"]["ms_deform"])
        assert entry["roof_share"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c9"], "no row c9; there are c3, c4"),
        (["n1,c4,x9"], "no row n1,c4,x9"),
        (["--peers", "paddle"], "--peers: no paddle, only torchvision"),
        (["--passes", "backward"], "--passes: no backward, only forward"),
        (["--rounds", "0"], "--rounds and --threads must be at least 1"),
        (["--device", "cuda", "--scaling"], "--scaling and --isa are for the device cpu"),
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
