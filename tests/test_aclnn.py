# SPDX-License-Identifier: Apache-2.0
"""The aclnn route: which calls take it, what CANN is given, and the gradients.

No Ascend device runs here: `ops.Custom` is replaced by the composition. What MindSpore generates
for it is test_aclnn_signature.py's.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import reference
from cann_toolkit import HEADER, make_toolkit
from element_types import held_in
from geometries import GRID, Geometry
from ms_deform import DeformConv2d, backends, deform_conv2d, set_backend
from ms_deform.backends import aclnn, choose_backend, composition
from ms_deform.backends.interface import Call
from ms_deform.geometry import TensorInfo, check_geometry
from ms_deform.install import cann
from networks import CHANNELS, TAPS, MeanSquare, image, paired, random_array
from tolerances import assert_close

pytestmark = pytest.mark.not_on_gpu_stand_in("is about Ascend")

A2, A3, ASCEND_950 = "Ascend910B4", "Ascend910_9392", "Ascend950PR_9589"
TENSORS = ("input", "offset", "mask", "weight", "bias")


def described(geometry: Geometry, dtype: ms.Type = ms.float32) -> Call:
    """A call on an Ascend device."""
    call = geometry.call()
    tensors = (TensorInfo(call[name].shape, dtype) if name in call else None for name in TENSORS)
    constants = (geometry.stride, geometry.padding, geometry.dilation)
    return Call(check_geometry(*tensors, constants), dtype, "Ascend", False, "deform_conv2d")


def of_size(height: int, width: int, dtype: ms.Type = ms.float32) -> Call:
    call = described(Geometry(), dtype)
    return call._replace(geometry=call.geometry._replace(in_size=(height, width)))


@pytest.fixture
def on(monkeypatch, tmp_path):
    """As on a device of that name, with a CANN of that version."""

    def use(soc: str, version: str = "9.1") -> None:
        make_toolkit(tmp_path, version)
        monkeypatch.setenv("ASCEND_OPP_PATH", str(tmp_path / "opp"))
        monkeypatch.setattr(composition, "soc_version", lambda: soc)

    return use


SHAPED = ("torchvision's own", "four-sided padding", "no mask", "7x5 kernel")


@pytest.mark.parametrize("name", SHAPED)
def test_shapes_and_constants_are_those_of_the_call(name):
    geometry = GRID[name]
    input, offset, weight = (geometry.call()[name].shape for name in ("input", "offset", "weight"))
    out, columns = aclnn.infer_shapes(input, weight, offset, (4,), (3, 2))
    assert out == geometry.grad_output().shape
    kernel, size = geometry.kernel, geometry.output_size
    assert columns == (input[0], input[1], size[0] * kernel[0], size[1] * kernel[1])
    gradients = aclnn.infer_gradient_shapes(input, out, columns, weight, offset, (3, 2))
    assert gradients == (input, weight, offset, (geometry.channels_out,))
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


class Forward(nn.Cell):
    """In place of the operator: the composition, with the operator's own bprop."""

    def __init__(self, geometry, bprop) -> None:
        super().__init__()
        self.sample, self.product = composition.primitives(geometry)
        self.operators_bprop = bprop

    def construct(
        self, x, weight, offset, bias, kernel, stride, padding, dilation, groups, parts, modulated
    ):
        columns = self.sample(x, offset)
        return self.product(columns, weight) + ops.reshape(bias, (1, -1, 1, 1)), columns

    def bprop(
        self,
        x,
        weight,
        offset,
        bias,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        parts,
        modulated,
        outputs,
        grad_outputs,
    ):
        constants = (kernel, stride, padding, dilation, groups, parts, modulated)
        return self.operators_bprop(x, weight, offset, bias, *constants, outputs, grad_outputs)


