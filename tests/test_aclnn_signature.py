# SPDX-License-Identifier: Apache-2.0
"""The aclnn route: the calls that MindSpore generates are the documented ones, and are made right.

No Ascend device runs here: the generated code is compiled against a stub of CANN's headers.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import ModuleType

import mindspore as ms
import pytest

from cann_toolkit import BACKWARD_HEADER, HEADER
from ms_deform.backends import aclnn
from ms_deform.install.builder import find_compiler

pytestmark = pytest.mark.not_on_gpu_stand_in("is about Ascend")

# hicann/ops-nn v9.1.0, conv/deformable_conv2d/op_host/op_api/aclnn_deformable_conv2d.h and
# conv/convolution_backward/op_api/aclnn_convolution_backward.h.
PROTOTYPES = {
    aclnn.FORWARD: """
aclnnStatus aclnnDeformableConv2dGetWorkspaceSize(
  const aclTensor*   x,
  const aclTensor*   weight,
  const aclTensor*   offset,
  const aclTensor*   biasOptional,
  const aclIntArray* kernelSize,
  const aclIntArray* stride,
  const aclIntArray* padding,
  const aclIntArray* dilation,
  int64_t            groups,
  int64_t            deformableGroups,
  bool               modulated,
  aclTensor*         out,
  aclTensor*         deformOutOptional,
  uint64_t*          workspaceSize,
  aclOpExecutor**    executor)
""",
    aclnn.BACKWARD: """
aclnnStatus aclnnDeformableConv2dBackwardGetWorkspaceSize(
  const aclTensor*   input,
  const aclTensor*   gradOutput,
  const aclTensor*   offsetOut,
  const aclTensor*   weight,
  const aclTensor*   offset,
  const aclIntArray* kernelSize,
  const aclIntArray* stride,
  const aclIntArray* padding,
  const aclIntArray* dilation,
  int64_t            groups,
  int64_t            deformableGroups,
  bool               modulated,
  aclTensor*         gradInput,
  aclTensor*         gradWeight,
  aclTensor*         gradOffset,
  aclTensor*         gradBias,
  uint64_t*          workspaceSize,
  aclOpExecutor**    executor)
""",
}
each_function = pytest.mark.parametrize("function", PROTOTYPES, ids=["forward", "backward"])


def parameters(function: aclnn.Function) -> list[tuple[str, str]]:
    """Type and name of each, without the two of GetWorkspaceSize itself."""
    return re.findall(r"(?:const )?(\w+\**) +(\w+)[,)]", PROTOTYPES[function])[:-2]


@pytest.fixture
def utils() -> ModuleType:
    return pytest.importorskip(
        "mindspore.ops.operations._custom_ops_utils", reason="needs MindSpore's code generator"
    )


def words(name: str) -> str:
    """kernelSize -> kernel_size, biasOptional -> bias"""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name.replace("Optional", "")).lower()


@each_function
def test_the_generated_parameters_are_the_documented_ones(utils, function):
    info = aclnn.registration(function)
    types = utils.CustomCodeGenerator().get_api_types_by_reg_info(info)
    # The generator ends with its own two; it calls the pointer to the size int64_t*.
    assert types[:-2] == [kind for kind, _ in parameters(function)]
    assert types[-1] == "aclOpExecutor**"
    names = [item["name"] for key in ("inputs", "attr", "outputs") for item in info[key]]
    assert names == [words(name) for _, name in parameters(function)]


@pytest.fixture
def types_in_the_header(utils, tmp_path, monkeypatch):
    """What MindSpore reads in the header of an installed CANN that declares the function."""

    def read(function: aclnn.Function, header: str) -> list[str]:
        # MindSpore 2.10 looks in the first folder, 2.7 in the second.
        for folder in (".", "opp/built-in/op_impl/ai_core/tbe/op_api"):
            path = tmp_path / folder / header
            path.parent.mkdir(parents=True)
            path.write_text(f"ACLNN_API {PROTOTYPES[function].strip()};\n")
        monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "opp"))
        return utils.CustomInfoGenerator(function.name).get_aclnn_api_types()

    return read


def test_mindspore_reads_the_same_parameters_in_the_forwards_header(types_in_the_header):
    types = types_in_the_header(aclnn.FORWARD, HEADER)
    assert types[:-2] == [kind for kind, _ in parameters(aclnn.FORWARD)]


def test_mindspore_finds_no_header_of_the_backward_and_goes_by_the_registration(
    types_in_the_header,
):
    assert types_in_the_header(aclnn.BACKWARD, BACKWARD_HEADER) == []


STUB_ACL_BASE = """
#pragma once
#include <cstdint>
typedef int aclDataType;
"""

# The documented function, which tells its arguments, and a caller that passes 1, 2, 3, ..
CALLER = """
#include <cstdio>
#include "callback.cc"

void Show(const void* pointer) {{ std::printf("%zd ", reinterpret_cast<intptr_t>(pointer)); }}
void Show(int64_t number) {{ std::printf("%zd ", number); }}
void Show(bool truth) {{ std::printf(truth ? "true " : "false "); }}

