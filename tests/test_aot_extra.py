# SPDX-License-Identifier: Apache-2.0
"""The mirror of MindSpore's AotExtra reads attributes as the installed MindSpore writes them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import mindspore as ms
import pytest

from ms_deform.install.builder import find_compiler, kernel_sources
from ms_deform.install.library import ABI

# Implements MindSpore's own class, and reads it through the mirror. Compiled as two units: each of
# the headers defines an AotExtra.
MINDSPORES = """
#include <cstdint>
#include "utils/custom_aot_extra.h"
namespace {
class Extra : public mindspore::AotExtra {
 public:
  bool HasAttr(std::string name) override { return name == "present"; }
 private:
  bool GetAttrBool(std::string name) override { return name == "yes"; }
  int64_t GetAttrInt(std::string name) override { return name.size(); }
  float GetAttrFloat(std::string name) override { return name.size() / 2.0f; }
  std::string GetAttrStr(std::string name) override { return name + name; }
  std::vector<int64_t> GetAttrIntVec(std::string name) override {
    return {1, -2, static_cast<int64_t>(name.size())};
  }
  std::vector<float> GetAttrFloatVec(std::string) override { return {}; }
  std::vector<std::vector<int64_t>> GetAttrInt2DVec(std::string) override { return {}; }
  std::vector<std::vector<float>> GetAttrFloat2DVec(std::string) override { return {}; }
};
}
extern "C" void *MakeExtra() { return new Extra; }
"""
MIRROR = """
#include "common/aot_extra.h"
extern "C" void *MakeExtra();
extern "C" int CountDifferences() {
  auto *extra = static_cast<ms_deform::AotExtra *>(MakeExtra());
  int differences = 0;
  differences += !extra->HasAttr("present") + extra->HasAttr("absent");
  differences += !extra->GetAttrBool("yes") + extra->GetAttrBool("no");
  differences += extra->GetAttrInt("seven77") != 7;
  differences += extra->GetAttrFloat("five5") != 2.5f;
  differences += extra->GetAttrStr("ab") != "abab";
  differences += extra->GetAttrIntVec("three") != std::vector<int64_t>{1, -2, 5};
  delete extra;
  return differences;
}
"""


MINDSPORE = Path(ms.__file__).parent
# Roots that the wheel's headers include each other from; not all are in every version.
INCLUDE = (
    "include",
    "include/third_party",
    "include/third_party/include",
    "include/third_party/robin_hood_hashing",
    "include/third_party/robin_hood_hashing/include",
    "include/third_party/securec/include",
    "include/mindspore",
    "include/mindspore/include",
    "include/mindspore/core",
    "include/mindspore/core/include",
    "include/mindspore/core/mindrt",
    "include/mindspore/core/mindrt/include",
    "include/mindspore/ops",
    "include/mindspore/ops/include",
    "include/mindspore/ccsrc",
    "include/mindspore/ccsrc/include",
)


@pytest.mark.long
def test_attributes_written_by_mindspores_class_are_read_through_the_mirror(tmp_path):
    if not list((MINDSPORE / "include").rglob("custom_aot_extra.h")):
        pytest.skip("this MindSpore ships no custom_aot_extra.h to compare with")
    flags = ["-std=c++17", "-fPIC", "-w", f"-D_GLIBCXX_USE_CXX11_ABI={ABI}"]
    (tmp_path / "mindspores.cc").write_text(MINDSPORES)
    (tmp_path / "mirror.cc").write_text(MIRROR)
    includes = [f"-I{MINDSPORE / folder}" for folder in INCLUDE]
    defines = ["-DENABLE_FAST_HASH_TABLE=1", "-O1"]
    core = MINDSPORE / "lib" / "libmindspore_core.so"
    commands = [
        [*flags, *defines, *includes, "-c", "mindspores.cc", "-o", "mindspores.o"],
        [*flags, f"-I{kernel_sources()}", "-c", "mirror.cc", "-o", "mirror.o"],
        ["-shared", "mindspores.o", "mirror.o", core, "-o", "libmirror.so"],
    ]
    for command in commands:
        subprocess.run([*find_compiler(), *command], cwd=tmp_path, check=True)
    assert ctypes.CDLL(str(tmp_path / "libmirror.so")).CountDifferences() == 0
