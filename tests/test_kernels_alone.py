# SPDX-License-Identifier: Apache-2.0
"""The kernels without MindSpore: clean under sanitizers, and speaking the Python checks' words."""

from __future__ import annotations

import platform
from dataclasses import replace

import mindspore as ms
import pytest

from invalid_calls import INVALID_SHAPES, NEAR_MISSES, PLAIN_MISTAKES
from kernel_driver import Driver, build_driver
from kernels import isas_here
from ms_deform.geometry import TensorInfo, check_geometry, errors_of
from networks import call_tensors

SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-O1",
)
INPUTS = ("input", "offset", "mask", "weight", "bias")
HERE = platform.machine()
REFUSED = {**INVALID_SHAPES, **PLAIN_MISTAKES, **NEAR_MISSES}


@pytest.mark.long
def test_random_and_hostile_calls_are_clean_under_sanitizers(tmp_path):
    driver = Driver(build_driver(tmp_path, flags=SANITIZERS))
    for isa in isas_here():
        done = replace(driver, isa=isa).run("sweep", 7, 250)
        assert (done.returncode, done.stderr) == (0, ""), isa


def inferred(
    driver: Driver,
    shapes: dict[str, tuple[int, ...] | None],
    padding: int = 1,
    dilation: tuple[int, int] = (1, 1),
    caller: str = "deform_conv2d",
) -> str:
    given = [shapes[name] for name in INPUTS]
    arguments = ["-" if shape is None else ",".join(map(str, shape)) for shape in given]
    constants = ["1,1", ",".join(4 * [str(padding)]), ",".join(map(str, dilation))]
    done = driver.run("infer", *arguments, *constants, caller)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_shape_inference_refuses_in_the_same_words_as_python(driver_of, case):
    shapes = {**{name: tensor.shape for name, tensor in call_tensors().items()}, **case.shapes}
    infos = {name: shape and TensorInfo(shape, ms.float32) for name, shape in shapes.items()}
    constants = {"stride": 1, "padding": 1, "dilation": 1, **case.constants}
    with pytest.raises(ValueError, match=case.message) as refused, errors_of("deform_conv2d"):
        check_geometry(**infos, constants=tuple(constants.values()))
    assert inferred(driver_of(HERE), shapes, **case.constants) == str(refused.value)


def test_shape_inference_keeps_what_is_unknown(driver_of):
    driver = driver_of(HERE)
    shapes = {name: tensor.shape for name, tensor in call_tensors().items()}
    assert inferred(driver, shapes) == "2,6,7,9"
    unknown_batch = {**shapes, "input": (-1, 4, 7, 9)}
    assert inferred(driver, unknown_batch) == "2,6,7,9"
    unknown = dict.fromkeys(INPUTS, (-2,))
    assert inferred(driver, unknown) == "-1,-1,-1,-1"
    unknown_size = {**unknown, "input": (-1, 4, -1, 9), "weight": (-1, 2, 3, 3)}
    assert inferred(driver, unknown_size) == "-1,-1,-1,9"


def test_shape_inference_names_what_the_user_called(driver_of):
    shapes = {name: tensor.shape for name, tensor in call_tensors().items()}
    refused = inferred(driver_of(HERE), {**shapes, "bias": (7,)}, caller="DeformConv2d")
    assert refused.startswith("DeformConv2d: bias.shape[0] must be weight.shape[0]")
