# SPDX-License-Identifier: Apache-2.0
"""The composition laid out for Ascend computes what torchvision does, to the last border pixel.

On MindSpore's CPU kernels of the same operators, and on CANN's DeformableOffsets as its source has
it (`cann_operators`). Ascend910B4 takes GridSampler2D for these few channels, the others
DeformableOffsets: one offset group a call with zero channels (910A), or all (950).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import ops

import cann_operators
import operator_under_test
import reference
from geometries import GRID, Geometry
from kernels import by_reference, problem_of
from ms_deform import deform_conv2d, set_backend
from ms_deform.backends import composition
from networks import CHANNELS, LayerNet, call_tensors, image
from random_geometries import geometries
from test_gradients import assert_equals_the_reference
from tolerances import assert_close, assert_gradients_close

pytestmark = [
    pytest.mark.usefixtures("device", "mode"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's DeformableOffsets"),
]

SOCS = ("Ascend910B4", "Ascend910A", "Ascend950")
each_soc = pytest.mark.parametrize("soc", SOCS)
in_graphs = pytest.mark.parametrize("mode", ["graph"], indirect=True)
in_pynative = pytest.mark.parametrize("mode", ["pynative"], indirect=True)


@pytest.fixture
def laid_out(soc: str):
    with set_backend("composition", soc=soc):
        yield


@pytest.fixture
def canns_operators(monkeypatch):
    """CANN's DeformableOffsets in the place of MindSpore's."""
    monkeypatch.setattr(composition, "DeformableOffsets", cann_operators.DeformableOffsets)
    composition._laid_out.cache_clear()
    yield
    composition._laid_out.cache_clear()


# Zero offsets and padding put samples exactly on -1.
ON_BORDERS = Geometry(kernel=(3, 3), padding=(2, 2), offset_scale=0.0, size=(4, 5))


@in_pynative
@each_soc
@pytest.mark.parametrize("name", GRID)
@pytest.mark.usefixtures("laid_out")
def test_every_layout_equals_the_reference(name: str) -> None:
    assert_equals_the_reference(GRID[name], 0, "float32")


@each_soc
@pytest.mark.usefixtures("laid_out")
def test_samples_on_the_border_equal_the_reference() -> None:
    assert_equals_the_reference(ON_BORDERS, 1, "float32")


@in_graphs
@each_soc
@pytest.mark.parametrize("name", ["torchvision's own", "neither mask nor bias", "empty batch"])
@pytest.mark.usefixtures("laid_out")
def test_graphs_of_every_layout_equal_the_reference(name: str) -> None:
    assert_equals_the_reference(GRID[name], 0, "float32")


@in_graphs
@each_soc
@pytest.mark.usefixtures("laid_out")
def test_a_graph_computes_the_same_again() -> None:
    for seed in range(3):
        assert_equals_the_reference(GRID["no bias"], seed, "float32")


@each_soc
@pytest.mark.usefixtures("laid_out")
def test_vmap_equals_a_loop() -> None:
    def called(input, offset, weight, bias, mask):
        return deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)

    tensors = [ops.stack([tensor, 2 * tensor, tensor - 1]) for tensor in call_tensors().values()]
    output = ms.vmap(called, 0, 0)(*tensors).asnumpy()
    expected = [called(*(tensor[i] for tensor in tensors)).asnumpy() for i in range(3)]
    assert_close(output, np.stack(expected), "float32", "output")


@each_soc
@settings(max_examples=5)
@given(geometry=geometries(), seed=st.integers(0, 999))
def test_a_random_geometry_equals_the_reference(geometry: Geometry, seed: int, soc: str) -> None:
    with set_backend("composition", soc=soc):
        assert_equals_the_reference(geometry, seed, "float32")


@each_soc
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.usefixtures("laid_out")
def test_halves_are_rounded_once(dtype: str) -> None:
    assert_equals_the_reference(GRID["torchvision's own"], 0, dtype)


@in_graphs
@each_soc
@pytest.mark.usefixtures("laid_out")
def test_a_graph_takes_any_batch_size(soc: str) -> None:
    net = LayerNet()
    net.set_inputs(ms.Tensor(shape=[None, CHANNELS, 7, 9], dtype=ms.float32))
    for batch in (2, 1, 3):
        actual = net(image(batch)).asnumpy()
        with set_backend("aot"):
            static = LayerNet()
            ms.load_param_into_net(static, net.parameters_dict())
            expected = static(image(batch)).asnumpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@in_pynative
@pytest.mark.parametrize("soc", ["Ascend910A", "Ascend950"])
@pytest.mark.parametrize(
    "geometry",
    [ON_BORDERS, *(GRID[name] for name in ("no mask", "7x5 kernel", "strided and dilated"))],
    ids=["on borders", "no mask", "7x5 kernel", "strided and dilated"],
)
@pytest.mark.usefixtures("canns_operators")
def test_so_it_does_on_canns_operators(geometry: Geometry, soc: str) -> None:
    if soc == "Ascend950":
        # Its operators take several offset groups; the double has one.
        geometry = Geometry(**{**geometry.__dict__, "offset_groups": 1})
    with set_backend("composition", soc=soc):
        assert_equals_the_reference(geometry, 3, "float32")


@in_pynative
def test_without_a_row_of_zeros_canns_gradients_differ_on_minus_one() -> None:
    """What the row is for; and the double is no copy of the reference."""
    problem = problem_of(ON_BORDERS, "float32")
    grad_output = problem.pop("grad_output")
    offset, mask = (ms.Tensor(problem[name].astype(np.float32)) for name in ("offset", "mask"))
    weight = problem["weight"].astype(np.float32)
    images = problem["input"].astype(np.float32)
    sample = cann_operators.DeformableOffsets((1,) * 4, (2,) * 4, (3, 3), (1,) * 4, 1)
    packed = composition.packed(offset, mask)
    columns = np.einsum("nohw,ocij->nchiwj", grad_output, weight)
    shape = (*images.shape[:2], *(3 * size for size in grad_output.shape[2:]))
    grad_columns = ms.Tensor(columns.reshape(shape).astype(np.float32))
    _, grad_packed = sample.bprop(ms.Tensor(images), packed, None, grad_columns)
    _, grad_y, grad_mask = np.split(grad_packed.asnumpy(), 3, axis=1)
    expected = reference.deform_conv2d_grad(grad_output, **problem)
    np.testing.assert_allclose(grad_mask, expected.mask, rtol=1e-4, atol=1e-4)
    y, _ = reference.sampling_points(problem["offset"], (3, 3), 1, 2, 1)
    on_minus_one = y[:, 0] == -1
    wanted = expected.offset[:, 0::2]
    np.testing.assert_allclose(grad_y[~on_minus_one], wanted[~on_minus_one], rtol=1e-4, atol=1e-4)
    assert not grad_y[on_minus_one].any()
    assert wanted[on_minus_one].any()


@each_soc
@pytest.mark.parametrize("use_mask", [True, False])
@pytest.mark.usefixtures("laid_out")
def test_a_nan_offset_spoils_only_its_pixel(use_mask: bool) -> None:
    geometry = Geometry(**{**GRID["torchvision's own"].__dict__, "use_mask": use_mask})
    problem = problem_of(geometry, "float32")
    problem["offset"][0, 0, 1, 2] = np.nan
    grad_output = problem.pop("grad_output")
    output, gradients = operator_under_test.gradients(problem, grad_output, "float32")
    expected = reference.deform_conv2d(**problem)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(gradients.input).all()


@in_pynative
@pytest.mark.usefixtures("canns_operators")
def test_a_nan_offset_spoils_its_pixel_on_canns_operators_too() -> None:
    problem = problem_of(GRID["torchvision's own"], "float32")
    problem["offset"][0, 0, 1, 2] = np.nan
    problem.pop("grad_output")
    with set_backend("composition", soc="Ascend910A"):
        output = operator_under_test.forward(problem, "float32")
    expected = reference.deform_conv2d(**problem)
    np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))


@each_soc
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30])
@pytest.mark.usefixtures("laid_out")
def test_an_infinite_offset_samples_nothing(value: float) -> None:
    problem = problem_of(GRID["torchvision's own"], "float32")
    problem["offset"][0, :2, 1, 2] = value
    expected_output, expected = by_reference(problem)
    grad_output = problem.pop("grad_output")
    output, actual = operator_under_test.gradients(problem, grad_output, "float32")
    assert_close(output, expected_output, "float32", "output")
    assert_gradients_close(actual, expected, "float32")


@in_pynative
@pytest.mark.parametrize("width", [300, 513, 900])
def test_grid_coordinates_are_as_exact_as_those_at_the_far_border(width: int) -> None:
    """Rounded to 2^-24 of the power of two above the width; whole ones are whole."""
    rng = np.random.default_rng(0)
    offset = rng.normal(size=(1, 2, 3, width)) * 3
    offset[..., ::5] = np.round(offset[..., ::5])
    # A slope of 1 along x: the output is the coordinate.
    ramp = np.broadcast_to(np.arange(width, dtype=float), (1, 1, 3, width))
    offset[:, 0] = 0
    call = {"input": ramp, "offset": offset.astype(np.float32), "weight": np.ones((1, 1, 1, 1))}
    with set_backend("composition", soc="Ascend910B4"):
        output = operator_under_test.forward(call, "float32")
    x = np.arange(width) + call["offset"][:, 1:2].astype(float)
    inside = (x >= 0) & (x <= width - 1)
    error = np.abs(output - x)[inside]
    assert error.max() <= 2.0 ** np.ceil(np.log2(width - 1)) * 2.0**-24
    assert not error[(x == np.round(x))[inside]].any()
