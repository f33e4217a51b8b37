# SPDX-License-Identifier: Apache-2.0
"""The vendor package for CANN is complete, and says the same in all of its parts.

It is built in the folders of each CANN, of a test double of the SDK; the kernels also against the
SDK that MS_DEFORM_AICPU_SDK names, if any.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
import pytest

from aicpu_answers import assert_solved, problems
from aicpu_sdk_builds import PROTOTYPES, SDK, build_library_driver, build_sdk, build_tree
from aicpu_trees import PUBLISHED, published
from geometries import GRID
from kernel_driver import CROSS, Driver, missing_tools
from ms_deform.__main__ import main
from ms_deform.backends import aicpu, choose_backend
from ms_deform.backends.interface import Call
from ms_deform.geometry import Attributes, TensorInfo, check_geometry
from ms_deform.install import aicpu_package, aicpu_sdk
from ms_deform.install.aicpu_operators import GEOMETRY, OPERATORS, kernel_list
from ms_deform.install.builder import BuildError, find_compiler, kernel_sources
from ms_deform.install.library import find_library
from networks import call_tensors

KERNELS = "op_impl/cpu/aicpu_kernel/impl/libms_deform_aicpu.so"
PROTO = f"op_proto/lib/linux/{platform.machine()}/libcust_opsproto_rt2.0.so"
PROTO_TOO = f"op_proto/lib/linux/{platform.machine()}/libcust_op_proto.so"


def put_cpu_library(folder: Path) -> None:
    """The one in use, which the command then finds up to date."""
    shutil.copy(find_library("cpu"), folder)


class Built(NamedTuple):
    package: Path
    told: str  # by the command line


def build(folder: Path, environment: dict[str, str], compiler: Sequence[str]) -> Built:
    """Builds the package by the command line."""
    put_cpu_library(folder)
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        for name in ("MS_DEFORM_AICPU_SDK", "ASCEND_OPP_PATH"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("MS_DEFORM_AICPU_CXX", shlex.join([*compiler, "-Werror"]))
        assert main(["build", "--aicpu", "--directory", str(folder)]) == 0
    return Built(folder / "aicpu", told.getvalue())


def build_in(cann_tree: str, folder: Path, compiler: Sequence[str]) -> Built:
    """Builds the package in the folders of a CANN, which the environment names as CANN's does."""
    tree = build_tree(folder / "cann", PUBLISHED[cann_tree].tree, compiler)
    (tree / "opp").mkdir(exist_ok=True)
    return build(folder, {"ASCEND_OPP_PATH": str(tree / "opp")}, compiler)


@pytest.fixture(scope="module")
def sdk(tmp_path_factory) -> Path:
    """A folder with include and lib."""
    return build_sdk(tmp_path_factory.mktemp("sdk"), find_compiler())


@pytest.fixture(scope="module")
def package(sdk, tmp_path_factory) -> Path:
    """Built natively, in that folder."""
    environment = {"MS_DEFORM_AICPU_SDK": str(sdk)}
    built = build(tmp_path_factory.mktemp("aicpu"), environment, find_compiler())
    assert built.told.endswith(f"{built.package} (SDK: layout of include and lib, {sdk})\n")
    return built.package


@pytest.fixture(scope="module")
def driver(package, tmp_path_factory) -> Driver:
    """Of the library that LD_LIBRARY_PATH leads to."""
    folder = tmp_path_factory.mktemp("driver")
    return Driver(build_library_driver(folder, find_compiler(), package / KERNELS))


def leading_to(package: Path) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str((package / KERNELS).parent)}


def test_it_holds_what_cann_looks_for(package):
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert files == {"op_impl/cpu/config/cust_aicpu_kernel.json", KERNELS, PROTO, PROTO_TOO}
    assert (package / PROTO_TOO).samefile(package / PROTO)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tree_of_the_double_has_no_file_that_the_published_one_lacks(name, tmp_path):
    tree = build_tree(tmp_path, PUBLISHED[name].tree, find_compiler())
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}
    assert files - PUBLISHED[name].files == set()


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_built_in_the_folders_of_each_cann_and_its_kernels_run(name, driver, tmp_path):
    built = build_in(name, tmp_path, find_compiler())
    assert built.told.splitlines()[-1] == (
        f"{built.package} (SDK: layout of {name}, {tmp_path}/cann)"
    )
    for dtype in ("float32", "float16"):
        calls = problems([GRID["no bias"]], dtype)
        assert_solved(driver, calls, dtype, **leading_to(built.package))


