# SPDX-License-Identifier: Apache-2.0
"""scripts/prove_gpu.sh proves the kernels on a card: here on the emulation, with doubled tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_proof import __main__, kernels, parts, table
from gpu_proof.run import Failed, LeftOut, Part, Work, run_parts

SCRIPT = Path(__file__).parents[1] / "scripts" / "prove_gpu.sh"
EMULATED_CARD = Path(__file__).with_name("emulated_card")
ROW = "n1,c4,o4,h6,w7"
LARGER_ROW = "n2,c8,o4,h9,w8,og2"
HAZARD = "RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
# Finds what the emulation does not.
SANITIZER = f"""#!/bin/sh
case "$*" in
  *racecheck*) echo "========= {HAZARD}"; exit 1 ;;
  *) exec {EMULATED_CARD}/compute-sanitizer "$@" ;;
esac
"""


class Machine:
    """A machine with the emulated card and a toolkit, and no MindSpore."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir()
        no_mindspore = folder / "python" / "mindspore.py"
        no_mindspore.parent.mkdir()
        no_mindspore.write_text("raise ImportError('there is no MindSpore here')\n")
        self.environment = {
            **os.environ,
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": f"{no_mindspore.parent}{os.pathsep}{EMULATED_CARD}",
            # The emulation takes minutes for all.
            "PYTEST_ADDOPTS": "-k 'float16-True and (pixels or 5x5)'",
            "SANITIZED_TESTS": "float16-True and 5x5",
        }

    def add_tools(self) -> None:
        for tool in ("nvcc", "nvidia-smi", "ncu"):
            (self.tools / tool).symlink_to(EMULATED_CARD / tool)
        sanitizer = self.tools / "compute-sanitizer"
        sanitizer.write_text(SANITIZER)
        sanitizer.chmod(0o755)

    def prove(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPT), str(self.folder / "proof"), *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True
        )

    def found(self) -> dict:
        return json.loads((self.folder / "proof" / "proof.json").read_text())

    def table(self) -> str:
        return (self.folder / "proof" / "table.md").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.long
@pytest.mark.needs("torchvision", "tqdm", "matplotlib")
def test_all_is_proven_on_the_emulated_card_but_for_the_part_that_fails(machine: Machine) -> None:
    machine.add_tools()
    done = machine.prove("--rows", ROW, LARGER_ROW)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("failed: sanitizer")

    found = machine.found()
    states = {name: report["state"] for name, report in found.items()}
    assert states.pop("sanitizer") == "failed"
    assert set(states) == {part.name for part in parts.PARTS} - {"sanitizer"}
    assert set(states.values()) == {"passed"}

    assert found["build"]["built"] == ["sm_33", "compute_33"]
    assert set(found["tests"]["tests"]) == {"passed"}
    assert found["sanitizer"]["why"] == f"racecheck: {HAZARD}"
    clean = {tool for tool, told in found["sanitizer"]["tools"].items() if told == "clean"}
    assert clean == {"memcheck", "initcheck", "synccheck"}
    for dtype in ("float32", "float16", "bfloat16"):
        rows = found["benchmark"]["reports"][dtype]["rows"]
        timed = [(row["name"], row["pass"]) for row in rows]
        assert timed == [
            (name, kind) for name in (ROW, LARGER_ROW) for kind in ("forward", "training")
        ]
        for row in rows:
            assert row["milliseconds"]["ms_deform"] > 0
            assert row["memory"]["ms_deform"] > 0
            assert ("torchvision" in row["ratio"]) == (dtype != "bfloat16")
    calls = [(launch["row"], launch["dtype"]) for launch in found["profile"]["launches"]]
    assert calls == [(ROW, "float32"), (ROW, "float16")]

    text = machine.table()
    assert text.startswith("# ms_deform on emulated GPU\n")
    for words in ("driver 580.00.00", "nvcc 13.0", "torch ", "torchvision ", "4 kernels, 4 of"):
        assert words in text
    assert "| sanitizer | failed |" in text
    assert "bfloat16: torchvision left out" in text
    files = {file.name for file in (machine.folder / "proof").iterdir()}
    logs = {"build.log", "tests.log", "benchmark.log", "sanitizer.log", "profile.log"}
    assert files == {"proof.json", "table.md", "plot.png", *logs}


