# SPDX-License-Identifier: Apache-2.0
"""What the wheel and the sdist hold, and that either builds without the network."""

from __future__ import annotations

import configparser
import email
import platform
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

from fake_checkout import REPOSITORY, write_checkout
from ms_deform import __version__, doctor
from ms_deform.install import library

KERNELS = {
    "common/library_info.h",
    "common/shared.cc",
    "cpu/kernels.cc",
    "cpu/entry.cc",
}
OTHER_MACHINE = "riscv64"
FOR_OTHER_MACHINE = {"--build-option": f"--plat-name=linux_{OTHER_MACHINE}"}

pytest.importorskip("setuptools", "70.1", reason="setuptools>=70.1 builds the packages")


def run_hook(root, hook, *arguments):
    """Calls a hook of the build backend as pip does, and returns what it made."""
    call = f"from ms_deform.install import build_backend as b; print(b.{hook}(*{arguments!r}))"
    done = subprocess.run([sys.executable, "-c", call], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / arguments[0] / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return write_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def sdist(checkout):
    return run_hook(checkout, "build_sdist", "dist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel that the sdist builds: what the sdist lacks, the wheel lacks."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked)
    return run_hook(next(unpacked.iterdir()), "build_wheel", "dist")


def test_sdist_holds_sources_only(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"aot_kernels/{name}" for name in KERNELS} <= names
    assert {"pyproject.toml", "setup.cfg", "LICENSE", "ms_deform/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".lock", ".o"))]


def test_wheel_is_for_any_python_on_this_platform(wheel):
    assert re.fullmatch(rf"ms_deform-{__version__}-py3-none-linux_\w+\.whl", wheel.name)


def test_wheel_holds_library_and_sources_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = library.PACKAGE.rglob("*.py")
    python = {f"ms_deform/{path.relative_to(library.PACKAGE)}" for path in modules}
    sources = {f"ms_deform/aot_kernels/{name}" for name in KERNELS}
    built = {"ms_deform/py.typed", "ms_deform/lib/libms_deform_cpu.so"}
    assert names == python | sources | built


def test_library_of_the_wheel_is_up_to_date_where_it_is_installed(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "ms_deform" / "lib" / "libms_deform_cpu.so"
    before = path.stat().st_mtime_ns
    command = [sys.executable, "-m", "ms_deform", "build"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith(str(path)), done.stderr
    assert path.stat().st_mtime_ns == before


def test_metadata_pins_what_mindspore_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"ms_deform-{__version__}.dist-info/METADATA").decode()
    metadata = email.message_from_string(text)
    required = [line.replace(" ", "") for line in metadata.get_all("Requires-Dist")]
    assert "numpy<2,>=1.25" in required
    assert "mindspore<2.11,>=2.7" in required
    assert metadata["Requires-Python"] in ("<3.13,>=3.9", ">=3.9,<3.13")
    runs = {"convert", "cuda", "gpu", "onnx", "viz"}
    develops = {"test", "bench", "demo", "lint", "parity", "wheels"}
    assert set(metadata.get_all("Provides-Extra")) == runs | develops


def test_build_in_place_puts_the_library_beside_the_sources(checkout):
    run_hook(checkout, "build_editable", "dist")
    assert library.read_info(checkout / "ms_deform" / "lib" / "libms_deform_cpu.so").abi == 0


def test_build_without_compiler_ends_in_one_line(checkout, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    call = "from ms_deform.install import build_backend as b; b.build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "apt-get install g++" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "compiles_for, options", ((OTHER_MACHINE, ""), (platform.machine(), FOR_OTHER_MACHINE))
)
def test_library_of_another_machine_is_not_packed(
    checkout, tmp_path, monkeypatch, compiles_for, options
):
    compiler = tmp_path / "some-g++"
    compiler.write_text(f"#!/bin/sh\necho {compiles_for}-linux-gnu\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    call = f"from ms_deform.install import build_backend as b; b.build_wheel('dist', {options})"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert re.search(
        rf"the package is for linux[-_]\w+, the compiler for {compiles_for}; name a compiler for "
        "it in CXX$",
        done.stderr.strip(),
    )


def test_doctor_knows_the_same_version_ranges():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    required = setup["options"]["install_requires"].splitlines()
    for package, (first, last) in doctor.SUPPORTED.items():
        assert f"{package}>={first},<{last}" in required