class Backward(nn.Cell):
    """In place of CANN's gradient: as it does, first that of the product, then of the sampling."""

    def __init__(self, geometry, bprop) -> None:
        super().__init__()
        self.sample, self.product = composition.primitives(geometry)
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, input, grad_output, offset_out, weight, offset, *constants):
        def product(columns, weight):
            return self.product(columns, weight)

        def sample(input, offset):
            return self.sample(input, offset)

        grad_columns, grad_weight = self.gradient(product)(offset_out, weight, grad_output)
        grad_input, grad_offset = self.gradient(sample)(input, offset, grad_columns)
        return grad_input, grad_weight, grad_offset, grad_output.sum((0, 2, 3))


class Run(nn.Cell):
    """The backend's run."""

    def __init__(self, prepared) -> None:
        super().__init__()
        self.operator, self.arguments = prepared

    def construct(self, *tensors):
        return aclnn.run((self.operator, self.arguments), *tensors)


class Gradients(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__()
        self.net = net
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, *tensors):
        return self.gradient(self.net)(*tensors)


@pytest.fixture
def built(monkeypatch):
    """The functions whose operators were made; stand-ins take their place."""
    functions = []

    def of(geometry):
        def custom(function, infer_shape, bprop):
            functions.append(function)
            return (Forward if function == aclnn.FORWARD else Backward)(geometry, bprop)

        monkeypatch.setattr(aclnn, "_custom", custom)
        return functions

    caches = (aclnn.primitive, aclnn.backward_primitive)
    for cached in caches:
        cached.cache_clear()
    yield of
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("dtype", ("float32", "float16"))
@pytest.mark.parametrize(
    ("soc", "functions"),
    [(A2, [aclnn.FORWARD]), (ASCEND_950, [aclnn.BACKWARD, aclnn.FORWARD])],
)
@pytest.mark.parametrize("name", ("torchvision's own", "four-sided padding"))
def test_results_and_gradients_are_the_references(
    name, soc, functions, dtype, device, graph_mode, on, built
):
    on(soc)
    geometry = GRID[name]
    call = held_in(dtype, geometry.call())
    grad_output = held_in(dtype, {"offset": geometry.grad_output()})["offset"]
    description = described(geometry, getattr(ms, dtype))
    made = built(description.geometry.any_size)
    net = Run(aclnn.prepare(description))
    assert made == functions
    tensors = [ms.Tensor(call[name].astype(dtype)) for name in TENSORS]
    output = net(*tensors)
    actual = Gradients(net)(*tensors, ms.Tensor(grad_output.astype(dtype)))
    assert_close(output.asnumpy(), reference.deform_conv2d(**call), dtype, "output")
    expected = reference.deform_conv2d_grad(grad_output, **call)
    for tensor, value, name in zip(tensors, actual, TENSORS):
        assert value.dtype == tensor.dtype
        assert_close(value.asnumpy(), getattr(expected, name), dtype, name, max_error(dtype))


@pytest.mark.parametrize(
    ("soc", "gradients"),
    [(A2, "DeformableOffsetsGrad"), (ASCEND_950, f'reg_op_name: "{aclnn.BACKWARD.name}"')],
)
def test_the_graph_of_a_trained_layer_holds_what_the_product_has(
    soc, gradients, device, graph_mode, on, monkeypatch, tmp_path
):
    on(soc)
    monkeypatch.setitem(backends.BACKENDS[device], "aclnn", aclnn)
    monkeypatch.chdir(tmp_path)
    layer = DeformConv2d(CHANNELS, 6, 3, padding=1, groups=2, backend="aclnn").set_train()
    offset = ms.Tensor(random_array((2, 2 * TAPS, *image().shape[2:])))
    ms.set_context(save_graphs=2, save_graphs_path=str(tmp_path))
    try:
        # MindSpore compiles all of it, up to the kernel, which only CANN has.
        with pytest.raises(RuntimeError, match=aclnn.FORWARD.name):
            Gradients(MeanSquare(layer))(image(), offset, ms.Tensor(1.0))
    finally:
        ms.set_context(save_graphs=0)
    (validated,) = tmp_path.rglob("*_validate_*.ir")
    graph = validated.read_text()
    assert graph.count(f'reg_op_name: "{aclnn.FORWARD.name}"') == 1
    for name in ("DeformableOffsetsGrad", f'reg_op_name: "{aclnn.BACKWARD.name}"'):
        assert (name in graph) == (name == gradients)


