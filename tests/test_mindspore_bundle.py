# SPDX-License-Identifier: Apache-2.0
"""A bundle of MindSpore: what it leaves out can be loaded, and says its name if it is called.

That a bundle is complete, scripts/pack_mindspore.py itself proves: it runs the tests from it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from argparse import Namespace
from pathlib import Path
from shutil import copy

import pytest

from gpu_proof.mindspore_target import mindspore
from gpu_proof.run import Part, run_parts
from mindspore_bundle import absent, packages, run
from mindspore_bundle.libraries import (
    Symbol,
    build_stub,
    closure,
    dynamic_symbols,
    needed,
    stub_source,
)
from mindspore_bundle.packages import is_cuda, is_extension, is_library

VERSION = "libcudnn.so.8"
CALLER = """
#include <cstdio>
#include <exception>
extern "C" int cudnnCreate(void**);
extern "C" int cudnnConvolutionForward();
extern "C" char table[24];
int main() {
  void* handle = nullptr;
  const int status = cudnnCreate(&handle);
  std::printf("%d %d %d\\n", status, handle != nullptr, table[23]);
  try {
    cudnnConvolutionForward();
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
}
"""


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    path = tmp_path / VERSION
    symbols = [
        Symbol("cudnnCreate", VERSION, "U", 0),
        Symbol("cudnnConvolutionForward", VERSION, "U", 0),
        Symbol("table", VERSION, "V", 24),
    ]
    build_stub(path, stub_source(path.name, symbols), VERSION)
    return path


@pytest.fixture
def caller(stub: Path) -> Path:
    program = stub.with_name("caller")
    command = ["g++", "-x", "c++", "-", "-x", "none", stub, f"-Wl,-rpath,{stub.parent}"]
    subprocess.run([*command, "-o", program], input=CALLER, text=True, check=True)
    return program


def test_a_stub_makes_a_handle_and_throws_the_name_of_all_else(caller: Path) -> None:
    printed = subprocess.run([caller], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == [
        "0 1 0",
        "not in this bundle of MindSpore: cudnnConvolutionForward of libcudnn.so.8",
    ]


def test_a_stub_has_the_symbols_with_their_version_and_size(stub: Path) -> None:
    found = {symbol.name: symbol for symbol in dynamic_symbols(stub, defined=True)}
    assert found["cudnnCreate"].version == VERSION
    assert found["table"].size == 24


def test_the_closure_is_what_a_library_needs_of_what_is_available(stub: Path, caller: Path) -> None:
    assert VERSION in needed(caller)
    assert closure([caller], {stub.name: stub, "libother.so": Path("other")}) == {caller, stub}
    assert closure([caller], {}) == {caller}


@pytest.mark.parametrize(
    "name, library, extension, cuda",
    [
        ("libcudart.so.11.0", True, False, True),
        ("libmindspore_core.so", True, False, False),
        ("_c_expression.cpython-312-x86_64-linux-gnu.so", True, True, False),
        ("_rust.abi3.so", True, True, False),
        ("solve.py", False, False, False),
    ],
)
def test_files_are_told_apart_by_their_names(
    name: str, library: bool, extension: bool, cuda: bool
) -> None:
    assert (is_library(Path(name)), is_extension(Path(name)), is_cuda(name)) == (
        library,
        extension,
        cuda,
    )


def test_all_sources_of_a_package_come_along_without_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "tests" / "site-packages"
    monkeypatch.setattr(packages, "SITE", site)
    names = {"pack/__init__.py", "pack/inner/late.py", "pack/tests/test_it.py", "pack/data.txt"}
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    found = {path.relative_to(site).as_posix() for path in packages.sources(site / "pack")}
    assert found == {"pack/__init__.py", "pack/inner/late.py"}


@pytest.mark.parametrize(
    "name, left_out",
    [
        ("mindspore/dataset/engine/datasets.py", True),
        ("mindspore/_c_dataengine.cpython-312-x86_64-linux-gnu.so", True),
        ("scipy/__init__.py", True),
        ("mindspore/scipy/linalg.py", False),
        ("scipy_like.py", False),
    ],
)
def test_what_is_left_out_is_told_by_its_package(name: str, left_out: bool) -> None:
    assert packages.is_absent(packages.SITE / name) is left_out


def test_an_absent_package_can_be_imported_and_its_calls_do_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    copy(absent.__file__, tmp_path / "gone" / "__init__.py")
    program = (
        "import gone\n"
        "from gone.some.where import Dataset, function\n"
        "class Own(Dataset): pass\n"
        "assert function(1, name=2) is None and gone.any.thing.at.all(3) is None\n"
        "assert not hasattr(gone, '__all__')\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_a_trace_lists_the_sources_of_what_pytest_imports(tmp_path: Path) -> None:
    (tmp_path / "imported.py").write_text("")
    (tmp_path / "not_imported.py").write_text("")
    (tmp_path / "test_it.py").write_text("import imported\ndef test_it(): pass\n")
    listing = tmp_path / "read.txt"
    for _ in range(2):  # the second one finds compiled files
        command = [sys.executable, "-m", "mindspore_bundle.trace", listing, "-q", "test_it.py"]
        places = f"{run.ROOT / 'scripts'}:{tmp_path}"
        subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": places}, check=True)
        read = listing.read_text().split("\n")
        assert str(tmp_path / "imported.py") in read
        assert str(tmp_path / "not_imported.py") not in read


def test_a_bundle_for_another_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mindspore-2.10.0-cpython-27.tar.xz").touch()
    message = r"a bundle mindspore-\*-\S+, for this Python, and has .*cpython-27"
    with pytest.raises(ValueError, match=message):
        run.unpack(tmp_path, tmp_path / "bundle")


def bundle_of(folder: Path, programs: dict[str, str]) -> Path:
    """A folder with a bundle of these programs in the place of its packages."""
    for name, program in programs.items():
        path = folder / "bundle" / "site" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(program)
    with tarfile.open(folder / run.archive_name("2.10.0"), "w:xz") as archive:
        archive.add(folder / "bundle" / "site", "site")
    return folder


def proven(folder: Path) -> dict[str, object]:
    """The report of the proof's part."""
    # More than it takes on a busy machine: what it tells is looked at, not its time.
    part = Part("mindspore", 600, mindspore)
    (reports,) = run_parts([part], Namespace(mindspore=folder), folder, folder / "scratch")
    return reports["mindspore"]


CALL_TIMES = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{\"graph\": 75.0}')"
PASSES = "print('3 passed, 9 deselected in 1.00s'); print('[WARNING] a last word of MindSpore')"
FAILS = "print('1 failed, 2 passed in 1.00s'); raise SystemExit(1)"
RAISES = "raise RuntimeError('\\n-----\\n- Cuda error:\\n-----\\nthe driver is too old\\n')"


@pytest.mark.parametrize(
    "call_times, tests, state, why, found",
    [
        (CALL_TIMES, PASSES, "passed", "", {"passed": 3}),
        (CALL_TIMES, FAILS, "failed", "1 failed, 2 passed", {"failed": 1, "passed": 2}),
        (RAISES, PASSES, "failed", "the driver is too old", None),
    ],
    ids=["all is well", "a test fails", "there is no GPU"],
)
def test_the_proof_tells_what_ran_from_a_bundle(
    tmp_path: Path, call_times: str, tests: str, state: str, why: str, found: dict | None
) -> None:
    (tmp_path / "scratch").mkdir()
    programs = {"mindspore_bundle/call_times": call_times, "pytest/__main__": tests}
    report = proven(bundle_of(tmp_path, programs))
    assert (report["state"], report["why"]) == (state, why)
    assert report.get("tests") == found
    assert report.get("microseconds") == ({"graph": 75.0} if found else None)


def test_the_proof_fails_without_a_bundle(tmp_path: Path) -> None:
    report = proven(tmp_path)
    assert report["state"] == "failed"
    assert "must have a bundle" in report["why"]
