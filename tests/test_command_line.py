# SPDX-License-Identifier: Apache-2.0
"""`python -m ms_deform build` and `doctor`, as a user runs them."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fake_checkout import build_library, write_checkout
from ms_deform import __version__, doctor
from ms_deform.install import library
from networks import paired


def run(*arguments, cwd=None):
    command = [sys.executable, "-m", "ms_deform", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return write_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def broken_mindspore(tmp_path, monkeypatch):
    """A function that puts a MindSpore with the given source in front of the real one."""

    def install(source):
        (tmp_path / "mindspore.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


def test_build_names_library_and_instruction_sets(checkout, tmp_path):
    done = run("build", "--directory", str(tmp_path / "lib"), cwd=checkout)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "lib" / "libms_deform_cpu.so"
    isas = ", ".join(library.read_info(path).isas)
    assert done.stdout == f"{path} ({platform.machine()}: {isas})\n"


@pytest.mark.skipif(platform.machine() == "aarch64", reason="not another machine here")
def test_build_for_another_machine(checkout, tmp_path, monkeypatch):
    compiler = "aarch64-linux-gnu-g++"
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} (Debian: apt-get install g++-aarch64-linux-gnu)")
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    built = []
    for _ in range(2):
        done = run("build", cwd=checkout)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / 'libms_deform_cpu.so'} (aarch64: neon)\n"
        built.append((tmp_path / "libms_deform_cpu.so").stat().st_ino)
    assert len(set(built)) == 1, "built again although it was up to date"


def test_architectures_go_with_cuda():
    done = run("build", "--arch", "sm_80")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--arch goes with --cuda" in done.stderr


def test_build_for_gpus_without_nvcc_says_where_it_comes_from(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    done = run("build", "--cuda", "--directory", str(tmp_path), cwd=checkout)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no-such-nvcc" in done.stderr
    assert 'pip install "nvidia-cuda-nvcc>=13.0,<13.1"' in done.stderr


def test_build_error_is_the_message_only(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = run("build", "--directory", str(tmp_path), cwd=checkout)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "apt-get install g++" in done.stderr


def test_doctor_of_a_good_installation(monkeypatch):
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert f"version {__version__}, ABI 0" in done.stdout
    assert f"in use here: {library.loaded_isa('cpu')}" in done.stdout
    assert "CPU        usable: forward and every gradient" in done.stdout
    assert "Ascend     training, PyNative, jit level O2: the composition" in done.stdout
    assert "composition: ASCEND_OPP_PATH names no folder" in done.stdout


def test_doctor_without_library_says_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    done = run("doctor")
    assert done.returncode == 1
    assert f"no cpu library at {tmp_path}" in done.stdout
    assert "build it: python -m ms_deform build" in done.stdout


@pytest.fixture
def gpu_complaint(tmp_path, monkeypatch):
    """A function that gives what doctor finds wrong with a GPU.

    told: what the library says of the GPU; start, test: the programs that start MindSpore on it and
    that test it.
    """

    def complaint(told="sm_90", start="", test=""):
        build_library("cuda", tmp_path, told)
        monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
        monkeypatch.setattr(doctor, "_START_PROGRAM", start)
        monkeypatch.setattr(doctor, "_SELF_TEST_PROGRAM", test)
        return doctor.complaint("GPU")

    return complaint


def test_doctor_finds_nothing_wrong_with_a_gpu_that_passes_the_self_test(gpu_complaint):
    assert gpu_complaint(test="import sys; assert sys.argv[1:] == ['GPU']") is None


def test_doctor_says_that_there_is_no_library_for_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    told = doctor.complaint("GPU")
    assert told.startswith(f"ms_deform: no cuda library at {tmp_path}")
    assert told.endswith("build it: python -m ms_deform build --cuda")


def test_doctor_says_why_the_library_finds_no_gpu(gpu_complaint):
    told = gpu_complaint("no CUDA-capable device is detected")
    assert told.startswith("no CUDA-capable device is detected; nvidia-smi must list")


def test_doctor_says_why_mindspore_does_not_start_a_gpu_and_the_commands_that_mend_it(
    gpu_complaint, monkeypatch
):
    mend = (["one", "two"], ["export A=a", "export B=b"])
    monkeypatch.setattr(doctor.mindspore_gpu, "obstacles", lambda: mend)
    told = gpu_complaint(start="raise RuntimeError('Unsupported device target GPU')")
    indented = [f"{'':<13}{line}" for line in ("in the shell that starts Python:", *mend[1])]
    assert told.splitlines() == [
        "MindSpore does not start it: one; two",
        *indented,
    ]


def test_doctor_says_why_the_self_test_fails_on_a_gpu(gpu_complaint):
    told = gpu_complaint(test="raise RuntimeError('CUDA: out of memory')")
    assert told.startswith("the self-test fails: CUDA: out of memory\nTraceback")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (
            r"raise RuntimeError('\n---\n- No memory:\n---\nno\n\n- C++ Call Stack: x')",
            "No memory: no",
        ),
        ("import os; os._exit(3)", "exit status 3"),
    ],
    ids=["exception", "crash"],
)
def test_doctor_gives_the_reason_of_mindspore_where_it_knows_none(
    gpu_complaint, monkeypatch, start, reason
):
    monkeypatch.setattr(doctor.mindspore_gpu, "obstacles", lambda: ([], []))
    (first, *_) = gpu_complaint(start=start).splitlines()
    assert first == f"MindSpore does not start it: {reason}"


@pytest.mark.parametrize(
    ("soc", "route"),
    [
        ("Ascend910B4", "aclnnDeformableConv2d, on Ascend910B4"),
        ("Ascend310P3", "composition: aclnnDeformableConv2d is for Atlas A2, A3 and 950"),
        ("", "composition: aclnnDeformableConv2d is for Atlas A2, A3 and 950"),
    ],
)
def test_doctor_says_which_route_an_ascend_would_take(tmp_path, monkeypatch, soc, route):
    header = tmp_path / "include/aclnnop/aclnn_deformable_conv2d.h"
    header.parent.mkdir(parents=True)
    header.touch()
    config = tmp_path / "opp/vendors/ours/op_impl/cpu/config/cust_aicpu_kernel.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"MsDeformAicpuForward": {}}')
    (tmp_path / "opp/vendors/config.ini").write_text("load_priority=ours\n")
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "opp"))
    monkeypatch.delenv("ASCEND_CUSTOM_OPP_PATH", raising=False)
    if soc:
        monkeypatch.setattr(doctor, "_SOC_PROGRAM", f"print('a warning'); print({soc!r})")
    told = "\n".join(doctor.describe_ascend())
    assert f"inference in graph mode, O0 and O1: {route}" in told
    assert f'set_backend("aicpu"): the kernels in {tmp_path}/opp/vendors/ours' in told


@pytest.mark.parametrize(
    "source",
    ["raise ImportError('broken')", "import os\nos.kill(os.getpid(), 11)"],
    ids=["import error", "crash"],
)
def test_doctor_survives_a_broken_mindspore(broken_mindspore, source):
    broken_mindspore(source)
    done = run("doctor")
    assert done.returncode == 1
    assert done.stderr == ""
    assert f"version {__version__}, ABI 0" in done.stdout
    assert "CPU        not usable: the self-test fails" in done.stdout


def test_doctor_reports_a_white_list_that_excludes_the_library(monkeypatch, tmp_path):
    monkeypatch.setenv("MS_CUSTOM_AOT_WHITE_LIST", str(tmp_path))
    done = run("doctor")
    assert done.returncode == 1
    assert "CPU        not usable: MS_CUSTOM_AOT_WHITE_LIST=" in done.stdout
    assert "unset MS_CUSTOM_AOT_WHITE_LIST" in done.stdout


def test_doctor_reports_versions_outside_the_ranges(monkeypatch, capsys):
    monkeypatch.setattr(doctor.metadata, "version", lambda package: "2.11.1")
    doctor.report_versions()
    report = capsys.readouterr().out
    assert 'not supported: pip install "numpy>=1.25,<2"' in report
    assert 'not supported: pip install "mindspore>=2.7,<2.11"' in report


def test_doctor_reports_missing_packages(monkeypatch, capsys):
    def missing(package):
        raise doctor.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.metadata, "version", missing)
    doctor.report_versions()
    assert 'missing    pip install "mindspore>=2.7,<2.11"' in capsys.readouterr().out


@pytest.mark.needs("torchvision")
def test_stored_answer_is_torchvisions():
    import torch
    from torchvision.ops import deform_conv2d

    tensors = [torch.from_numpy(values).requires_grad_() for values in doctor.problem()]
    input, offset, mask, weight, bias, grad_output = tensors
    output = deform_conv2d(input, offset, weight, bias, *doctor.GEOMETRY, mask)
    gradients = torch.autograd.grad(output, tensors[:5], grad_output)
    for expected, result in paired([*doctor.STORED_ANSWER.values()], (output, *gradients)):
        got = doctor.weighted_sum(result.detach().numpy())
        np.testing.assert_allclose(got, expected, rtol=1e-8)