def max_error(dtype: str) -> float:
    return 1e-5 if dtype == "float32" else 1e-3


def test_the_operators_bprop_gives_a_gradient_for_every_argument():
    geometry = GRID["torchvision's own"]
    call, grad_output = geometry.call(), geometry.grad_output()
    packed = np.concatenate([call["offset"][:, 1::2], call["offset"][:, ::2], call["mask"]], 1)
    arrays = (call["input"], call["weight"], packed, call["bias"], grad_output)
    x, weight, offset, bias, grad = (ms.Tensor(array.astype(np.float32)) for array in arrays)
    operator, constants = aclnn.prepare(described(geometry))
    gradients = operator.get_bprop()(x, weight, offset, bias, *constants, (grad, x), (grad, x))
    assert len(gradients) == len(aclnn.FORWARD.inputs) + len(constants)
    for tensor, gradient in paired((x, weight, offset, bias), gradients[:4]):
        assert gradient.shape == tensor.shape


def test_gradients_of_canns_gradients_are_refused():
    arguments = len(aclnn.registration(aclnn.BACKWARD)["attr"]) + len(aclnn.BACKWARD.inputs)
    with pytest.raises(NotImplementedError, match="gradients of its gradients"):
        aclnn.backward_primitive().get_bprop()(*(None,) * (arguments + 2))


# As CANN calls them, and as MindSpore does.
@pytest.mark.parametrize("soc", (A2, A3, ASCEND_950, "ascend910b", "ascend910_93", "ascend950"))
def test_products_with_the_function_have_no_obstacle(on, soc):
    on(soc)
    assert cann.aclnn_obstacle(soc) is None


@pytest.mark.parametrize("soc", ("Ascend910A", "Ascend910_9589", "Ascend310P3", ""))
def test_other_products_are_named(on, soc):
    on(soc)
    for obstacle in (cann.aclnn_obstacle, cann.aclnn_backward_obstacle):
        assert f"this is {soc or 'no Ascend device'}" in obstacle(soc)


def test_what_is_missing_of_cann_is_named(on, tmp_path, monkeypatch):
    on(A2)
    (tmp_path / HEADER).unlink()
    assert "install CANN 8.5 or later" in cann.aclnn_obstacle(A2)
    monkeypatch.delenv("ASCEND_OPP_PATH")
    for obstacle in (cann.aclnn_obstacle, cann.aclnn_backward_obstacle):
        assert "source CANN's set_env.sh" in obstacle(ASCEND_950)


@pytest.mark.parametrize(
    ("soc", "version", "reason"),
    [
        (ASCEND_950, "9.1", None),
        (ASCEND_950, "8.5", "install CANN 9.1 or later"),
        (A2, "9.1", "is for Ascend 950, this is Ascend910B4"),
    ],
)
def test_the_gradient_is_canns_where_it_declares_one(on, soc, version, reason):
    on(soc, version)
    obstacle = cann.aclnn_backward_obstacle(soc)
    assert obstacle is None if reason is None else reason in obstacle
    assert aclnn.trains() == (reason is None)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (described(Geometry(size=(50, 50), kernel=(46, 46), groups=2)), "at most 2048 taps"),
        (described(Geometry(channels_in=8000, kernel=(3, 3))), "and 65535 taps times"),
        (described(GRID["empty batch"]), "no empty tensors"),
        (of_size(2**16, 2**15), "at most 2147483647 pixels a channel, got 2147483648"),
        (of_size(1, 2**31 - 1), None),
        (described(GRID["no bias"]), None),
    ],
)
def test_calls_beyond_the_functions_limits_are_named(usable, call, reason):
    obstacle = aclnn.obstacle(call)
    assert obstacle is None if reason is None else reason in obstacle


def test_shapes_must_be_known(usable):
    call = described(GRID["no bias"])
    any_batch = call._replace(geometry=call.geometry._replace(batch=None))
    assert "shapes that are known" in aclnn.obstacle(any_batch)


