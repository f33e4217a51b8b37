# SPDX-License-Identifier: Apache-2.0
"""What a GPU's primitives tell MindSpore, where there is no GPU to run them."""

from __future__ import annotations

import pytest
from mindspore import dtype as mstype

from fake_checkout import build_library
from geometries import Geometry
from ms_deform import geometry as checked
from ms_deform.backends.aot import forward_primitive
from ms_deform.install.library import LibraryError


@pytest.fixture
def attributes() -> checked.Attributes:
    call = Geometry().call()
    tensors = [
        checked.TensorInfo(call[name].shape, mstype.float32) if name in call else None
        for name in ("input", "offset", "mask", "weight", "bias")
    ]
    return checked.check_geometry(*tensors, ((1, 1), (1, 1), (1, 1))).attributes


@pytest.fixture(autouse=True)
def no_primitives_are_kept() -> None:
    forward_primitive.cache_clear()


def test_without_its_library_the_command_that_builds_it_is_named(
    attributes, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    with pytest.raises(LibraryError, match=r"no cuda library .*python -m ms_deform build --cuda"):
        forward_primitive("GPU", attributes, False, "deform_conv2d")


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpu_gets_the_registration_of_a_cpu(
    attributes, tmp_path, monkeypatch, deterministic: bool
) -> None:
    on_cpu = forward_primitive("CPU", attributes, deterministic, "deform_conv2d")
    build_library("cuda", tmp_path)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path))
    on_gpu = forward_primitive("GPU", attributes, deterministic, "deform_conv2d")
    assert on_gpu.func == f"{tmp_path}/libms_deform_cuda.so:MsDeformForward"
    assert (on_cpu.reg_info["target"], on_gpu.reg_info["target"]) == ("CPU", "GPU")
    for what in ("inputs", "outputs", "attr", "dtype_format"):
        assert on_gpu.reg_info[what] == on_cpu.reg_info[what]
    assert on_gpu.deterministic is deterministic
