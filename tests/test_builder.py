# SPDX-License-Identifier: Apache-2.0
"""The builder: what it builds, when it does not, and what it leaves when it fails."""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor

import pytest

from fake_checkout import write_kernels
from ms_deform import __version__
from ms_deform.install import builder, library


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A tiny aot_kernels that the builder takes for its own."""
    folder = write_kernels(tmp_path / "aot_kernels")
    monkeypatch.setattr(builder, "kernel_sources", lambda: folder)
    monkeypatch.delenv("CXXFLAGS", raising=False)
    return folder


@pytest.fixture
def compiler_log(tmp_path, monkeypatch):
    """A function that returns the compiler's command lines so far."""
    log = tmp_path / "compiler.log"
    log.touch()
    wrapper = tmp_path / "logging-g++"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec g++ "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    questions = ("--version", "-dumpmachine")
    return lambda: [line for line in log.read_text().splitlines() if line not in questions]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "lib"


def test_library_says_what_it_was_built_for(kernels, directory):
    info = library.read_info(builder.build(directory=directory))
    assert (info.version, info.abi, info.target) == (__version__, 0, "cpu")
    assert info.machine == platform.machine()
    assert info.isas[-1] == {"x86_64": "baseline", "aarch64": "neon"}[info.machine]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="one instruction set only elsewhere")
def test_kernels_are_compiled_once_for_each_instruction_set(kernels, directory, compiler_log):
    path = builder.build(directory=directory)
    assert library.read_info(path).isas == ("avx512", "avx2", "baseline")
    kernel_lines = [line for line in compiler_log() if "kernels.cc" in line]
    assert len(kernel_lines) == 3
    assert sum("-mavx512f" in line for line in kernel_lines) == 1
    assert sum("-DMS_DEFORM_ISA=baseline" in line for line in kernel_lines) == 1
    for unit in ("entry.cc", "shared.cc"):
        (line,) = [line for line in compiler_log() if unit in line]
        assert "-DMS_DEFORM_HAVE_AVX512 -DMS_DEFORM_HAVE_AVX2 -DMS_DEFORM_HAVE_BASELINE" in line


def test_nothing_is_compiled_when_up_to_date(kernels, directory, compiler_log):
    path = builder.build(directory=directory)
    before = compiler_log()
    assert builder.build(directory=directory) == path
    assert compiler_log() == before


def test_up_to_date_library_in_a_directory_without_lock_is_not_touched(kernels, directory):
    path = builder.build(directory=directory)
    path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
    builder.build(directory=directory)
    assert os.listdir(directory) == [path.name]


@pytest.mark.parametrize("cause", ["force", "source", "flags", "truncated"])
def test_library_is_replaced_and_not_overwritten(kernels, directory, monkeypatch, cause):
    path = builder.build(directory=directory)
    before = path.stat().st_ino
    with path.open("rb") as held:  # as a process that has loaded it holds it
        if cause == "source":
            with (kernels / "common" / "shared.cc").open("a") as source:
                source.write("// changed\n")
        elif cause == "flags":
            monkeypatch.setenv("CXXFLAGS", "-O1")
        elif cause == "truncated":
            os.truncate(path, path.stat().st_size // 2)
        builder.build(directory=directory, force=cause == "force")
        assert path.stat().st_ino != before
        assert held.read(4) == b"\x7fELF"
    library.read_info(path)


def test_second_builder_waits_and_finds_the_work_done(kernels, directory, compiler_log):
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: builder.build(directory=directory), range(2))
    assert first == second
    assert sum("entry.cc" in line for line in compiler_log()) == 1


def test_compile_error_shows_command_and_diagnostics_and_keeps_the_old_library(kernels, directory):
    path = builder.build(directory=directory)
    before = path.read_bytes()
    (kernels / "cpu" / "kernels.cc").write_text("this is not C++\n")
    with pytest.raises(builder.BuildError, match=r"(?s)g\+\+ .*kernels\.cc.*error:"):
        builder.build(directory=directory)
    assert path.read_bytes() == before
    assert not list(directory.glob(".build-*"))


def test_what_a_killed_builder_left_goes_with_the_next_one(kernels, directory):
    killed = directory / ".build-libms_deform_cpu.so-abc"
    of_another = directory / ".build-libms_deform_cuda.so-abc"  # and maybe still at work
    for folder in (killed, of_another):
        folder.mkdir(parents=True)
        (folder / "kernels.o").touch()
    builder.build(directory=directory)
    assert not killed.exists()
    assert of_another.exists()


def test_undefined_symbol_fails_the_build(kernels, directory):
    (kernels / "common" / "shared.cc").write_text("void missing();\nvoid call() { missing(); }\n")
    with pytest.raises(builder.BuildError, match=r"undefined reference to .missing"):
        builder.build(directory=directory)


def test_missing_compiler_is_named_with_its_mend(kernels, directory, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(builder.BuildError) as caught:
        builder.build(directory=directory)
    message = str(caught.value)
    assert "no-such-compiler" in message
    assert "apt-get install g++" in message
    assert "\n" not in message


def test_directory_that_cannot_be_written_names_the_variable(kernels, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(builder.BuildError, match="MS_DEFORM_LIBRARY_DIR"):
        builder.build(directory=tmp_path / "file" / "lib")


def test_compiler_for_an_unknown_machine_is_refused(kernels, directory, tmp_path, monkeypatch):
    compiler = tmp_path / "riscv-g++"
    compiler.write_text("#!/bin/sh\necho riscv64-linux-gnu\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    message = r"riscv-g\+\+ compiles for riscv64, .* only for x86_64, aarch64; .* CXX"
    with pytest.raises(builder.BuildError, match=message):
        builder.build(directory=directory)


def test_default_directory_is_where_libraries_are_looked_for(kernels, directory, monkeypatch):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(directory))
    assert builder.build() == library.find_library("cpu") == directory / "libms_deform_cpu.so"


def test_library_is_not_writable_by_others_under_any_umask(kernels, directory):
    before = os.umask(0)
    try:
        path = builder.build(directory=directory)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o755


def test_flags_reach_compiler_and_linker(kernels, directory, monkeypatch, compiler_log):
    monkeypatch.setenv("CXXFLAGS", "-DFROM_ENVIRONMENT")
    builder.build(directory=directory, extra_flags=["-fsanitize=undefined"])
    for line in compiler_log():
        assert "-DFROM_ENVIRONMENT -fsanitize=undefined" in line
