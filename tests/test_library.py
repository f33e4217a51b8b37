# SPDX-License-Identifier: Apache-2.0
"""Which libraries are refused, with which message, and that a refused one is never loaded."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess

import pytest

from ms_deform import __version__
from ms_deform.install import library

NAME = "libms_deform_cpu.so"
BUILD = "python -m ms_deform build"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def compile_library(
    path,
    version=__version__,
    abi=0,
    machine_code="int answer() { return 42; }",
    marker=True,
    linked_to=(),
):
    fields = f"version={version} abi={abi} target=cpu isas=avx2+baseline sources={'0' * 16}"
    text = f"@ms_deform {fields}@" if marker else "nothing"
    source = f'extern "C" const char information[] = "{text}";\n{machine_code}\n'
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", path, "-x", "none", *linked_to]
    subprocess.run(command, input=source, text=True, check=True)
    path.chmod(0o755)
    return path


@pytest.fixture
def directory(tmp_path, monkeypatch):
    folder = tmp_path / "above" / "lib"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(folder))
    return folder


@pytest.fixture
def good(directory):
    return compile_library(directory / NAME)


@pytest.fixture
def never_loaded(monkeypatch):
    def load(path):
        pytest.fail(f"loaded {path}")

    monkeypatch.setattr(ctypes, "CDLL", load)


def assert_refused(pattern, mend=BUILD):
    with pytest.raises(library.LibraryError, match=pattern) as caught:
        library.find_library("cpu")
    assert re.search(re.escape(mend) + r"( --force)?$", str(caught.value))


def test_good_library_is_found_by_absolute_path(good):
    assert library.find_library("cpu") == good
    assert good.is_absolute()
    assert library.read_info(good) == library.LibraryInfo(
        platform.machine(), __version__, 0, "cpu", ("avx2", "baseline"), "0" * 16
    )


def test_relative_directory_gives_an_absolute_path(good, monkeypatch):
    monkeypatch.chdir(good.parent.parent)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", "lib")
    assert library.find_library("cpu") == good


def test_default_directory_is_in_the_package(monkeypatch):
    monkeypatch.delenv("MS_DEFORM_LIBRARY_DIR", raising=False)
    assert library.library_path("cpu") == library.PACKAGE / "lib" / NAME


def test_symbolic_link_is_followed_once(good, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(good.parent)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path / "link"))
    assert library.find_library("cpu") == good


def test_checked_again_only_when_it_changed(good, monkeypatch):
    library.find_library("cpu")
    with monkeypatch.context() as patch:
        patch.setattr(library, "read_info", lambda path: pytest.fail("checked again"))
        library.find_library("cpu")
    good.unlink()
    compile_library(good, version="9.9.9")
    assert_refused("version 9.9.9")


def test_missing(directory, never_loaded):
    assert_refused(f"no cpu library at {directory / NAME}")


def test_a_missing_one_for_a_gpu_names_the_command_that_builds_it(directory):
    message = r"no cuda library .*python -m ms_deform build --cuda$"
    with pytest.raises(library.LibraryError, match=message):
        library.find_library("cuda")


def test_not_a_file(directory, never_loaded):
    (directory / NAME).mkdir(mode=0o755)
    assert_refused("must be a regular file")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20])
def test_not_a_library(directory, never_loaded, content):
    (directory / NAME).write_bytes(content)
    assert_refused("is not a 64-bit ELF library")


def test_truncated(good, never_loaded):
    size = good.stat().st_size
    os.truncate(good, size - 1)
    assert_refused(rf"is truncated: {size - 1} of {size} bytes")


OTHER_MACHINES = {62: "x86_64", 183: "aarch64", 243: "ELF machine 243"}


@pytest.mark.parametrize("number, name", OTHER_MACHINES.items())
def test_other_machine(good, never_loaded, monkeypatch, number, name):
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    content = bytearray(good.read_bytes())
    content[18:20] = number.to_bytes(2, "little")
    good.write_bytes(content)
    assert library.read_info(good).machine == name
    assert_refused(f"is for {name}, this machine is s390x")


def test_library_of_something_else(directory, never_loaded):
    compile_library(directory / NAME, marker=False)
    assert_refused("does not say what it was built for")


def test_other_version(directory, never_loaded):
    compile_library(directory / NAME, version="0.0.9")
    assert_refused(rf"is of version 0\.0\.9, this is ms_deform {__version__}")


def test_other_abi(directory, never_loaded):
    compile_library(directory / NAME, abi=1)
    assert_refused("_GLIBCXX_USE_CXX11_ABI=1, MindSpore needs 0")


def test_does_not_load(directory):
    missing = "int missing();\nint now = missing();"
    compile_library(directory / NAME, machine_code=missing)
    assert_refused(r"does not load: .*undefined symbol")


def test_openmp_is_not_installed(directory, tmp_path):
    openmp = tmp_path / "libgomp.so.0"
    subprocess.run(["g++", "-shared", "-o", openmp, f"-Wl,-soname,{openmp.name}"], check=True)
    compile_library(directory / NAME, linked_to=("-Wl,--no-as-needed", openmp))
    openmp.unlink()
    refusal = r"does not load: libgomp\.so\.0: .*\(Debian: apt-get install libgomp1\)$"
    with pytest.raises(library.LibraryError, match=refusal):
        library.find_library("cpu")


@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "directory", "ancestor"])
def test_writable_by_everyone(good, never_loaded, level):
    item = (good, *good.parents)[level]
    item.chmod(0o757)
    assert_refused(f"others can write to {item}", f"chmod go-w {item}")


def test_sticky_directory_is_fine_as_ancestor_only(good):
    good.parent.parent.chmod(0o1777)
    library.find_library("cpu")
    good.parent.chmod(0o1777)
    good.touch()  # a change that has it checked again
    assert_refused(f"others can write to {good.parent}", f"chmod go-w {good.parent}")


def test_writable_by_the_users_own_group_is_fine(good):
    for item in (good, good.parent):
        os.chown(item, -1, os.getegid())
        item.chmod(0o775)
    library.find_library("cpu")


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "directory", "ancestor"])
def test_writable_by_a_shared_group(good, never_loaded, level):
    item = (good, *good.parents)[level]
    os.chown(item, -1, os.getegid() + 1)
    item.chmod(0o775)
    assert_refused(f"others can write to {item}", f"chmod go-w {item}")


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "directory", "ancestor"])
def test_owned_by_someone_else(good, never_loaded, level):
    item = (good, *good.parents)[level]
    os.chown(item, 54321, -1)
    assert_refused(f"user 54321 owns {item}")