@pytest.mark.needs("torch")
def test_without_a_gpu_nothing_is_proven_and_the_reason_is_told(machine: Machine) -> None:
    machine.environment["PYTHONPATH"] = ""
    machine.environment["CUDA_VISIBLE_DEVICES"] = ""
    done = machine.prove()
    assert done.returncode == 1
    assert "has no NVIDIA GPU here" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.endswith("failed: card, build, tests, benchmark, sanitizer, profile")
    assert machine.table().startswith("# ms_deform on no GPU\n")


def test_all_parts_together_take_less_than_nine_minutes() -> None:
    names = [part.name for part in parts.PARTS]
    asked_for_all = parts.parts_for(Namespace(wheels=Path(), parts=names, mindspore=None))
    assert [part.name for part in asked_for_all] == ["wheels", *names]
    assert sum(part.seconds for part in asked_for_all) < 9 * 60


@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        (None, 0, "all is proven"),
        (LeftOut("no tool"), 0, "all is proven"),
        (Failed("it is wrong"), 1, "failed: one"),
    ],
)
def test_the_status_and_the_last_line_say_whether_all_is_proven(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception | None,
    status: int,
    last: str,
) -> None:
    part = Part("one", 9, raising(error) if error else passing)
    monkeypatch.setattr(__main__, "parts_for", lambda _: [part, Part("two", 9, passing)])
    monkeypatch.setattr(__main__, "set_environment", lambda scratch: None)
    monkeypatch.setattr(__main__.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["prove_gpu.sh", str(tmp_path)])
    assert __main__.main() == status
    assert capsys.readouterr().out.splitlines()[-1].endswith(last)


def test_some_parts_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["prove_gpu.sh", "--parts", "profile,benchmark"])
    asked_for = parts.parts_for(__main__.parse_arguments())
    assert [part.name for part in asked_for] == ["card", "build", "benchmark", "profile"]
    monkeypatch.setattr(sys, "argv", ["prove_gpu.sh", "--parts", "speed"])
    with pytest.raises(SystemExit):
        __main__.parse_arguments()
    assert "--parts: no speed, only card, build, tests, " in capsys.readouterr().err


def outcome(folder: Path, *tried: Part) -> dict[str, dict]:
    *_, reports = run_parts(tried, Namespace(), folder, folder)
    return reports


def raising(error: Exception) -> Callable[[Work], None]:
    def prove(work: Work) -> None:
        work.found["before"] = 1
        raise error

    return prove


def passing(work: Work) -> None:
    pass


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (Failed("it is wrong"), "failed", "it is wrong"),
        (LeftOut("no tool"), "left out", "no tool"),
        (KeyError("a fault"), "failed", "KeyError: 'a fault'"),
    ],
)
def test_what_ends_a_part_ends_no_other(
    tmp_path: Path, error: Exception, state: str, why: str
) -> None:
    reports = outcome(tmp_path, Part("one", 9, raising(error)), Part("two", 9, passing))
    assert (reports["one"]["state"], reports["one"]["why"]) == (state, why)
    assert reports["one"]["before"] == 1
    assert reports["two"]["state"] == "passed"


def test_a_part_is_not_run_without_those_it_needs(tmp_path: Path) -> None:
    failing = Part("one", 9, raising(Failed("it is wrong")))
    reports = outcome(tmp_path, failing, Part("two", 9, passing, ("one",)))
    assert reports["two"] == {
        "state": "not run", "why": "it needs one", "seconds": pytest.approx(0, abs=1)
    }  # fmt: skip


