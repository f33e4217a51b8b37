# SPDX-License-Identifier: Apache-2.0
"""The vendor package for CANN is complete, and says the same in all of its parts.

It is built against a test double of the SDK; the kernels also against the one that
MS_DEFORM_AICPU_SDK names, if any.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from aicpu_sdk_builds import INCLUDE, SDK, build_sdk
from ms_deform.__main__ import main
from ms_deform.backends import aicpu, choose_backend
from ms_deform.backends.interface import Call
from ms_deform.geometry import Attributes, TensorInfo, check_geometry
from ms_deform.install import aicpu_package, cann
from ms_deform.install.aicpu_operators import GEOMETRY, OPERATORS, kernel_list
from ms_deform.install.builder import BuildError, find_compiler, kernel_sources
from ms_deform.install.library import find_library
from networks import call_tensors

KERNELS = "op_impl/cpu/aicpu_kernel/impl/libms_deform_aicpu.so"
PROTO = f"op_proto/lib/linux/{platform.machine()}/libcust_opsproto_rt2.0.so"


def put_cpu_library(folder: Path) -> None:
    """The one in use, which the command then finds up to date."""
    shutil.copy(find_library("cpu"), folder)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Built by the command line, natively."""
    folder = tmp_path_factory.mktemp("aicpu")
    put_cpu_library(folder)
    with pytest.MonkeyPatch.context() as patch:
        sdk = tmp_path_factory.mktemp("sdk")
        patch.setenv("MS_DEFORM_AICPU_SDK", str(build_sdk(sdk, find_compiler())))
        patch.setenv("MS_DEFORM_AICPU_CXX", shlex.join([*find_compiler(), "-Werror"]))
        assert main(["build", "--aicpu", "--directory", str(folder)]) == 0
    return folder / "aicpu"


def test_it_holds_what_cann_looks_for(package):
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert files == {"op_impl/cpu/config/cust_aicpu_kernel.json", KERNELS, PROTO}


def test_the_library_exports_what_the_device_calls(package):
    library = ctypes.CDLL(str(package / KERNELS))
    for name in ("RunCpuKernel", "RunCpuKernelWithBlock"):
        assert getattr(library, name)


@pytest.mark.skipif(
    not os.environ.get("MS_DEFORM_AICPU_SDK"), reason="MS_DEFORM_AICPU_SDK names no real SDK"
)
def test_the_kernels_build_against_a_real_sdk(tmp_path):
    aicpu_package.build_kernels(aicpu_package.Sdk.find(), tmp_path / "kernels.so")


def test_the_kernel_list_is_that_of_the_table(package):
    kernels = json.loads((package / "op_impl/cpu/config/cust_aicpu_kernel.json").read_text())
    assert kernels == kernel_list()
    forward = kernels["MsDeformAicpuForward"]
    assert forward["opInfo"]["kernelSo"] == Path(KERNELS).name
    assert forward["opInfo"]["functionName"] == "RunCpuKernel"
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


def test_the_prototypes_are_those_of_the_table(tmp_path):
    program = tmp_path / "prototypes"
    sources = [kernel_sources() / "aicpu/op_proto/operators.cc", SDK / "proto_driver.cc"]
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}"]
    subprocess.run([*find_compiler(), *flags, *sources, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    shapes = {"output": "2 8 5 6", "grad_input": "2 4 7 9", "grad_offset": "2 18 5 6"}
    shapes.update({"grad_mask": "2 9 5 6", "grad_weight": "8 4 3 3"})
    expected = []
    for operator in OPERATORS:
        expected += [" ".join((operator.name, *operator.inputs))]
        expected += [" ".join(("  outputs", *operator.outputs)), "  status 0 0"]
        for output in operator.outputs:
            expected += [f"  shape {shapes[output]}", "  dtype 1"]
    assert done.stdout.splitlines() == expected


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


def test_installed_it_is_found(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(package.parent))
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(tmp_path / "vendors" / "ms_deform"))
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    assert cann.aicpu_package("MsDeformAicpuForward") is None
    assert main(["install-aicpu"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/vendors/ms_deform\n"
    assert cann.aicpu_package("MsDeformAicpuForward") == tmp_path / "vendors" / "ms_deform"
    assert (tmp_path / "vendors" / "ms_deform" / KERNELS).is_file()
    # Again, over itself.
    assert main(["install-aicpu"]) == 0


def test_installed_elsewhere_the_variable_is_told(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(package.parent))
    monkeypatch.delenv("ASCEND_CUSTOM_OPP_PATH", raising=False)
    assert main(["install-aicpu", str(tmp_path / "here")]) == 0
    assert f"export ASCEND_CUSTOM_OPP_PATH={tmp_path}/here:" in capsys.readouterr().out
    assert main(["install-aicpu"]) == 1
    assert "name a folder" in capsys.readouterr().err


def test_another_vendors_folder_is_left_alone(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(package.parent))
    config = tmp_path / "op_impl/cpu/config/cust_aicpu_kernel.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"TheirOperator": {}}')
    assert main(["install-aicpu", str(tmp_path)]) == 1
    assert "of another vendor" in capsys.readouterr().err
    assert config.read_text() == '{"TheirOperator": {}}'


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    with pytest.raises(BuildError, match="build it: python -m ms_deform build --aicpu"):
        aicpu_package.install_package(tmp_path / "there")
    monkeypatch.delenv("MS_DEFORM_AICPU_SDK", raising=False)
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    with pytest.raises(BuildError, match=r"source CANN's set_env\.sh"):
        aicpu_package.build_package()
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no libcpu_kernels_context\.a below"):
        aicpu_package.build_package()
    monkeypatch.setenv("MS_DEFORM_AICPU_SDK", str(tmp_path))
    monkeypatch.setenv("MS_DEFORM_AICPU_CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="no-such-compiler is not on the PATH"):
        aicpu_package.build_package()


def test_an_installed_cann_is_found_by_its_own_variable(tmp_path, monkeypatch):
    """CANN's folders, with files of the double's names in them."""
    kernels = tmp_path / "opp/built-in/op_impl/aicpu/aicpu_kernel"
    (kernels / "lib/device").mkdir(parents=True)
    (kernels / "lib/device/libcpu_kernels_context.a").touch()
    monkeypatch.delenv("MS_DEFORM_AICPU_SDK", raising=False)
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "opp"))
    sdk = aicpu_package.Sdk.find()
    assert sdk.kernel_include == kernels / "inc"
    assert sdk.kernel_library == kernels / "lib/device"
    assert sdk.proto_include == tmp_path / "include"


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