@pytest.mark.long
@pytest.mark.skipif(bool(missing_tools("aarch64")), reason=missing_tools("aarch64"))
def test_the_kernels_run_on_aarch64(tmp_path):
    compiler, emulator, _ = CROSS["aarch64"]
    sdk = build_tree(tmp_path / "cann", PUBLISHED["CANN 9"].tree, [compiler])
    native = build_tree(tmp_path / "native", PUBLISHED["CANN 9"].tree, find_compiler())
    host = PUBLISHED["CANN 9"].tree.host_libraries
    for name in ("librt2_registry.a", "libexe_graph.so", "libregister.so"):
        shutil.copy(native / host / name, sdk / host / name)
    built = build(tmp_path, {"MS_DEFORM_AICPU_SDK": str(sdk)}, [compiler])
    driver = build_library_driver(tmp_path, [compiler], built.package / KERNELS)
    calls = problems([GRID["no bias"]], "float32")
    assert_solved(Driver(driver, emulator), calls, "float32", **leading_to(built.package))


@pytest.mark.parametrize("host", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_files_for_either_host_are_found(name, host, tmp_path, monkeypatch):
    tree = published(host)[name].tree
    build_tree(tmp_path, tree, find_compiler())
    monkeypatch.setattr(platform, "machine", lambda: host)
    monkeypatch.setenv("MS_DEFORM_AICPU_SDK", str(tmp_path))
    sdk = aicpu_sdk.Sdk.find()
    assert sdk.layout == name
    assert sdk.headers == tuple(tmp_path / folder for folder in tree.headers)
    assert sdk.context == tmp_path / tree.libraries / tree.context
    assert sdk.protobuf == tmp_path / tree.libraries / tree.protobuf
    prototypes = aicpu_sdk.Prototypes.find(sdk.root)
    assert prototypes.headers == tmp_path / tree.prototypes
    assert prototypes.libraries == tmp_path / tree.host_libraries


def test_a_cann_behind_a_link_is_found(tmp_path, monkeypatch):
    """`latest`, which CANN's set_env.sh names, has links to the folders of a version."""
    build_tree(tmp_path / "8.1", PUBLISHED["CANN 8.1"].tree, find_compiler())
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "opp").symlink_to("../8.1/opp")
    monkeypatch.delenv("MS_DEFORM_AICPU_SDK", raising=False)
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "latest" / "opp"))
    sdk = aicpu_sdk.Sdk.find()
    assert sdk.layout == "CANN 8.1"
    assert aicpu_sdk.Prototypes.find(sdk.root).headers.is_dir()


