# SPDX-License-Identifier: Apache-2.0
"""The aclnn route: the call that MindSpore generates is the documented one, and is made right.

No Ascend device runs here: the generated code is compiled against a stub of CANN's headers, and the
operator is replaced by the composition.
"""

from __future__ import annotations

import re
import subprocess

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import reference
from geometries import GRID, Geometry
from ms_deform import DeformConv2d, backends, deform_conv2d, set_backend
from ms_deform.backends import aclnn, choose_backend, composition
from ms_deform.backends.interface import Call
from ms_deform.geometry import TensorInfo, check_geometry
from ms_deform.install import cann
from ms_deform.install.builder import find_compiler
from networks import CHANNELS, TAPS, image, paired, random_array
from tolerances import assert_close

pytestmark = pytest.mark.not_on_gpu_stand_in("is about Ascend")

# CANN 8.5, aclnnDeformableConv2d, "Prototype".
PROTOTYPE = """
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
"""
PARAMETERS = re.findall(r"(?:const )?(\w+\**) +(\w+)[,)]", PROTOTYPE)


@pytest.fixture
def generator():
    utils = pytest.importorskip(
        "mindspore.ops.operations._custom_ops_utils", reason="needs MindSpore's code generator"
    )
    return utils.CustomCodeGenerator()


def words(name: str) -> str:
    """kernelSize -> kernel_size, biasOptional -> bias"""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name.replace("Optional", "")).lower()


def test_the_generated_parameters_are_the_documented_ones(generator):
    info = aclnn.registration()
    types = generator.get_api_types_by_reg_info(info)
    # The generator ends with its own two; it calls the pointer to the size int64_t*.
    assert types[:-2] == [kind for kind, _ in PARAMETERS][:-2]
    assert types[-1] == PARAMETERS[-1][0] == "aclOpExecutor**"
    names = [item["name"] for key in ("inputs", "attr", "outputs") for item in info[key]]
    assert names == [words(name) for _, name in PARAMETERS][:-2]


STUB_ACL_BASE = """
#pragma once
#include <cstdint>
typedef int aclDataType;
"""

# The documented function, which tells its arguments, and a caller that passes 1, 2, 3, ..
CALLER = """
#include <cstdio>
#include "callback.cc"

using aclnnStatus = int;
extern "C" {prototype} {{
  const void* pointers[] = {{x, weight, offset, biasOptional, kernelSize, stride, padding, dilation,
                            out, deformOutOptional}};
  for (const void* pointer : pointers) std::printf("%zd ", reinterpret_cast<intptr_t>(pointer));
  std::printf("%zd %zd %d\\n", groups, deformableGroups, modulated);
  *workspaceSize = 77;
  *executor = reinterpret_cast<aclOpExecutor*>(78);
  return 79;
}}

int main() {{
  auto address = [](intptr_t number) {{ return reinterpret_cast<void*>(number); }};
  std::vector<void*> inputs;
  for (int i = 1; i <= 8; ++i) inputs.push_back(address(i));
  int64_t groups = 9, deformable_groups = 10;
  bool modulated = true;
  inputs.insert(inputs.end(), {{&groups, &deformable_groups, &modulated}});
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  const int status = aclnnDeformableConv2dGetWorkSpaceSize(
      reinterpret_cast<void*>(&aclnnDeformableConv2dGetWorkspaceSize), inputs,
      {{address(11), address(12)}}, &size, &executor);
  std::printf("%d %zu %zd\\n", status, size, reinterpret_cast<intptr_t>(executor));
}}
"""


def test_the_generated_call_compiles_and_passes_every_argument(generator, tmp_path):
    callback = generator.generate_callback_by_reg_info(aclnn.FUNCTION, aclnn.registration())
    (tmp_path / "acl").mkdir()
    (tmp_path / "acl" / "acl_base.h").write_text(STUB_ACL_BASE)
    (tmp_path / "callback.cc").write_text(callback)
    (tmp_path / "caller.cc").write_text(CALLER.format(prototype=PROTOTYPE.strip()))
    flags = ["-std=c++17", "-Wall", "-Wextra", f"-I{tmp_path}"]
    command = [*find_compiler(), *flags, tmp_path / "caller.cc", "-o", tmp_path / "caller"]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "caller"], capture_output=True, text=True, check=True)
    assert done.stdout == "1 2 3 4 5 6 7 8 11 12 9 10 1\n79 77 78\n"