using aclnnStatus = int;
extern "C" {prototype} {{
  {shows}
  *workspaceSize = 77;
  *executor = reinterpret_cast<aclOpExecutor*>(78);
  return 79;
}}

int main() {{
  auto address = [](intptr_t number) {{ return reinterpret_cast<void*>(number); }};
  int64_t groups = -1, deformableGroups = -2;
  bool modulated = true;
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  const int status = {function}GetWorkSpaceSize(
      reinterpret_cast<void*>(&{function}GetWorkspaceSize), {{{inputs}}}, {{{outputs}}}, &size,
      &executor);
  std::printf("%d %zu %zd\\n", status, size, reinterpret_cast<intptr_t>(executor));
}}
"""
SCALARS = {"groups": "-1", "deformableGroups": "-2", "modulated": "true"}


@each_function
def test_the_generated_call_compiles_and_passes_every_argument(utils, tmp_path, function):
    info = aclnn.registration(function)
    callback = utils.CustomCodeGenerator().generate_callback_by_reg_info(function.name, info)
    names = [name for _, name in parameters(function)]
    passed = [
        f"&{name}" if name in SCALARS else f"address({index})" for index, name in enumerate(names)
    ]
    count = len(names) - len(function.outputs)
    caller = CALLER.format(
        prototype=PROTOTYPES[function].strip(),
        shows=" ".join(f"Show({name});" for name in names),
        function=function.name,
        inputs=", ".join(passed[:count]),
        outputs=", ".join(passed[count:]),
    )
    (tmp_path / "acl").mkdir()
    (tmp_path / "acl" / "acl_base.h").write_text(STUB_ACL_BASE)
    (tmp_path / "callback.cc").write_text(callback)
    wanted = [SCALARS.get(name, str(index)) for index, name in enumerate(names)]
    assert output_of(caller, tmp_path) == " ".join((*wanted, "79", "77", "78")) + "\n"


def output_of(program: str, folder: Path) -> str:
    """What the C++ program prints."""
    (folder / "program.cc").write_text(program)
    flags = ["-std=c++17", "-Wall", "-Wextra", f"-I{folder}"]
    command = [*find_compiler(), *flags, folder / "program.cc", "-o", folder / "program"]
    subprocess.run(command, check=True)
    done = subprocess.run([folder / "program"], capture_output=True, text=True, check=True)
    return done.stdout


# What MindSpore's ConvertType stands on, and a caller that tells the format of each rank.
FORMATS = """
#include <cstdint>
#include <cstdio>
#include <vector>

enum aclFormat {{ ACL_FORMAT_FRACTAL_NZ, ACL_FORMAT_ND, ACL_FORMAT_NCL, ACL_FORMAT_NCHW,
                  ACL_FORMAT_NCDHW }};
struct aclTensor {{ aclFormat format; }};
enum {{ kMetaTypeNone = 1, FRACTAL_NZ }};
struct AclConverter {{ static int ConvertType(int) {{ return 0; }} }};
using ShapeVector = std::vector<int64_t>;
struct Storage {{ ShapeVector strides, ori_shape; size_t storage_offset; }};
namespace mindspore::kernel {{
struct KernelTensor {{
  ShapeVector shape;
  int type_id() const {{ return 0; }}
  int dtype_id() const {{ return 0; }}
  int format() const {{ return 0; }}
  void* device_ptr() const {{ return nullptr; }}
  const ShapeVector& GetShapeVector() const {{ return shape; }}
  const Storage* tensor_storage_info() const {{ return nullptr; }}
}};
}}
int64_t SizeToLong(size_t size) {{ return static_cast<int64_t>(size); }}
aclTensor* Create(const int64_t*, uint64_t, int, const int64_t*, int64_t, aclFormat format,
                  const int64_t*, uint64_t, void*) {{
  return new aclTensor{{format}};
}}
auto create = &Create;
#define GET_OP_API_FUNC(name) create

{convert_type}

int main() {{
  for (const size_t rank : {{1, 4}}) {{
    const mindspore::kernel::KernelTensor tensor{{ShapeVector(rank, 2)}};
    const aclFormat format = ConvertType(&tensor)->format;
    std::puts(format == ACL_FORMAT_NCHW ? "NCHW" : format == ACL_FORMAT_ND ? "ND" : "another");
  }}
}}
"""


def test_mindspore_makes_the_bias_nd_and_the_other_tensors_nchw(tmp_path):
    path = "include/mindspore/ops/kernel/ascend/acl_ir/op_api_convert.h"
    source = (Path(ms.__file__).parent / path).read_text()
    start = "inline aclTensor *ConvertType(const mindspore::kernel::KernelTensor *tensor) {"
    convert_type = start + source.partition(start)[2].partition("\n}\n")[0] + "\n}\n"
    assert output_of(FORMATS.format(convert_type=convert_type), tmp_path) == "ND\nNCHW\n"
