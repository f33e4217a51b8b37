# SPDX-License-Identifier: Apache-2.0
"""The CUDA library compiles for every architecture, clean and within the registers of a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fake_checkout import write_kernels
from ms_deform.install import builder, library

# Bytes that a thread of a kernel may store for want of registers, of the 64 KiB that its block
# works on in shared memory: a kernel above it was given more sums than a GPU can hold.
SPILL_BOUND = 256
REGISTERS = 255

_KERNEL = re.compile(
    r"Compiling entry function '(\w+)' for '(\w+)'"
    r".*?(\d+) bytes spill stores.*?Used (\d+) registers",
    re.DOTALL,
)


@pytest.fixture
def nvcc() -> list[str]:
    try:
        return builder.find_nvcc()
    except builder.BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def fake_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that puts an nvcc in place that says a release."""

    def install(release: str) -> None:
        script = tmp_path / "nvcc"
        lists = 'if [ "$1" = --list-gpu-code ]; then echo sm_80 sm_90; exit; fi'
        script.write_text(f'#!/bin/sh\n{lists}\necho "Cuda compilation tools, {release}"\n')
        script.chmod(0o755)
        monkeypatch.setenv("NVCC", str(script))

    return install


def toolkit(folder: Path, *programs: str) -> Path:
    """The folder of a CUDA toolkit, as far as it is looked for."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for program in programs:
        (folder / "bin" / program).touch(0o755)
    return folder


@pytest.mark.long
def test_every_architecture_compiles_without_a_warning_and_without_many_spills(
    nvcc: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("NVCCFLAGS", "-Werror=all-warnings -Xptxas=-v")
    built = library.read_info(builder.build("cuda", directory=tmp_path))
    kernels = [
        (name, architecture, int(spilled), int(registers))
        for name, architecture, spilled, registers in _KERNEL.findall(capsys.readouterr().err)
    ]
    listed = subprocess.run([*nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True)
    known = [name for name in builder.CUDA_ARCHITECTURES if name in listed.stdout.split()]
    assert len(known) >= 4
    assert built.isas == (*known, f"compute_{known[-1][3:]}")
    assert {architecture for _, architecture, _, _ in kernels} == {*known}
    for dtype_kernels in ("Forward", "BackwardInput", "BackwardWeight", "BackwardBias"):
        assert any(dtype_kernels in name for name, *_ in kernels)
    assert [kernel for kernel in kernels if kernel[2] > SPILL_BOUND] == []
    assert [kernel for kernel in kernels if kernel[3] > REGISTERS] == []


def test_the_library_needs_no_other_cuda_library(nvcc: list[str], tmp_path: Path) -> None:
    folder = write_kernels(tmp_path / "aot_kernels", "cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "kernel_sources", lambda: folder)
        path = builder.build("cuda", directory=tmp_path, architectures=["sm_80"])
    assert library.read_info(path).isas == ("sm_80", "compute_80")
    assert b"libcudart.so" not in path.read_bytes()


def test_an_architecture_that_nvcc_does_not_know_is_refused(fake_nvcc, tmp_path: Path) -> None:
    fake_nvcc("release 12.4, V12.4.1")
    message = "does not compile for sm_12; choose from sm_80, sm_90"
    with pytest.raises(builder.BuildError, match=message):
        builder.build("cuda", directory=tmp_path, architectures=["sm_80", "sm_12"])


def test_a_release_of_cuda_that_is_too_old_is_refused(fake_nvcc, tmp_path: Path) -> None:
    fake_nvcc("release 11.1, V11.1.105")
    with pytest.raises(builder.BuildError, match=r"is of CUDA 11\.1, expected 11\.6 to 13; .*NVCC"):
        builder.build("cuda", directory=tmp_path)


def test_what_is_not_an_nvcc_is_refused(fake_nvcc, tmp_path: Path) -> None:
    fake_nvcc("something else")
    with pytest.raises(builder.BuildError, match="is not an nvcc"):
        builder.build("cuda", directory=tmp_path)


def test_without_nvcc_the_message_says_where_one_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path, "ptxas")))
    monkeypatch.setattr(builder.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(
        builder.BuildError, match=r'none of nvcc, .* in NVCC; .*pip install "nvidia-cuda-nvcc'
    ):
        builder.build("cuda", directory=tmp_path)


def test_the_toolkit_of_pypi_is_found_with_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = toolkit(tmp_path / "nvidia" / "cu13", "nvcc")
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path / "empty", "ptxas")))
    monkeypatch.setattr(builder.sysconfig, "get_path", lambda name: str(tmp_path))
    assert builder.find_nvcc() == [str(wheels / "bin" / "nvcc"), f"-L{wheels / 'lib'}"]


def test_an_nvcc_that_only_tells_mindspore_a_version_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = toolkit(tmp_path / "home", "nvcc")
    toolkit(tmp_path / "nvidia" / "cu13", "nvcc")
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setattr(builder.sysconfig, "get_path", lambda name: str(tmp_path))
    nvcc = str(home / "bin" / "nvcc")
    assert builder.find_nvcc()[0] != nvcc
    toolkit(home, "ptxas")
    assert builder.find_nvcc() == [nvcc]
