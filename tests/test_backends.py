# SPDX-License-Identifier: Apache-2.0
"""Backends are chosen by name; the composition is the AOT kernels' equal, within its limits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto

import ms_deform
import toy_backend
from ms_deform import DeformConv2d, ModulatedDeformConv2dPack, deform_conv2d, set_backend
from ms_deform.backends import BACKENDS, aclnn, aot, asked_backend, choose_backend, composition
from ms_deform.backends.interface import Call
from ms_deform.geometry import TensorInfo, check_geometry
from networks import CHANNELS, TAPS, LayerNet, MeanSquare, call_tensors, image, random_array

pytestmark = [
    pytest.mark.usefixtures("device", "mode", "scratch_folder"),
    pytest.mark.not_on_gpu_stand_in("needs MindSpore's DeformableOffsets"),
]


@pytest.fixture
def sampled(monkeypatch) -> list[str]:
    """The calls that the composition computed."""
    calls = []
    original = composition.run

    def run(*arguments):
        calls.append("composition")
        return original(*arguments)

    monkeypatch.setattr(composition, "run", run)
    return calls


def call() -> ms.Tensor:
    return deform_conv2d(**call_tensors(), padding=1)


@pytest.mark.usefixtures("pynative")
def test_the_choice_holds_until_the_next_one(sampled):
    call()
    assert sampled == []
    set_backend("composition")
    call()
    assert len(sampled) == 1
    set_backend(None)
    call()
    assert len(sampled) == 1


@pytest.mark.usefixtures("pynative")
def test_a_with_block_restores_the_choice_before_it(sampled):
    with set_backend("composition"):
        with set_backend("aot"):
            call()
            assert sampled == []
        call()
        assert len(sampled) == 1
    assert asked_backend() is None
    with pytest.raises(ZeroDivisionError), set_backend("composition"):
        raise ZeroDivisionError
    assert asked_backend() is None


@pytest.mark.usefixtures("pynative")
def test_a_layers_own_backend_is_stronger(sampled):
    layer = DeformConv2d(CHANNELS, 6, 3, padding=1, backend="composition")
    pack = ModulatedDeformConv2dPack(CHANNELS, 6, 3, padding=1, backend="composition")
    offset = ms.Tensor(random_array((2, 2 * TAPS, 7, 9)))
    with set_backend("aot"):
        layer(image(), offset)
        pack(image())
    assert len(sampled) == 2
    assert "backend=composition" in repr(layer)
    with set_backend("composition"):
        DeformConv2d(CHANNELS, 6, 3, padding=1, backend="aot")(image(), offset)
    assert len(sampled) == 2


def operators(net: nn.Cell, *inputs: ms.Tensor) -> set[str]:
    """The types of the operators in the graph of a network."""
    ms.export(net, *inputs, file_name="net", file_format="MINDIR")
    model = ModelProto()
    model.ParseFromString(Path("net.mindir").read_bytes())
    return {primitive.op_type for primitive in model.primitives}


@pytest.mark.parametrize("backend", ["aot", "composition"])
def test_a_layers_backend_is_the_one_in_its_graph(backend):
    other = {"aot": "composition", "composition": "aot"}[backend]
    layer = ModulatedDeformConv2dPack(CHANNELS, 6, 3, padding=1, backend=backend)
    with set_backend(other):
        found = operators(layer, image())
    expected = {"aot": {"Custom"}, "composition": {"DeformableOffsets"}}[backend]
    assert found & {"Custom", "DeformableOffsets"} == expected


@pytest.fixture
def toy(monkeypatch) -> str:
    """A backend that is registered as the package says: a module, and its row in the table."""
    for row in BACKENDS.values():
        monkeypatch.setitem(row, "toy", toy_backend)
    return "toy"


def test_a_module_and_a_row_make_a_backend(toy, mode):
    tensors = call_tensors()
    for name in ("offset", "mask"):
        tensors[name] = tensors[name][:, : tensors[name].shape[1] // 2]
    input, offset, weight, bias, mask = tensors.values()
    plain = deform_conv2d(input, ops.zeros_like(offset), weight, bias, padding=1)
    for output in (
        choose(toy, lambda: Called()(*tensors.values())),
        in_layer(toy, weight, bias)(input, offset, mask),
    ):
        np.testing.assert_allclose(output.asnumpy(), plain.asnumpy(), rtol=1e-4, atol=1e-5)
    gradient = choose(toy, lambda: ms.grad(Called(), 2)(*tensors.values()))
    assert gradient.shape == weight.shape
    assert ops.abs(gradient).max() > 0


def choose(backend: str, call: Callable[[], ms.Tensor]) -> ms.Tensor:
    with set_backend(backend):
        return call()


def in_layer(backend: str, weight: ms.Tensor, bias: ms.Tensor) -> DeformConv2d:
    layer = DeformConv2d(CHANNELS, 6, 3, padding=1, groups=2, backend=backend)
    layer.weight.set_data(weight)
    layer.bias.set_data(bias)
    return layer


def test_what_a_backend_does_not_take_is_said_in_its_words(toy):
    message = (
        "^deform_conv2d: the backend 'toy' takes one offset group, got 2; .* ms_deform.set_backend"
    )
    with set_backend(toy), pytest.raises(NotImplementedError, match=message):
        Called()(*call_tensors().values())


@pytest.mark.parametrize("backend", [aot, composition])
def test_batches_and_image_sizes_share_their_primitives(backend):
    def prepared(batch: int, size: tuple[int, int]) -> list[int]:
        weight = TensorInfo((6, 2, 3, 3), ms.float32)
        tensors = (TensorInfo((batch, count, *size), ms.float32) for count in (CHANNELS, 36, 18))
        geometry = check_geometry(*tensors, weight, None, (1, 1, 1))
        call = Call(geometry, ms.float32, "CPU", False, "deform_conv2d")
        return [*map(id, backend.prepare(call))]

    assert prepared(2, (7, 9)) == prepared(3, (7, 9)) == prepared(2, (5, 30))


def test_unknown_names_are_refused():
    message = "must be one of aot, composition, aclnn, aicpu, or None, got 'cuda'"
    with pytest.raises(ValueError, match=f"set_backend: 'name' {message}"):
        set_backend("cuda")
    with pytest.raises(ValueError, match=f"DeformConv2d: 'backend' {message}"):
        DeformConv2d(3, 4, 3, backend="cuda")
    assert asked_backend() is None


def test_a_backend_of_another_device_is_refused():
    with (
        set_backend("aicpu"),
        pytest.raises(RuntimeError, match="'aicpu' does not serve device target"),
    ):
        Called()(*call_tensors().values())
    with pytest.raises(RuntimeError, match="no backend for device target 'TPU'"):
        choose_backend(described("TPU"), None)


def described(device_target: str, kernel: tuple[int, int] = (3, 3)) -> Call:
    """A call of kernel size (3, 3) on 7 x 99 pixels."""
    taps, size = kernel[0] * kernel[1], (7 - kernel[0] + 1, 99 - kernel[1] + 1)
    shapes = ((2, 4, 7, 99), (2, 2 * taps, *size), None, (6, 4, *kernel), None)
    geometry = check_geometry(
        *(shape and TensorInfo(shape, ms.float32) for shape in shapes), (1, 0, 1)
    )
    return Call(geometry, ms.float32, device_target, False, "deform_conv2d")


def test_defaults_of_the_device_targets(monkeypatch):
    monkeypatch.setattr(aclnn, "obstacle", lambda call: None)
    training, inference = (
        {
            target: choose_backend(described(target)._replace(training=training), None)
            for target in BACKENDS
        }
        for training in (True, False)
    )
    assert training == {"CPU": aot, "GPU": aot, "Ascend": composition}
    assert inference == {"CPU": aot, "GPU": aot, "Ascend": aclnn}


class Called(nn.Cell):
    def construct(self, input, offset, weight, bias, mask):
        return deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)


def test_float64_is_refused_by_the_composition():
    tensors = [tensor.astype(ms.float64) for tensor in call_tensors().values()]
    with set_backend("composition"), pytest.raises(NotImplementedError, match="has no float64"):
        Called()(*tensors)


def test_the_composition_takes_any_batch_size_in_one_graph():
    static, dynamic = LayerNet(), LayerNet()
    ms.load_param_into_net(dynamic, static.parameters_dict())
    dynamic.set_inputs(ms.Tensor(shape=[None, CHANNELS, 7, 9], dtype=ms.float32))
    for batch in (2, 1, 3):
        with set_backend("composition"):
            actual = dynamic(image(batch)).asnumpy()
        expected = static(image(batch)).asnumpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


# In PyNative mode every dimension is known.
@pytest.mark.parametrize("mode", ["graph"], indirect=True)
@pytest.mark.parametrize("shape", ([2, CHANNELS, None, None], None), ids=("size", "rank"))
def test_other_unknown_dimensions_are_refused_by_the_composition(shape, mode):
    net = LayerNet()
    net.set_inputs(ms.Tensor(shape=shape, dtype=ms.float32))
    message = "only the batch size is unknown"
    with set_backend("composition"), pytest.raises(NotImplementedError, match=message):
        net(image())


def test_a_kernel_that_ascends_conv2d_does_not_take_is_refused():
    assert composition.obstacle(described("CPU", (1, 64))) is None
    assert composition.obstacle(described("Ascend", (1, 63))) is None
    assert "at most 63 x 63 on Ascend" in composition.obstacle(described("Ascend", (1, 64)))


def test_training_on_the_composition_gives_the_losses_of_the_kernels():
    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first = ModulatedDeformConv2dPack(CHANNELS, 8, 3, padding=1, deform_groups=2)
            self.second = LayerNet()
            self.between = nn.Conv2d(8, CHANNELS, 1, has_bias=True)

        def construct(self, x):
            return self.second(self.between(ops.relu(self.first(x))))

    def losses(backend: str, net: nn.Cell) -> list[float]:
        optimizer = nn.Momentum(net.trainable_params(), learning_rate=0.1, momentum=0.9)
        step = nn.TrainOneStepCell(MeanSquare(net), optimizer).set_train()
        with set_backend(backend):
            return [float(step(image(seed=i)).asnumpy()) for i in range(20)]

    net = Net()
    nets = net, copy.deepcopy(net)
    curves = [losses(*arguments) for arguments in zip(("aot", "composition"), nets)]
    assert curves[0][-1] < 0.9 * curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=1e-5)


def test_a_nan_offset_spoils_only_its_pixel_in_the_composition():
    tensors = call_tensors()
    offset = tensors["offset"].asnumpy().copy()
    offset[0, 0, 2, 3] = np.nan
    tensors["offset"] = ms.Tensor(offset)
    with set_backend("composition"):
        output = Called()(*tensors.values()).asnumpy()
        gradient = ms.grad(Called())(*tensors.values()).asnumpy()
    expected = Called()(*tensors.values()).asnumpy()
    np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))
    assert np.isnan(output).any()
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(gradient).all()


def test_set_backend_is_public():
    assert ms_deform.set_backend is set_backend