def described(geometry: Geometry, dtype: ms.Type = ms.float32) -> Call:
    """A call on an Ascend device."""
    call = geometry.call()
    tensors = (
        TensorInfo(call[name].shape, dtype) if name in call else None
        for name in ("input", "offset", "mask", "weight", "bias")
    )
    constants = (geometry.stride, geometry.padding, geometry.dilation)
    return Call(check_geometry(*tensors, constants), dtype, "Ascend", False, "deform_conv2d")


SHAPED = ("torchvision's own", "four-sided padding", "no mask", "7x5 kernel")


@pytest.mark.parametrize("name", SHAPED)
def test_shapes_and_constants_are_those_of_the_call(name):
    geometry = GRID[name]
    input, offset, weight = (geometry.call()[name].shape for name in ("input", "offset", "weight"))
    out, columns = aclnn.infer_shapes(input, weight, offset, (4,), (3, 2))
    assert out == geometry.grad_output().shape
    kernel, size = geometry.kernel, geometry.output_size
    assert columns == (input[0], input[1], size[0] * kernel[0], size[1] * kernel[1])
    padding = geometry.padding
    sides = padding if len(padding) == 4 else tuple(np.repeat(padding, 2))
    assert aclnn.constants(described(geometry).geometry) == (
        kernel,
        (1, 1, *geometry.stride),
        sides,
        (1, 1, *geometry.dilation),
        geometry.groups,
        geometry.offset_groups,
        True,
    )


class Gradients(nn.Cell):
    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.gradients = aclnn.gradients_of(*composition.prepare(described(geometry)))

    def construct(self, *tensors):
        return self.gradients(*tensors)