@pytest.fixture
def usable(monkeypatch, graph_mode):
    """As on a device that has the function."""
    monkeypatch.setattr(aclnn, "aclnn_obstacle", lambda soc: None)


# The one line, however often it holds.
IN_GRAPH_MODE_ONLY = "deform_conv2d: the composition instead of aclnn, which needs graph mode"


def test_layers_that_are_not_trained_take_it_in_graph_mode(mode, logged, on):
    on(A2)
    call = described(GRID["no bias"])
    not_trained = call._replace(training=False)
    expected = aclnn if mode == "graph" else composition
    for _ in range(2):
        assert choose_backend(not_trained, None) is expected
        assert choose_backend(call, "aclnn") is expected
    assert choose_backend(call, None) is composition
    with set_backend("composition"):
        assert choose_backend(not_trained, None) is composition
    assert_said(logged, [] if mode == "graph" else [IN_GRAPH_MODE_ONLY])


@pytest.mark.parametrize("version", ("8.5", "9.1"))
def test_layers_that_are_trained_take_it_where_cann_has_its_gradient(mode, version, logged, on):
    on(ASCEND_950, version)
    call = described(GRID["no bias"])
    with_gradient = version == "9.1"
    expected = aclnn if mode == "graph" and with_gradient else composition
    assert choose_backend(call, None) is expected
    assert_said(logged, [IN_GRAPH_MODE_ONLY] if mode != "graph" and with_gradient else [])


def assert_said(logged: list[str], wanted: list[str]) -> None:
    assert [line.partition(", jit level")[0] for line in logged] == wanted


def test_what_the_composition_does_not_take_either_is_an_error(usable, logged):
    with pytest.raises(NotImplementedError, match=r"'composition' takes .* got float64"):
        choose_backend(described(GRID["no bias"], ms.float64), None)


class StandIn:
    """This project's kernels, behind the arguments of aclnnDeformableConv2d."""

    def __init__(self) -> None:
        self.calls = []
        self.dtypes = set()
        self.packed = None

    def __call__(self, x, weight, packed, bias, *constants):
        self.calls.append(constants)
        self.dtypes |= {tensor.dtype for tensor in (x, weight, packed, bias)}
        self.packed = packed.asnumpy()
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
    monkeypatch.setattr(aclnn, "primitive", lambda geometry, cann_gradients: stand_in)
    before = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield stand_in
    ms.set_context(mode=before)


@pytest.mark.parametrize("soc", (A2, ASCEND_950))
@pytest.mark.parametrize("dtype", (ms.float32, ms.float16))
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("use_mask", (True, False))
def test_a_layer_calls_the_function_with_what_it_means(
    device, on, stand_in, soc, dtype, bias, use_mask
):
    on(soc, "8.5")
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
    assert stand_in.dtypes == {ms.float32}
    assert actual.dtype == expected.dtype == dtype
    np.testing.assert_allclose(
        *(value.astype(ms.float32).asnumpy() for value in (actual, expected)), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("soc", (A2, ASCEND_950))
@pytest.mark.parametrize("dtype", (np.float32, np.float16))
def test_far_offsets_come_finite_and_outside_and_nans_as_they_are(device, on, stand_in, soc, dtype):
    on(soc)
    far = np.array([np.inf, -np.inf, 65504, -65504, np.nan, 1], dtype)
    ones = ms.Tensor(np.ones((1, 1, 1, far.size), dtype))
    offset = ms.Tensor(np.stack([np.zeros_like(far), far])[None, :, None])
    with set_backend("aclnn"):
        output = deform_conv2d(ones, offset, ms.Tensor(np.ones((1, 1, 1, 1), dtype)))
    x = stand_in.packed[0, 0, 0]
    assert np.all(np.abs(x[:4]) >= 65504) and np.all(np.isfinite(x[:4]))
    assert np.isnan(x[4]) and x[5] == 1
    np.testing.assert_array_equal(output.asnumpy()[0, 0, 0], [0, 0, 0, 0, np.nan, 0])