def test_a_command_that_is_not_done_in_time_is_ended_with_all_it_has_started(
    tmp_path: Path,
) -> None:
    beat = tmp_path / "beat"
    child = (
        f"import time\nwhile True:\n    open({str(beat)!r}, 'a').write('.')\n    time.sleep(0.1)"
    )
    program = "import subprocess, sys\nprint('at a test')\n"
    program += f"subprocess.run([sys.executable, '-c', {child!r}])"
    slow = Part("slow", 2, lambda work: work.python("-u", "-c", program))
    reports = outcome(tmp_path, slow, Part("next", 1, passing))
    assert (reports["slow"]["state"], reports["slow"]["why"]) == (
        "failed",
        "out of time: at a test",
    )
    assert reports["next"]["state"] == "passed"
    beats = beat.stat().st_size
    time.sleep(0.5)
    assert beats == beat.stat().st_size > 0


def test_the_time_that_a_part_leaves_is_for_those_after_it(tmp_path: Path) -> None:
    left = []
    outcome(tmp_path, Part("short", 50, passing), Part("long", 5, lambda work: left.append(
        work.seconds_left())))  # fmt: skip
    assert 50 < left[0] <= 55


@pytest.mark.needs("pip")
def test_wheels_that_the_caller_brings_are_found_by_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "brought-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought.py", "")
        named = "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n"
        wheel.writestr("brought-1.0.dist-info/METADATA", named)
        wheel.writestr("brought-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("brought-1.0.dist-info/RECORD", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def import_it(work: Work) -> None:
        assert work.python("-c", "import brought") == 0

    options = Namespace(wheels=Path(), parts=[], mindspore=None)
    tried = [parts.parts_for(options)[0], Part("import", 9, import_it)]
    *_, reports = run_parts(tried, options, tmp_path, scratch)
    assert [report["state"] for report in reports.values()] == ["passed", "passed"], reports


class FakeBenchmark(Work):
    """In which the process of some rows ends without a result."""

    ends_at = ()

    def python(self, program: str, *arguments: object) -> int:
        rows = []
        for name in arguments[: arguments.index("--device")]:
            rows.append({"name": name, "pass": "forward"})
            if name in self.ends_at:
                self.log.write_text(f"an illegal address in {name}\n")
                break
            rows.append({"name": name, "pass": "training"})
        if len(rows) > 1:
            arguments[-1].write_text(json.dumps({"rows": rows}))
        return 1 if name in self.ends_at else 0


@pytest.fixture
def fake_benchmark(tmp_path: Path) -> FakeBenchmark:
    log = tmp_path / "log"
    log.touch()
    work = FakeBenchmark(Namespace(), tmp_path, tmp_path, {}, log, time.monotonic() + 60)
    work.found.update(reports={}, lost=[])
    return work


def test_a_row_that_ends_the_benchmark_is_lost_and_no_other(fake_benchmark: FakeBenchmark) -> None:
    fake_benchmark.ends_at = ("b",)
    parts.time_rows(fake_benchmark, "float32", ["a", "b", "c", "d"])
    rows = fake_benchmark.found["reports"]["float32"]["rows"]
    assert [row["name"] for row in rows if row["pass"] == "training"] == ["a", "c", "d"]
    assert fake_benchmark.found["lost"] == ["float32 b: an illegal address in b"]


def test_rows_are_given_up_where_none_can_be_timed(fake_benchmark: FakeBenchmark) -> None:
    fake_benchmark.ends_at = ("a", "b", "c")
    parts.time_rows(fake_benchmark, "float32", ["a", "b", "c"])
    assert fake_benchmark.found["lost"] == [
        "float32 a: an illegal address in a",
        "float32 b: an illegal address in b",
        "float32: the other rows were not tried",
    ]


def speed_of(dtype: str, forward: dict[str, float], training: dict[str, float]) -> dict:
    return {
        dtype: {
            "missing": {},
            "rows": [
                {"name": name, "pass": kind, "ratio": {"torchvision": ratio}, "left_out": {}}
                for kind, ratios in (("forward", forward), ("training", training))
                for name, ratio in ratios.items()
            ],
        }
    }


def test_targets_are_met_missed_or_open_and_the_rows_are_named() -> None:
    speed = speed_of("float32", {"c3": 2.0, "c4": 8.0}, {"c3": 1.4, "c4": 100.0})
    speed |= speed_of("float16", {"c3": 9.0}, {})
    told = list(table.targets(["c3", "c4"], speed))
    assert [line.partition("row: ")[2] for line in told] == [
        "**met**, 4.00x over 2 rows",
        "open, 9.00x over 1 rows; without: c4",
        "**missed**, 11.83x over 2 rows; below: c3 1.40x",
        "not measured",
    ]


def test_registers_and_spills_are_read_from_the_compiler() -> None:
    printed = """
ptxas info    : Compiling entry function '_ZN9ms_deform4cuda18BackwardBiasKernelIfEEvNS0_21BackwardBiasArgumentsIT_EE' for 'sm_90'
ptxas info    : Function properties for _ZN9ms_deform4cuda18BackwardBiasKernelIfEEvNS0_21BackwardBiasArgumentsIT_EE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 39 registers, used 1 barriers
ptxas info    : Compile time = 51.487 ms
ptxas info    : Compiling entry function '_ZN9ms_deform4cuda20BackwardWeightKernelIfLi64ELi4EEEvNS0_23BackwardWeightArgumentsIT_EE' for 'sm_90'
ptxas info    : Function properties for _ZN9ms_deform4cuda20BackwardWeightKernelIfLi64ELi4EEEvNS0_23BackwardWeightArgumentsIT_EE
    8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers
"""  # noqa: E501
    assert kernels.compiled(printed) == [
        {"kernel": "BackwardBiasKernel<float>", "registers": 39, "spilled": 0},
        {"kernel": "BackwardWeightKernel<float, 64, 4>", "registers": 168, "spilled": 40},
    ]


def test_launches_are_read_from_the_table_of_ncu(tmp_path: Path) -> None:
    table = tmp_path / "table"
    subprocess.run([EMULATED_CARD / "ncu", "--csv", "--log-file", table, "true"], check=True)
    assert kernels.profiled(table.read_text()) == [
        {
            "stream": "13",
            "kernel": "ForwardKernel<float>",
            "stalls": {},
            "memory": 71.5,
            "dram": 20,
            "compute": 40,
            "nanoseconds": 123456,
            "registers": 40,
        },
        {
            "stream": "17",
            "kernel": "PackKernel",
            "stalls": {"barrier": 1.5, "long scoreboard": 7.5},
            "memory": 10,
            "compute": 5,
        },
    ]


@pytest.mark.parametrize(
    ("launch", "limit"),
    [
        ({"compute": 80, "memory": 70, "dram": 70}, "compute"),
        ({"compute": 20, "memory": 90, "dram": 85}, "DRAM"),
        ({"compute": 20, "memory": 90, "dram": 10}, "caches and shared memory"),
        ({"compute": 20, "memory": 30, "stalls": {}}, "latency"),
        ({"compute": 20, "stalls": {"barrier": 2, "wait": 1}}, "latency: barrier"),
    ],
)
def test_what_limits_a_kernel(launch: dict[str, float], limit: str) -> None:
    assert kernels.limiter(launch) == limit


@pytest.mark.parametrize(
    "name",
    [
        "void ms_deform::cuda::K<ms_deform::Float16, 64l, ms_deform::cuda::A<float> >(B<int>)",
        "void ms_deform::cuda::K<ms_deform::Float16, (long)64, ms_deform::cuda::A<float>>(B<int>)",
        "ms_deform::cuda::K<ms_deform::Float16, 64, ms_deform::cuda::A<float>>",
    ],
)
def test_a_kernel_has_the_same_name_from_the_compiler_and_from_ncu(name: str) -> None:
    assert kernels.short_name(name) == "K<Float16, 64, A<float>>"