def test_the_library_exports_what_the_device_calls_and_nothing_of_protobuf(package):
    command = ["nm", "--dynamic", "--defined-only", package / KERNELS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    exported = {line.split()[-1] for line in done.stdout.splitlines()}
    assert exported >= {"RunCpuKernel", "RunCpuKernelWithBlock"}
    assert not [name for name in exported if "ascend_private" in name]


def test_errors_go_to_canns_log_where_the_process_has_it(package, driver, tmp_path):
    without = driver.run("refuse", **leading_to(package))
    assert "[ERROR] MsDeformAicpuForward: " in without.stderr
    log = tmp_path / "libdlog.so"
    flags = ["-shared", "-fPIC", SDK / "dlog.cc", "-o", log]
    subprocess.run([*find_compiler(), *flags], check=True)
    within = driver.run("refuse", **leading_to(package), LD_PRELOAD=str(log))
    assert within.stderr == ""
    logged = [line for line in within.stdout.splitlines() if "[ms_deform]" in line]
    assert len(logged) == len(without.stderr.splitlines())
    for line in logged:
        assert re.match(r".*module 36 level 3 \[ms_deform\] MsDeformAicpu\w+: .{10}", line)


@pytest.mark.skipif(
    not os.environ.get("MS_DEFORM_AICPU_SDK"), reason="MS_DEFORM_AICPU_SDK names no real SDK"
)
def test_the_kernels_build_against_a_real_sdk(tmp_path):
    aicpu_package.build_kernels(aicpu_sdk.Sdk.find(), tmp_path / "kernels.so")


def test_the_kernel_list_is_that_of_the_table(package):
    kernels = json.loads((package / "op_impl/cpu/config/cust_aicpu_kernel.json").read_text())
    assert kernels == kernel_list()
    forward = kernels["MsDeformAicpuForward"]
    assert forward["opInfo"]["kernelSo"] == Path(KERNELS).name
    assert forward["opInfo"]["functionName"] == "RunCpuKernel"
    assert forward["opInfo"]["workspaceSize"] == "500"  # KB, CANN's most
    assert forward["input5"] == {
        "name": "geometry",
        "type": "DT_INT64",
        "format": "ND",
        "paramType": "required",
    }
    assert all(
        isinstance(value, str)
        for kernel in kernels.values()
        for entry in kernel.values()
        for value in entry.values()
    )


def test_the_kernels_register_under_the_names_of_the_table():
    source = (kernel_sources() / "aicpu" / "entry.cc").read_text()
    for operator in OPERATORS:
        assert f'"{operator.name}"' in source


def load_prototypes(folder: Path, cann: Path, libraries: Sequence[Path]) -> list[str]:
    """What a process knows of the operators that loads the libraries as CANN does."""
    program = folder / "prototypes"
    if not program.exists():
        strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-D_GLIBCXX_USE_CXX11_ABI=0"]
        flags = [*strict, f"-I{PROTOTYPES}", SDK / "proto_driver.cc", "-ldl"]
        subprocess.run([*find_compiler(), *flags, "-o", program], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(cann)}
    command = [program, *libraries]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def prototypes_of_the_table() -> list[str]:
    shapes = {"output": "2 8 5 6", "grad_input": "2 4 7 9", "grad_offset": "2 18 5 6"}
    shapes.update({"grad_mask": "2 9 5 6", "grad_weight": "8 4 3 3"})
    expected = []
    for operator in OPERATORS:
        expected += [" ".join((operator.name, *operator.inputs))]
        expected += [" ".join(("  outputs", *operator.outputs)), "  status 0 0"]
        for output in operator.outputs:
            expected += [f"  shape {shapes[output]}", "  dtype 1"]
    return expected


def test_the_prototypes_are_those_of_the_table_by_either_name_and_by_both(package, sdk, tmp_path):
    """CANN's shape inference loads both names, the register of operators one."""
    copied = shutil.copytree(package, tmp_path / "copied")
    assert not (copied / PROTO_TOO).is_symlink()
    for folder in (package, copied):
        names = [folder / PROTO, folder / PROTO_TOO]
        for libraries in ([names[0]], [names[1]], names, names[::-1]):
            told = load_prototypes(tmp_path, sdk / "lib", libraries)
            assert told == prototypes_of_the_table()


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_mindspores_registration_is_that_of_the_table(operator):
    info = aicpu.registration(operator)
    assert info["op_name"] == operator.name
    assert tuple(item["name"] for item in info["inputs"]) == operator.inputs
    assert tuple(item["name"] for item in info["outputs"]) == operator.outputs
    assert info["target"] == "Ascend"
    for row, dtype in zip(info["dtype_format"], ("float32", "float16")):
        kinds = ["int64" if name == GEOMETRY else dtype for name in operator.inputs]
        assert [kind for kind, _ in row] == [*kinds, *[dtype] * len(operator.outputs)]


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    for name in ("MS_DEFORM_AICPU_SDK", "ASCEND_OPP_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BuildError, match=r"source CANN's set_env\.sh"):
        aicpu_sdk.Sdk.find()
    sdk = build_sdk(tmp_path / "sdk", find_compiler())
    monkeypatch.setenv("MS_DEFORM_AICPU_SDK", str(sdk))
    monkeypatch.setenv("MS_DEFORM_AICPU_CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="no-such-compiler is not on the PATH"):
        aicpu_package.build_package(aicpu_sdk.Sdk.find(), tmp_path)
    (sdk / "lib" / "librt2_registry.a").unlink()
    with pytest.raises(BuildError, match=rf"no librt2_registry\.a .* {sdk}/lib; install CANN's"):
        aicpu_package.build_package(aicpu_sdk.Sdk.find(), tmp_path)


def test_what_fits_no_cann_is_told_what_each_has_and_where(tmp_path, monkeypatch):
    tree = PUBLISHED["CANN 8.1"].tree
    build_tree(tmp_path, tree, find_compiler())
    (tmp_path / tree.libraries / tree.protobuf).unlink()
    (tmp_path / next(iter(tree.headers)) / "cpu_types.h").unlink()
    monkeypatch.delenv("MS_DEFORM_AICPU_SDK", raising=False)
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "opp"))
    with pytest.raises(BuildError) as caught:
        aicpu_sdk.Sdk.find()
    rows = str(caught.value).splitlines()
    assert rows[-1].startswith("install CANN's toolkit and its operators")
    assert rows[-1].endswith("MS_DEFORM_AICPU_SDK")
    told = {row.split(":")[0].strip(): row for row in rows[1:-1]}
    assert set(told) == {*(f"as {name}" for name in PUBLISHED), "as include and lib"}
    assert f"no cpu_types.h in {tmp_path / next(iter(tree.headers))};" in told["as CANN 8.1"]
    assert f"no {tree.context} and {tree.protobuf} in" in told["as CANN 8.1"]
    assert str(tmp_path / tree.libraries) in told["as CANN 8.1"]


def described(dtype: ms.Type) -> Call:
    """A call on an Ascend device, with mask and without bias."""
    shapes = {name: tensor.shape for name, tensor in call_tensors().items()}
    tensors = (TensorInfo(shapes[name], dtype) for name in ("input", "offset", "mask", "weight"))
    geometry = check_geometry(*tensors, None, ((1, 1), (0, 2, 1, 1), (1, 1)))
    return Call(geometry, dtype, "Ascend", False, "deform_conv2d")


def test_a_call_passes_its_geometry_as_a_tensor():
    attributes = Attributes((2, 1), (0, 1, 2, 3), (1, 4), True, False)
    tensor = aicpu.geometry_tensor(attributes)
    np.testing.assert_array_equal(tensor.asnumpy(), [2, 1, 0, 1, 2, 3, 1, 4, 1, 0])
    assert tensor.dtype == ms.int64


def test_a_call_reaches_its_operator_with_placeholders_for_what_is_absent():
    operator, absent, geometry = aicpu.prepare(described(ms.float16))
    assert operator is aicpu.forward_primitive(False)
    np.testing.assert_array_equal(geometry.asnumpy(), [1, 1, 0, 2, 1, 1, 1, 1, 1, 0])
    assert (absent.shape, absent.dtype) == ((1,), ms.float16)
    calls = []
    tensors = {**call_tensors(), "bias": None}
    input, offset, mask, weight = (tensors[n] for n in ("input", "offset", "mask", "weight"))
    prepared = (lambda *arguments: calls.append(arguments), absent, geometry)
    aicpu.run(prepared, input, offset, mask, weight, None)
    aicpu.run(prepared, input, offset, None, weight, tensors["bias"])
    assert [*map(id, calls[0])] == [*map(id, (input, offset, mask, weight, absent, geometry))]
    assert calls[1][2] is absent


def test_dtypes_that_the_kernels_lack_are_refused():
    for dtype in (ms.float32, ms.float16):
        assert choose_backend(described(dtype), "aicpu") is aicpu
    for dtype in (ms.float64, ms.bfloat16):
        message = f"'aicpu' takes float32 and float16, got {dtype}; .* ms_deform.set_backend"
        with pytest.raises(NotImplementedError, match=message):
            choose_backend(described(dtype), "aicpu")


def test_the_operator_has_shapes_and_gradients():
    operator = aicpu.forward_primitive(True)
    shapes = ((2, 4, 7, 9), (2, 18, 5, 6), (2, 9, 5, 6), (8, 4, 3, 3), (8,), (10,))
    assert operator.out_shape(*shapes) == (2, 8, 5, 6)
    assert operator.out_dtype(*[ms.float16] * 5, ms.int64) == ms.float16
    assert operator.get_bprop() is not None
    assert operator.reg_info["op_name"] == "MsDeformAicpuForward"


def test_the_command_needs_no_mindspore(tmp_path):
    program = (
        "import sys; sys.modules['mindspore'] = None; "
        "from ms_deform.__main__ import main; sys.exit(main(['build', '--aicpu']))"
    )
    put_cpu_library(tmp_path)
    environment = {**os.environ, "MS_DEFORM_LIBRARY_DIR": str(tmp_path)}
    environment.pop("ASCEND_OPP_PATH", None)
    environment.pop("MS_DEFORM_AICPU_SDK", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "no CANN" in done.stderr
