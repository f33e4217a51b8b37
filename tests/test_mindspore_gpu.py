# SPDX-License-Identifier: Apache-2.0
"""Why MindSpore's GPU target does not start, and the commands that mend it, as they are printed."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from fake_checkout import REPOSITORY
from ms_deform.install import mindspore_gpu
from ms_deform.install.builder import find_compiler

LIBRARY = "libcublas.so.11"


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without CUDA; the folder where pip puts packages."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(mindspore_gpu, "_TOOLKITS", ())
    monkeypatch.setattr(mindspore_gpu.sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin that needs one library of CUDA."""
    library = link(tmp_path / LIBRARY, f"-Wl,-soname,{LIBRARY}")
    path = link(tmp_path / "plugin.so", "-Wl,--no-as-needed", str(library))
    library.unlink()
    monkeypatch.setattr(mindspore_gpu, "_plugin", lambda: path)
    return path


def link(path: Path, *flags: str) -> Path:
    command = [*find_compiler(), "-shared", "-x", "c++", "/dev/null", "-x", "none", *flags]
    subprocess.run([*command, "-o", path], check=True)
    return path


def install_cuda_11(packages: Path) -> None:
    for folder in mindspore_gpu._FOLDERS:
        (packages / "nvidia" / folder / "lib").mkdir(parents=True)
    link(packages / "nvidia" / "cublas" / "lib" / LIBRARY)


def say_release(home: Path, release: str) -> Path:
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho Cuda compilation tools, release {release}, V{release}.1\n")
    nvcc.chmod(0o755)
    return home


def test_without_cuda_all_that_is_missing_is_named_at_once(plugin: Path) -> None:
    reasons, commands = mindspore_gpu.obstacles()
    assert reasons == [
        "CUDA_HOME is not set, where it looks for bin/nvcc of CUDA 11.6 to 11.8",
        f"it does not find {LIBRARY}",
    ]
    assert [command.split()[0] for command in commands] == [
        *("#", "mkdir", "printf", "chmod", "export"),
        *("pip", "export"),
    ]


def test_the_commands_work_as_they_are_printed(
    plugin: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_cuda_11(packages)
    monkeypatch.setenv("HOME", str(packages))
    _, commands = mindspore_gpu.obstacles()
    script = "\n".join(["set -e", *commands, 'echo "$CUDA_HOME"', 'echo "$LD_LIBRARY_PATH"'])
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    for variable, value in zip(("CUDA_HOME", "LD_LIBRARY_PATH"), done.stdout.splitlines()):
        assert "" not in value.split(":")
        monkeypatch.setenv(variable, value)
    assert mindspore_gpu.obstacles() == ([], [])


@pytest.mark.parametrize("release", ["11.6", "11.8"])
def test_a_toolkit_of_cuda_11_is_taken_where_there_is_one(
    plugin: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    home = say_release(packages / "toolkit", release)
    monkeypatch.setattr(mindspore_gpu, "_TOOLKITS", (str(home),))
    assert f"export CUDA_HOME={home}" in mindspore_gpu.obstacles()[1]
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert mindspore_gpu.obstacles()[0] == [f"it does not find {LIBRARY}"]


@pytest.mark.parametrize("release", ["10.1", "12.4", "13.0"])
def test_an_nvcc_of_another_cuda_in_cuda_home_is_named(
    plugin: Path, packages: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    home = say_release(packages / "toolkit", release)
    monkeypatch.setenv("CUDA_HOME", str(home))
    reasons, _ = mindspore_gpu.obstacles()
    assert reasons[0] == f"there is no bin/nvcc of CUDA 11.6 to 11.8 in CUDA_HOME={home}"


def test_the_driver_is_not_among_what_pip_brings(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = link(packages / "libcuda.so.1", "-Wl,-soname,libcuda.so.1")
    path = link(packages / "plugin.so", "-Wl,--no-as-needed", str(driver))
    driver.unlink()
    monkeypatch.setattr(mindspore_gpu, "_plugin", lambda: path)
    monkeypatch.setenv("CUDA_HOME", str(say_release(packages / "toolkit", "11.8")))
    reasons, commands = mindspore_gpu.obstacles()
    assert len(reasons) == 1
    assert reasons[0].startswith("it does not find libcuda.so.1, a part of NVIDIA's driver")
    assert commands == []


def test_a_mindspore_without_the_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore_gpu, "find_spec", lambda name: None)
    assert mindspore_gpu.obstacles() == (
        ["this MindSpore has no GPU target; that of PyPI for x86-64 has"],
        [],
    )


def test_the_packages_are_those_of_the_libraries_that_the_plugin_links_to() -> None:
    plugin = mindspore_gpu._plugin()
    if plugin is None:
        pytest.skip("this MindSpore has no GPU target")
    told = subprocess.run(["ldd", plugin], check=True, capture_output=True, text=True).stdout
    linked = set(re.findall(r"^\s*lib(cu\w+|nvrtc)\.so\.[\d.]+ ", told, re.MULTILINE))
    brought = {Path(folder).name for folder in mindspore_gpu._FOLDERS}
    names = {"cudart": "cuda_runtime", "nvrtc": "cuda_nvrtc"}
    theirs = {"cuda", "cuda_ops", "cublasLt"}  # the driver's, MindSpore's own, one of cublas's
    assert {names.get(name, name) for name in linked - theirs} == brought


def test_pip_installs_the_extra() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    extra = setup["options.extras_require"]["gpu"].split()
    assert re.findall(r'"([^"]+)"', mindspore_gpu._PIP_GPU) == extra
    folders = [
        re.split("-|>", name.partition("nvidia-")[2].partition("-cu11")[0]) for name in extra
    ]
    assert ["_".join(folder) for folder in folders] == [*mindspore_gpu._FOLDERS]