def pack(offset: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.concatenate([offset[:, 1::2], offset[:, 0::2], mask], 1)


@pytest.mark.parametrize("name", ("torchvision's own", "four-sided padding"))
def test_gradients_are_the_references(name, device, mode):
    geometry = GRID[name]
    call, grad_output = geometry.call(), geometry.grad_output()
    packed = pack(call["offset"], call["mask"])
    arrays = (call["input"], call["weight"], packed, grad_output)
    tensors = [ms.Tensor(array.astype(np.float32)) for array in arrays]
    actual = Gradients(geometry)(*tensors)
    expected = reference.deform_conv2d_grad(grad_output, **call)
    packed_gradient = pack(expected.offset, expected.mask)
    wanted = (expected.input, expected.weight, packed_gradient, expected.bias)
    for value, theirs in paired(actual, wanted):
        assert_close(value.asnumpy(), theirs, "float32", "gradient", 1e-5)


def test_the_operators_bprop_gives_a_gradient_for_every_argument():
    geometry = GRID["torchvision's own"]
    call, grad_output = geometry.call(), geometry.grad_output()
    packed = pack(call["offset"], call["mask"])
    arrays = (call["input"], call["weight"], packed, call["bias"], grad_output)
    x, weight, offset, bias, grad = (ms.Tensor(array.astype(np.float32)) for array in arrays)
    operator, constants = aclnn.prepare(described(geometry))
    gradients = operator.get_bprop()(x, weight, offset, bias, *constants, (grad, x), (grad, x))
    assert len(gradients) == len(aclnn.registration()["inputs"]) + len(constants)
    for tensor, gradient in paired((x, weight, offset, bias), gradients[:4]):
        assert gradient.shape == tensor.shape


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A folder that looks like CANN 8.5."""
    header = tmp_path / "include/aclnnop/aclnn_deformable_conv2d.h"
    header.parent.mkdir(parents=True)
    header.touch()
    (tmp_path / "opp").mkdir()
    monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "opp"))
    return tmp_path


@pytest.mark.parametrize("soc", ("Ascend910B4", "Ascend910_9392", "Ascend950PR"))
def test_products_with_the_function_have_no_obstacle(toolkit, soc):
    assert cann.aclnn_obstacle(soc) is None


@pytest.mark.parametrize("soc", ("Ascend910A", "Ascend310P3", ""))
def test_other_products_are_named(toolkit, soc):
    assert f"this is {soc or 'no Ascend device'}" in cann.aclnn_obstacle(soc)


def test_what_is_missing_of_cann_is_named(toolkit, monkeypatch):
    (toolkit / "include/aclnnop/aclnn_deformable_conv2d.h").unlink()
    assert "install CANN 8.5 or later" in cann.aclnn_obstacle("Ascend910B4")
    monkeypatch.delenv("ASCEND_OPP_PATH")
    assert "source CANN's set_env.sh" in cann.aclnn_obstacle("Ascend910B4")


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (Geometry(size=(50, 50), kernel=(46, 46), groups=2), "at most 2048 taps"),
        (Geometry(channels_in=8000, kernel=(3, 3)), "and 65535 taps times"),
        (GRID["empty batch"], "no empty tensors"),
    ],
)
def test_calls_beyond_the_functions_limits_are_named(usable, geometry, reason):
    assert reason in aclnn.obstacle(described(geometry))
    assert aclnn.obstacle(described(GRID["no bias"])) is None


def test_shapes_must_be_known(usable):
    call = described(GRID["no bias"])
    any_batch = call._replace(geometry=call.geometry._replace(batch=None))
    assert "shapes that are known" in aclnn.obstacle(any_batch)


@pytest.fixture
def usable(monkeypatch):
    """As on a device that has the function, in graph mode."""
    monkeypatch.setattr(aclnn, "aclnn_obstacle", lambda soc: None)
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(backends.log, "warning", lines.append)
    backends._log_once.cache_clear()
    return lines


def test_layers_that_are_not_trained_take_it_in_graph_mode(mode, logged, monkeypatch):
    monkeypatch.setattr(aclnn, "aclnn_obstacle", lambda soc: None)
    call = described(GRID["no bias"])
    expected = aclnn if mode == "graph" else composition
    for _ in range(2):
        assert choose_backend(call, None, training=False) is expected
        assert choose_backend(call, "aclnn", training=True) is expected
    assert choose_backend(call, None, training=True) is composition
    with set_backend("composition"):
        assert choose_backend(call, None, training=False) is composition
    # One line for each reason, however often it holds.
    wanted = ["deform_conv2d: the composition instead of aclnn, which needs graph mode, jit level"]
    assert [line.rpartition(" O0")[0] for line in logged] == ([] if mode == "graph" else wanted)


def test_what_the_composition_does_not_take_either_is_an_error(usable, logged):
    with pytest.raises(NotImplementedError, match=r"'composition' takes .* got float64"):
        choose_backend(described(GRID["no bias"], ms.float64), None, training=False)


class StandIn:
    """The composition, behind the arguments of aclnnDeformableConv2d."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, x, weight, packed, bias, *constants):
        self.calls.append(constants)
        kernel, stride, padding, dilation, groups, offset_groups, modulated = constants
        samples = offset_groups * kernel[0] * kernel[1]
        assert packed.shape[1] == 3 * samples
        assert weight.shape[1] * groups == x.shape[1]
        assert modulated is True
        offset, mask = composition_layout(packed, samples)
        with set_backend("aot"):
            output = deform_conv2d(x, offset, weight, bias, stride[2:], padding, dilation[2:], mask)
        return output, packed


def composition_layout(packed: ms.Tensor, samples: int) -> tuple[ms.Tensor, ms.Tensor]:
    array = packed.asnumpy()
    offset = np.stack([array[:, samples : 2 * samples], array[:, :samples]], 2)
    offset = offset.reshape(len(array), 2 * samples, *array.shape[2:])
    return ms.Tensor(offset), ms.Tensor(np.ascontiguousarray(array[:, 2 * samples :]))


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    """Makes this machine's calls take the route, with a stand-in for CANN's function."""
    stand_in = StandIn()
    for row in backends.BACKENDS.values():
        monkeypatch.setitem(row, "aclnn", aclnn)
    for device_target in backends.BACKENDS:
        monkeypatch.setitem(backends.INFERENCE_DEFAULTS, device_target, "aclnn")
    monkeypatch.setattr(aclnn, "obstacle", lambda call: None)
    monkeypatch.setattr(aclnn, "primitive", lambda *primitives: stand_in)
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield stand_in
    ms.set_context(mode=before)


@pytest.mark.parametrize("dtype", (ms.float32, ms.float16))
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("use_mask", (True, False))
def test_a_layer_calls_the_function_with_what_it_means(device, stand_in, dtype, bias, use_mask):
    layer = DeformConv2d(CHANNELS, 6, 3, 2, (0, 1, 2, 1), groups=2, bias=bias)
    for parameter in layer.get_parameters():
        parameter.set_dtype(dtype)
    offset = ms.Tensor(random_array((2, 4 * TAPS, 3, 5)), dtype)
    mask = ms.Tensor(random_array((2, 2 * TAPS, 3, 5), 1), dtype) if use_mask else None
    arguments = (image().astype(dtype), offset, mask)
    expected = layer.set_train()(*arguments)
    assert not stand_in.calls
    actual = layer.set_train(False)(*arguments)
    assert stand_in.calls == [((3, 3), (1, 1, 2, 2), (0, 1, 2, 1), (1, 1, 1, 1), 2, 2, True)]
    assert actual.dtype == expected.dtype == dtype
    np.testing.assert_allclose(
        *(value.astype(ms.float32).asnumpy() for value in (actual, expected)), rtol=1e-3, atol=1e-5
    )
